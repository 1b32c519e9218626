"""Question answering by sentences: WikiQA and MedQuAD as groups of pairs, and the cross-encoders trained on them.

Both are read from FEEDRANK_DATA. WikiQA is for research only, so what is trained on it stays out of the project.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
from collections import defaultdict
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bars import DATA
from feedrank.api.readers import Rejects, mind
from feedrank.engine.events.events import ItemEvent
from feedrank.models.evaluation.metrics import evaluate, order
from feedrank.models.finetune import samples_file
from feedrank.models.finetune.distillation import distill
from feedrank.models.finetune.distillation_settings import DistillSettings, StudentConfig
from feedrank.models.finetune.finetune_settings import settings_for
from feedrank.models.finetune.finetuning import BaseModels, FinetuneResult, finetune
from feedrank.models.finetune.samples import QueryTextGroups


def _flags() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((f"{line} " for line in lines if line.startswith("flags")), "")


HALVED = any(f" {flag} " in _flags() for flag in ("avx512_bf16", "amx_bf16"))
"""Whether the processor has instructions for bfloat16: without them it is many times slower than float32."""
COLUMNS = samples_file.ColumnNames(query="question", text="sentence", label="label")
MEDICAL = 1_600
"""MedQuAD groups in the first lesson."""
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])|\s+-\s+(?=[A-Z])")


def wikiqa(split: str) -> QueryTextGroups:
    """The questions of a split that have answers and other sentences."""
    groups = samples_file.read_samples(DATA / "wikiqa" / f"WikiQA.{split}.tsv.gz", COLUMNS)
    return groups.select(groups.evaluable)


def medquad(count: int, seed: int = 0) -> QueryTextGroups:
    """Questions with the first sentence of their answer, and as negatives sentences of answers to other questions.

    Five of another kind on the same subject, two of the same kind on another subject: what is near, and is no answer.
    """
    dice = random.Random(seed)
    by_subject: dict[str, list[Any]] = defaultdict(list)
    by_kind: dict[str, list[Any]] = defaultdict(list)
    with gzip.open(DATA / "medquad" / "medquad.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            one = json.loads(line)
            if found := _sentences(one["answer"] or ""):
                entry = (one["question"].strip(), found, one["qtype"], one["focus"])
                by_subject[one["focus"]].append(entry)
                by_kind[one["qtype"]].append(entry)
    subjects = [subject for subject, own in by_subject.items() if len({entry[2] for entry in own}) >= 3]
    dice.shuffle(subjects)
    groups = []
    for place in range(6):
        for subject in subjects:
            own = by_subject[subject]
            if place >= len(own):
                continue
            question, answer, kind, _ = own[(7 * place + 3) % len(own)]
            near = [text for entry in own if entry[2] != kind for text in entry[1][:6] if text not in answer]
            far = [dice.choice(entry[1][:3]) for entry in dice.sample(by_kind[kind], 2) if entry[3] != subject]
            if len(near) >= 2:
                negatives = dice.sample(near, min(5, len(near))) + far
                groups.append((question, {**dict.fromkeys(negatives, 0.0), answer[0]: 1.0}))
    return QueryTextGroups.from_groups(groups[:count])


def films(count: int) -> QueryTextGroups:
    """Titles of films with the sentences about each; none is said to answer."""
    with gzip.open(DATA / "ranklens_movies" / "movies.jsonl.gz", "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    return QueryTextGroups.from_groups(
        (one["title"], dict.fromkeys(_sentences(one["overview"]), 0.0)) for one in found[:count]
    )


def news() -> QueryTextGroups:
    """Headlines with the sentences of their abstracts, where there is one; none is said to answer."""
    told = takewhile(lambda event: isinstance(event, ItemEvent), mind.read_events(DATA / "mind_sample", Rejects()))
    items = [event.fields for event in told if isinstance(event, ItemEvent) and "text" in event.fields]
    return QueryTextGroups.from_groups(
        (str(one["title"]), dict.fromkeys(_sentences(str(one["text"])), 0.0)) for one in items
    )


def together(*parts: QueryTextGroups) -> QueryTextGroups:
    """One after the other; groups without a text are left out."""
    groups = ((part.queries[n], part.group(n)) for part in parts for n in range(len(part)))
    return QueryTextGroups.from_groups(group for group in groups if group[1])


def teacher(folder: Path, progress: Callable[[str, int, int], None]) -> FinetuneResult:
    """A cross-encoder from packaged MiniLM: first on both sets, then on WikiQA alone; chosen on its dev questions."""
    told = {"data": "WikiQA train (research use only), MedQuAD (CC BY 4.0)"}
    dev = wikiqa("dev")
    first = settings_for("cross-encoder", epochs=1, bi_encoder_distillation_epochs=1, max_tokens=64, bfloat16=HALVED)
    if not (folder / "first" / "feedrank.json").exists():
        two_sets = together(wikiqa("train"), medquad(MEDICAL))
        finetune("cross-encoder", two_sets, folder / "first", first, trained_on=told, progress=progress, validation=dev)
    then = settings_for("cross-encoder", epochs=2, max_tokens=64, bfloat16=HALVED, learning_rate=5e-5)
    base = BaseModels((str(folder / "first"),))
    return finetune("cross-encoder", wikiqa("train"), folder / "teacher", then, base, told, progress, dev)


def student(folder: Path, progress: Callable[[str, int, int], None]) -> FinetuneResult:
    """A student of the teacher in the same folder."""
    groups = together(wikiqa("train"), medquad(600), films(1_500), news())
    size = StudentConfig(hidden_size=224, heads=7)
    settings = DistillSettings(size, epochs=5, batch_size=4, learning_rate=1e-3, bfloat16=HALVED, synthetic_queries=1.0)
    told = {"data": "WikiQA train, MIND (research use only), MedQuAD (CC BY 4.0), RankLens (CC BY-SA 4.0)"}
    return distill(str(folder / "teacher"), groups, folder / "student", settings, told, progress, wikiqa("dev"))


def mean_reciprocal_rank(score: Callable[[str, list[str]], Any], groups: QueryTextGroups) -> float:
    """Over the groups; score: a question and its sentences to numbers."""
    found = []
    for place in range(len(groups)):
        texts = groups.group(place)
        found.append(np.asarray(score(groups.queries[place], list(texts)), np.float32))
    scores = np.concatenate(found)
    labels = groups.labels[order(scores, groups.offsets)]
    return float(evaluate(("mrr",), labels, groups.offsets)["mrr"].mean())


def models_folder(default: Path) -> Path:
    """Where trained models are put: FEEDRANK_MODELS, so that they need not be trained again, or a folder of the run."""
    return Path(os.environ.get("FEEDRANK_MODELS", default))


def _sentences(text: str) -> list[str]:
    parts = (" ".join(part.strip(" -").split()[:48]) for part in _SENTENCE.split(" ".join(text.split())))
    return [part for part in parts if len(part.split()) >= 5]
