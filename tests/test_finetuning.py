"""Fine-tuning and distillation, on models of a few thousand weights and a language of thirty words.

The positive text of a query shares its one rare word; all other words are noise.
"""

from __future__ import annotations

import json
import random
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.models.finetune import model_folder
from feedrank.models.finetune.distillation import distill
from feedrank.models.finetune.distillation_settings import DistillSettings, StudentConfig
from feedrank.models.finetune.finetune_settings import FinetuneSettings, settings_for
from feedrank.models.finetune.finetuning import BaseModels, FinetuneResult, finetune
from feedrank.models.finetune.samples import QueryTextGroups

RARE = [f"rare{place}" for place in range(8)]
NOISE = [f"noise{place}" for place in range(12)]
HIDDEN = 32
SETTINGS = {"epochs": 4, "max_tokens": 32, "batch_size": 16, "learning_rate": 4e-3, "patience": 9, "evaluations": 1}
CROSS = {
    **SETTINGS,
    "epochs": 24,
    "learning_rate": 2e-3,
    "head_learning_rate": 0.0,
    "patience": 30,
    "freeze_word_embeddings": False,
}
CROSS |= {"batch_size": 16, "negatives": 7}
CHANCE = (1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5 + 1 / 6) / 6
"""MRR of any order of six texts of which one answers."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained BERT."""
    from transformers import BertConfig, BertModel, BertTokenizerFast, set_seed

    folder = tmp_path_factory.mktemp("base")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *RARE, *NOISE]
    set_seed(3)
    config = BertConfig(
        vocab_size=len(words), hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, initializer_range=0.2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab={word: position for position, word in enumerate(words)}).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlanguage: none\nlicense: apache-2.0\n---\nA model.\n")
    return folder


@pytest.fixture(scope="module")
def groups() -> QueryTextGroups:
    """128 queries of three words, with six texts of four words each."""
    dice = random.Random(1)

    def text(rare: str, noise: int) -> str:
        words = [rare, *dice.sample(NOISE, noise)]
        dice.shuffle(words)
        return " ".join(words)

    def labelled(rare: str) -> dict[str, float]:
        others = dice.sample([one for one in RARE if one != rare], 5)
        return {text(rare, 3): 1.0} | {text(other, 3): 0.0 for other in others}

    return QueryTextGroups.from_groups((text(rare, 2), labelled(rare)) for _ in range(16) for rare in RARE)


@pytest.fixture(scope="module")
def teacher(base: Path, groups: QueryTextGroups, tmp_path_factory: pytest.TempPathFactory) -> FinetuneResult:
    """A cross-encoder trained to find the rare word."""
    out = tmp_path_factory.mktemp("teacher") / "model"
    return finetune("cross-encoder", groups, out, settings_for("cross-encoder", **CROSS), BaseModels((str(base),)))


def held_out(groups: QueryTextGroups, settings: FinetuneSettings | DistillSettings) -> QueryTextGroups:
    """The groups that a run with these settings validates on."""
    validation = groups.split(settings.validation_share, settings.seed)[1]
    return validation.subsample(settings.validation_groups, settings.validation_texts, settings.seed)


