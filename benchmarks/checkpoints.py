"""Tiny checkpoints in the public formats, made on the spot: BERT, RoBERTa, DPR, Stanford's ColBERT, a cross-encoder.

Their weights are random, so they know nothing; what loads them and what scores by them is the same as for real ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = (
    *("the", "a", "of", "and", "book", "rocket", "orbit", "planet", "moon", "star", "sun", "bread", "soup", "butter"),
    *("onion", "oven", "whale", "reef", "tide", "coral", "violin", "drum", "opera", "guitar", "melody", "what", "is"),
    *("about", "who", "made", "it", "how", "when", "in", "on", "to", "for", "with", "red", "blue", "green", "old"),
)
WIDTH = 32


def bert(folder: Path) -> Path:
    """A plain BertModel, as `google-bert/bert-base-uncased` is saved."""
    from transformers import BertModel

    return _save(folder, BertModel(_config()), _wordpieces())


def roberta(folder: Path) -> Path:
    """A plain RobertaModel with a byte-level tokenizer, as `FacebookAI/roberta-base` is saved."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizerFast

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([*WORDS] * 5, 400, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    folder.mkdir(parents=True, exist_ok=True)
    trained.save_model(str(folder))
    tokenizer = RobertaTokenizerFast.from_pretrained(str(folder), model_max_length=62)
    config = RobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=66, pad_token_id=1, **_shape())
    _seeded()
    return _save(folder, RobertaModel(config), tokenizer)


def dpr(folder: Path) -> tuple[Path, Path]:
    """A question and a context encoder, as `facebook/dpr-*-single-nq-base` are saved."""
    from transformers import DPRConfig, DPRContextEncoder, DPRQuestionEncoder

    tokenizer = _wordpieces()
    config = DPRConfig(vocab_size=len(tokenizer), max_position_embeddings=64, projection_dim=0, **_shape())
    _seeded()
    question = _save(folder / "question", DPRQuestionEncoder(config), tokenizer)
    return question, _save(folder / "context", DPRContextEncoder(config), tokenizer)


def colbert(folder: Path) -> Path:
    """A checkpoint in Stanford's format, as `colbert-ir/colbertv2.0` is saved: the projection beside the encoder."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import BertModel

    _save(folder, BertModel(_config()), _wordpieces())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["HF_ColBERT"]}))
    weights = {f"bert.{name}": one for name, one in load_file(folder / "model.safetensors").items()}
    weights["linear.weight"] = torch.randn(16, WIDTH)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    told = {"query_token_id": "[unused0]", "doc_token_id": "[unused1]", "query_maxlen": 12, "doc_maxlen": 24}
    (folder / "artifact.metadata").write_text(json.dumps({**told, "mask_punctuation": True}))
    return folder


def pylate(folder: Path, named: bool = True) -> Path:
    """A checkpoint in PyLate's format, as `lightonai/GTE-ModernColBERT-v1` is saved: a Dense of PyLate's own class.

    named: whether it says that it is a ColBERT, as those do that were saved by later versions.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import BertModel

    tokenizer = _wordpieces()
    tokenizer.add_tokens(["[Q] ", "[D] "])
    _seeded()
    model = BertModel(_config())
    model.resize_token_embeddings(len(tokenizer))
    _save(folder, model, tokenizer)
    dense = folder / "1_Dense"
    dense.mkdir()
    save_file({"linear.weight": torch.randn(16, WIDTH)}, dense / "model.safetensors", metadata={"format": "pt"})
    activation = "torch.nn.modules.linear.Identity"
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
    ]
    told = {
        "prompts": {}, "default_prompt_name": None, "similarity_fn_name": "MaxSim", "query_prefix": "[Q] ",
        "document_prefix": "[D] ", "query_length": 12, "document_length": 24, "attend_to_expansion_tokens": False,
        "skiplist_words": [".", ",", "!", "?"], "do_query_expansion": True,
    }  # fmt: skip
    for path, value in {
        dense / "config.json": {
            "in_features": WIDTH, "out_features": 16, "bias": False, "activation_function": activation,
        },
        folder / "modules.json": modules,
        folder / "sentence_bert_config.json": {"max_seq_length": 23, "do_lower_case": False},
        folder / "config_sentence_transformers.json": told | ({"model_type": "ColBERT"} if named else {}),
    }.items():  # fmt: skip
        path.write_text(json.dumps(value))
    return folder


def multi_vector(folder: Path) -> Path:
    """A checkpoint as sentence-transformers saves a MultiVectorEncoder of its own."""
    from sentence_transformers import MultiVectorEncoder

    MultiVectorEncoder(str(colbert(folder / "from")), device="cpu").save_pretrained(str(folder / "to"))
    return folder / "to"


def cross_encoder(folder: Path) -> Path:
    """A BertForSequenceClassification with one output, as `cross-encoder/ms-marco-MiniLM-L6-v2` is saved."""
    from transformers import BertForSequenceClassification

    config = _config()
    config.num_labels = 1
    _seeded()
    model = BertForSequenceClassification(config)
    for layer in model.bert.encoder.layer:  # so that scores differ in more than their last digits
        for part in (layer.attention.self.query, layer.attention.self.value, layer.intermediate.dense):
            part.weight.data *= 25
    model.classifier.weight.data *= 30
    return _save(folder, model, _wordpieces())


def roberta_cross_encoder(folder: Path) -> Path:
    """A RobertaForSequenceClassification with one output, as `cross-encoder/stsb-roberta-base` is saved."""
    from transformers import AutoConfig, AutoTokenizer, RobertaForSequenceClassification

    plain = roberta(folder / "plain")
    config = AutoConfig.from_pretrained(str(plain), num_labels=1, initializer_range=0.3)
    _seeded()
    return _save(folder / "cross", RobertaForSequenceClassification(config), AutoTokenizer.from_pretrained(str(plain)))


def _shape() -> dict[str, int]:
    return {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def _config() -> Any:
    from transformers import BertConfig

    _seeded()
    return BertConfig(vocab_size=len(_wordpieces()), max_position_embeddings=64, **_shape())


def _wordpieces() -> Any:
    """A WordPiece tokenizer that knows the words, and letters for all others."""
    from transformers import BertTokenizer

    letters = [chr(ord("a") + n) for n in range(26)] + [str(n) for n in range(10)]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", "[unused1]"]
    pieces = [*special, *WORDS, *letters, *(f"##{letter}" for letter in letters), ".", ",", ";", "?", "!"]
    vocabulary = {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}
    return BertTokenizer(vocab=vocabulary, model_max_length=60)


def _seeded() -> None:
    import torch

    torch.manual_seed(3)


def _save(folder: Path, model: Any, tokenizer: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