def weights(folder: Path) -> dict[str, bytes]:
    """Weight file -> its bytes."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.safetensors"))}


def unfinished(out: Path) -> list[Path]:
    """Folders of interrupted runs."""
    return list(out.parent.glob(f".{out.name}.*"))


@pytest.mark.parametrize("model_type", ["bi-encoder", "dpr", "colbert"])
def test_a_model_is_trained_loaded_and_described(
    model_type: str, base: Path, groups: QueryTextGroups, tmp_path: Path
) -> None:
    from feedrank.models.finetune import model_types, text_training

    # two towers have to learn each word twice
    settings = settings_for(model_type, **SETTINGS | {"epochs": 12 if model_type == "dpr" else 4})
    about = {"file": "pairs.jsonl", "sha256": "0"}
    learnt = finetune(model_type, groups, tmp_path / "model", settings, BaseModels((str(base),)), trained_on=about)
    assert learnt.finished
    assert learnt.metrics_after["mrr"] > max(learnt.metrics_before["mrr"], CHANCE) + 0.1
    validation = held_out(groups, settings)
    trained = model_types.MODEL_TYPES[model_type]
    scores = trained.score(trained.load(learnt.folder), validation)
    assert text_training.mean_reciprocal_rank(scores, validation) == learnt.metrics_after["mrr"]
    card = json.loads((tmp_path / "model" / "feedrank.json").read_text())
    assert card == {"format": 1, **learnt.card}
    assert card["licence"] == card["base"][0]["licence"] == "apache-2.0"
    assert card["base"][0]["name"] == str(base)
    assert card["trained_on"] == about
    assert card["groups"] == {"training": 115, "validation": 13}
    assert not unfinished(tmp_path / "model")
    with pytest.raises(ValueError, match="choose another with --out or remove it"):
        finetune(model_type, groups, tmp_path / "model", settings, BaseModels((str(base),)))


def test_the_towers_of_a_dpr_come_apart(base: Path, groups: QueryTextGroups, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    settings = settings_for("dpr", **SETTINGS | {"epochs": 1})
    finetune("dpr", groups, tmp_path / "model", settings, BaseModels((str(base), str(base))))
    model = SentenceTransformer(str(tmp_path / "model"))
    text = f"{RARE[0]} {NOISE[0]}"
    assert not np.allclose(model.encode_query(text), model.encode_document(text), atol=1e-3)
    with pytest.raises(ValueError, match="found 2 base models, expected 1 for colbert"):
        finetune("colbert", groups, tmp_path / "other", settings, BaseModels((str(base), str(base))))


def test_a_cross_encoder_learns_and_gives_logits(teacher: FinetuneResult, groups: QueryTextGroups) -> None:
    from sentence_transformers import CrossEncoder

    assert teacher.metrics_after["mrr"] > max(teacher.metrics_before["mrr"], CHANCE) + 0.15
    scores = CrossEncoder(str(teacher.folder)).predict([(groups.queries[0], text) for text in groups.group(0)])
    assert scores.min() < 0 or scores.max() > 1  # no activation stands in between


@pytest.mark.parametrize("loss", ["lambda", "listmle", "bce"])
def test_a_cross_encoder_has_other_losses(loss: str, base: Path, groups: QueryTextGroups, tmp_path: Path) -> None:
    settings = settings_for("cross-encoder", **CROSS | {"loss": loss, "epochs": 1, "head_learning_rate": 1e-2})
    assert (
        finetune("cross-encoder", groups, tmp_path / "model", settings, BaseModels((str(base),))).metrics_after["mrr"]
        > 0
    )


def test_a_cross_encoder_starts_from_its_bi_encoder(base: Path, groups: QueryTextGroups, tmp_path: Path) -> None:
    run_settings = settings_for("bi-encoder", **SETTINGS | {"epochs": 8})
    knowing = finetune("bi-encoder", groups, tmp_path / "bi", run_settings, BaseModels((str(base),))).folder
    settings = settings_for("cross-encoder", **CROSS | {"epochs": 2, "bi_encoder_distillation_epochs": 6})
    out = tmp_path / "cross"

    def interrupt(what: str, done: int, total: int) -> None:
        if what.startswith("cross-encoder") and done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune("cross-encoder", groups, out, settings, BaseModels((str(knowing),)), progress=interrupt)
    messages: list[str] = []
    learnt = finetune(
        "cross-encoder",
        groups,
        out,
        settings,
        BaseModels((str(knowing),)),
        progress=lambda *one: messages.append(one[0]),
    )
    # the distillation was complete before the interruption
    assert not any(one.startswith("bi-encoder distillation") for one in messages)
    assert learnt.metrics_after["mrr"] > max(CHANCE, learnt.metrics_before["mrr"]) + 0.15
    assert learnt.card["steps"] > 50
    other = finetune("cross-encoder", groups, tmp_path / "other", settings, BaseModels((str(knowing),)))
    assert weights(other.folder) == weights(out)
    assert {**other.card, "seconds": 0} == {**learnt.card, "seconds": 0}


def test_an_interrupted_run_resumes_and_ends_the_same(base: Path, groups: QueryTextGroups, tmp_path: Path) -> None:
    settings = settings_for("cross-encoder", **CROSS | {"epochs": 3})
    arguments = ("cross-encoder", groups)
    finetune(*arguments, tmp_path / "whole", settings, BaseModels((str(base),)))
    out = tmp_path / "broken"

    def interrupt(what: str, done: int, total: int) -> None:
        if done == 18:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(*arguments, out, settings, BaseModels((str(base),)), progress=interrupt)
    assert not out.exists()
    assert len(unfinished(out)) == 1
    # a checkpoint that was being written when the machine went down is passed over
    (unfinished(out)[0] / "checkpoint-17").mkdir()
    other = settings_for("cross-encoder", **CROSS | {"epochs": 3, "seed": 8})
    with pytest.raises(KeyboardInterrupt):
        finetune(*arguments, out, other, BaseModels((str(base),)), progress=interrupt)
    assert len(unfinished(out)) == 2  # other settings have a place of their own
    steps: list[int] = []
    finetune(*arguments, out, settings, BaseModels((str(base),)), progress=lambda _, done, total: steps.append(done))
    assert min(step for step in steps if step) == 15  # after the checkpoint of the second epoch
    assert weights(out) == weights(tmp_path / "whole")
    assert weights(out) != {}


def test_a_run_out_of_time_leaves_a_resumable_model(base: Path, groups: QueryTextGroups, tmp_path: Path) -> None:
    settings = settings_for("bi-encoder", **SETTINGS, minutes=1e-6)
    first = finetune("bi-encoder", groups, tmp_path / "model", settings, BaseModels((str(base),)))
    assert not first.finished
    assert first.card["steps"] == 1
    with pytest.raises(ValueError, match="unfinished model of another base, other data or settings"):
        finetune("bi-encoder", groups, tmp_path / "model", settings_for("bi-encoder"), BaseModels((str(base),)))
    second = finetune(
        "bi-encoder", groups, tmp_path / "model", settings_for("bi-encoder", **SETTINGS), BaseModels((str(base),))
    )
    assert second.finished
    assert second.metrics_before == first.metrics_before
    assert second.card["steps"] > 20
    assert second.card["fingerprint"] == first.card["fingerprint"]
    assert not unfinished(tmp_path / "model")


def test_the_same_seed_gives_the_same_weights(base: Path, groups: QueryTextGroups, tmp_path: Path) -> None:
    folders = []
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        settings = settings_for("colbert", **SETTINGS | {"epochs": 1, "seed": seed})
        finetune("colbert", groups, tmp_path / name, settings, BaseModels((str(base),)))
        folders.append(weights(tmp_path / name))
    assert folders[0] == folders[1] != folders[2]


def test_a_student_learns_from_its_teacher(teacher: FinetuneResult, groups: QueryTextGroups, tmp_path: Path) -> None:
    from feedrank.models.finetune import model_types, text_training

    settings = DistillSettings(
        StudentConfig(2, 16, 2, 32), epochs=5, learning_rate=6e-3, max_tokens=32, extra_negatives=4
    )
    learnt = distill(str(teacher.folder), groups, tmp_path / "small", settings)
    assert learnt.metrics_after["spearman"] > max(0.5, learnt.metrics_before["spearman"] + 0.1)
    assert learnt.metrics_after["mrr"] > CHANCE + 0.1
    assert learnt.card["model_type"] == "student"
    assert learnt.card["base"][0]["digest"] == model_folder.provenance(teacher.folder, "", None)["digest"]
    assert learnt.card["licence"] == "apache-2.0"
    assert learnt.card["teacher"] == teacher.metrics_after
    validation = held_out(groups, settings)
    model_type = model_types.MODEL_TYPES["cross-encoder"]
    large, small = (model_type.score(model_type.load(one), validation) for one in (teacher.folder, learnt.folder))
    assert text_training.mean_reciprocal_rank(small, validation) == learnt.metrics_after["mrr"]
    # its scores are on the teacher's scale
    assert abs(float(small.mean() - large.mean())) < float(large.std())
    with pytest.raises(ValueError, match="layers is 3; expected at most the teacher's 2"):
        distill(str(teacher.folder), groups, tmp_path / "other", DistillSettings(StudentConfig(3, 16, 2, 32)))


def test_interrupted_distillation_reuses_the_teacher_outputs(
    teacher: FinetuneResult, groups: QueryTextGroups, tmp_path: Path
) -> None:
    size = StudentConfig(2, 16, 2, 32)
    settings = DistillSettings(size, epochs=3, learning_rate=4e-3, max_tokens=32)
    whole = distill(str(teacher.folder), groups, tmp_path / "whole", settings)
    out, messages = tmp_path / "broken", list[str]()

    def interrupt(what: str, done: int, total: int) -> None:
        if what.startswith("student") and done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(str(teacher.folder), groups, out, settings, progress=interrupt)
    distill(str(teacher.folder), groups, out, settings, progress=lambda *one: messages.append(one[0]))
    assert "teacher inference" not in messages
    assert weights(out) == weights(whole.folder)
    assert not unfinished(out)
    plain = DistillSettings(size, epochs=3, learning_rate=4e-3, max_tokens=32, hidden_state_weight=0.0)
    other = distill(str(teacher.folder), groups, tmp_path / "plain", plain)
    assert weights(other.folder) != weights(whole.folder)


def test_only_a_cross_encoder_can_be_a_teacher(base: Path, groups: QueryTextGroups, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="feedrank finetune cross-encoder"):
        distill(str(base), groups, tmp_path / "small")


def test_a_student_of_the_teachers_own_shape_is_the_teacher(teacher: FinetuneResult) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    from feedrank.models.finetune import student_init

    large = CrossEncoder(str(teacher.folder))[0].model
    for name, one in large.named_parameters():
        if "LayerNorm.weight" in name:
            torch.nn.init.constant_(one, 1.1)  # the one thing that can't be turned
    words = torch.randint(5, 20, (8, 10), generator=torch.Generator().manual_seed(1))
    inputs = {"input_ids": words, "attention_mask": torch.ones_like(words)}
    directions = student_init.principal_directions(large, [inputs], HIDDEN, seed=1)
    small = student_init.build_student(large, StudentConfig(2, HIDDEN, 2, 64), directions, 64)
    with torch.inference_mode():
        assert torch.allclose(small(**inputs).logits, large(**inputs).logits, atol=1e-4)


def test_the_command_trains_from_a_file_and_from_the_journal(base: Path, rankings_home: Path, tmp_path: Path) -> None:
    from feedrank.api.cli.finetune import finetune as command

    def run(*arguments: object, code: int = 0) -> str:
        result = CliRunner().invoke(command, list(map(str, arguments)), obj=(HomePaths(rankings_home), Config()))
        assert result.exit_code == code, result.output
        return result.stdout if code == 0 else result.stderr

    dice = random.Random(2)
    rows = [(f"{rare} {dice.choice(NOISE)}", f"{dice.choice(NOISE)} {rare}") for rare in RARE * 5]
    file = tmp_path / "pairs.csv"
    file.write_text("question,answer\n" + "".join(f"{query},{text}\n" for query, text in rows))
    out = tmp_path / "from-file"
    columns = ("--query-column", "question", "--text-column", "answer")
    output = run("bi-encoder", "--pairs", file, *columns, "--base", base, "--epochs", 1, "--out", out)
    assert f'[embedder]\nmodel = "{out}"' in output
    assert "mrr" in output
    assert model_folder.read_card(out)["trained_on"]["file"] == "pairs.csv"
    assert "expected query; name the column" in run("bi-encoder", "--pairs", file, "--base", base, code=1)
    out = tmp_path / "from-journal"
    output = run("colbert", "--base", base, "--epochs", 1, "--out", out, "--max-groups", 60)
    assert f'[late_interaction]\nmodel = "{out}"' in output
    window = model_folder.read_card(out)["trained_on"]["journal"]
    assert window["rankings"] == 800
    half = datetime.fromtimestamp((window["first"] + window["last"]) / 2, UTC).isoformat()
    out = tmp_path / "from-half"
    run("colbert", "--base", base, "--epochs", 1, "--out", out, "--max-groups", 60, "--until", half)
    older = model_folder.read_card(out)["trained_on"]["journal"]
    assert 0 < older["rankings"] < 800
    assert older["last"] < datetime.fromisoformat(half).timestamp()
    assert "give one of them" in run("colbert", "--pairs", file, "--until", half, code=1)
    assert "--until: found 'noon', expected epoch milliseconds or ISO-8601" in run("colbert", "--until", "noon", code=1)
    assert "found no interactions in this time window" in run("colbert", "--until", "1", code=1)


def test_the_command_makes_a_student(teacher: FinetuneResult, groups: QueryTextGroups, tmp_path: Path) -> None:
    from feedrank.api.cli.finetune import distill as command

    file, out = tmp_path / "pairs.jsonl", tmp_path / "small"
    rows = [
        {"query": groups.queries[position], "text": text, "label": label}
        for position in range(40)
        for text, label in groups.group(position).items()
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = (
        "--pairs",
        file,
        "--out",
        out,
        "--layers",
        1,
        "--hidden-size",
        16,
        "--heads",
        2,
        "--intermediate-size",
        32,
        "--epochs",
        1,
    )
    given = list(map(str, (teacher.folder, *options)))
    result = CliRunner().invoke(command, given, obj=(HomePaths(tmp_path), Config()))
    assert result.exit_code == 0, result.output
    assert "mrr of the teacher" in result.stdout
    assert f'[cross_encoder]\nmodel = "{out}"' in result.stdout
    assert model_folder.read_card(out)["settings"]["student_config"] == {
        "layers": 1, "hidden_size": 16, "heads": 2, "intermediate_size": 32,
    }  # fmt: skip
    again = CliRunner().invoke(command, given, obj=(HomePaths(tmp_path), Config()))
    assert again.exit_code == 1
    assert "choose another with --out or remove it" in again.stderr


def test_missing_libraries_and_settings_are_named(
    base: Path, groups: QueryTextGroups, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="loss is 'hinge'; expected softmax, lambda, listmle, bce"):
        FinetuneSettings(loss="hinge")
    with pytest.raises(ValueError, match="epochs is 0; expected at least 1"):
        FinetuneSettings(epochs=0)
    with pytest.raises(ValueError, match="found the model type 'gpt', expected bi-encoder"):
        settings_for("gpt")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"needs datasets, .* pip install 'feedrank\[train\]'"):
        finetune("colbert", groups, tmp_path / "model", None, BaseModels((str(base),)))
