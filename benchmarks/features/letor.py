"""Feature files through the whole product against plain LightGBM with the same parameters and seeds.

A file is imported, its numbers are declared as features of the list, a ranker is trained, and each test query is asked
as a list of documents with their numbers, which the bundle has never seen. One file is LightGBM's example, the other is
made up. The nDCG@10 is the mean over `SEEDS`, since bagging alone moves that of one training by 2 %.
"""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
from click.testing import CliRunner
from numpy.typing import NDArray
from sklearn.datasets import load_svmlight_file

from benchmarks.bars import DATA, Bar, console
from feedrank.api.cli import main
from feedrank.api.python.home import Home

BAR = 0.995
SEEDS = range(5)
ROUNDS = 100
PARAMETERS: dict[str, Any] = {
    "learning_rate": 0.1, "num_leaves": 31, "min_data_in_leaf": 50, "min_sum_hessian_in_leaf": 5.0, "max_bin": 255,
    "feature_fraction": 1.0, "bagging_fraction": 0.9, "bagging_freq": 1, "lambda_l2": 0.0,
}  # fmt: skip
"""Those of LightGBM's example, train.conf."""
CONFIG = """
[embedder]
model = "none"
[labels]
gain = "exponential"
[ranker]
rounds = {rounds}
patience = {rounds}
threads = 1
seed = {seed}
[ranker.parameters]
{parameters}
[features]
families = []
[[features.declared]]
name = "letor"
kind = "numbers"
from = "list.*"
max_values = 1000
"""


@dataclass(frozen=True, eq=False, slots=True)
class FeatureFile:
    """A file of training queries and one of test queries, as they are read by scikit-learn."""

    train: Path
    test: Path
    matrix: tuple[NDArray[np.float64], NDArray[np.float64]]
    """(N, F) numbers of the training rows and of the test rows."""
    grades: tuple[NDArray[np.float64], NDArray[np.float64]]
    sizes: tuple[list[int], list[int]]
    """Number of rows of each query."""
    first: int
    """Index of the first feature, 0 or 1."""

    @property
    def names(self) -> list[str]:
        """The names that the import gives to the features that are not always 0."""
        used = np.flatnonzero(self.matrix[0].any(axis=0)).tolist()
        return [f"f{index + self.first}" for index in used]


def bars() -> list[Bar]:
    """Return the nDCG@10 of the product over that of plain LightGBM, for each file; and with the defaults of both."""
    found = []
    for name, build in (("LightGBM's example", lightgbm_example), ("a made-up LETOR file", made_up)):
        with tempfile.TemporaryDirectory() as folder:
            file = build(Path(folder))
            plain = np.mean([_plain(file, PARAMETERS | {"seed": seed}) for seed in SEEDS])
            ours = np.mean([_product(file, Path(folder) / f"home{seed}", PARAMETERS, seed) for seed in SEEDS])
            console.print(f"{name}: nDCG@10 {ours:.4f}, plain LightGBM {plain:.4f}")
            found.append(Bar(f"{name}: nDCG@10 over plain LightGBM with the same parameters", float(ours / plain), "x",
                             BAR, "higher"))  # fmt: skip
            plain = np.mean([_plain(file, {"seed": seed}) for seed in SEEDS])
            ours = np.mean([_product(file, Path(folder) / f"defaults{seed}", {}, seed, 160) for seed in SEEDS])
            console.print(f"{name}, defaults: nDCG@10 {ours:.4f}, LightGBM's {plain:.4f}")
            found.append(
                Bar(f"{name}: nDCG@10 of the defaults over LightGBM's", float(ours / plain), "x", BAR, "higher")
            )
    return found


def lightgbm_example(folder: Path) -> FeatureFile:
    """Return LightGBM's example: sparse lines that count features from 0, with the sizes of queries beside them."""
    source = DATA / "lightgbm_lambdarank"
    return _read(source / "rank.train.gz", source / "rank.test.gz", 0)


def made_up(folder: Path, seed: int = 5) -> FeatureFile:
    """Write and return a LETOR file of 12 features from 1 on, half of them noise, with ids of documents."""
    dice = np.random.default_rng(seed)
    for name, n_queries in (("train.txt", 150), ("test.txt", 100)):
        lines = []
        for query in range(n_queries):
            matrix = np.round(dice.normal(size=(dice.integers(5, 25), 12)), 3) * (dice.random(12) < 0.9)
            value = 1.2 * matrix[:, 0] - 0.8 * np.abs(matrix[:, 1]) + 0.7 * matrix[:, 2] * matrix[:, 3]
            value += 0.5 * (matrix[:, 4] > 0.5) + dice.normal(size=len(matrix))
            for number, (row, grade) in enumerate(zip(matrix, np.digitize(value, [-0.5, 0.7, 1.7, 2.8]), strict=True)):
                cells = " ".join(f"{index}:{cell:g}" for index, cell in enumerate(row.tolist(), 1) if cell)
                lines.append(f"{grade} qid:{query} {cells} #docid = {name}-{query}-{number} inc = 1 prob = 0.5")
        (folder / name).write_text("\n".join(lines) + "\n")
    return _read(folder / "train.txt", folder / "test.txt", 1)


def ndcg(grades: NDArray[np.float64], scores: NDArray[np.float64], sizes: list[int], k: int = 10) -> float:
    """Return the mean nDCG@k, with the gains 2^grade - 1, of the queries that have a grade above 0."""
    values = []
    for start, stop in zip(np.cumsum([0, *sizes[:-1]]), np.cumsum(sizes), strict=True):
        gains = 2.0 ** grades[start:stop] - 1
        discounts = 1 / np.log2(np.arange(2, 2 + min(k, len(gains))))
        ideal = float((np.sort(gains)[::-1][:k] * discounts).sum())
        if ideal:
            shown = gains[np.argsort(-scores[start:stop], kind="stable")][:k]
            values.append(float((shown * discounts).sum()) / ideal)
    return float(np.mean(values))


def _read(train: Path, test: Path, first: int) -> FeatureFile:
    parts = [load_svmlight_file(str(path), zero_based=first == 0, query_id=True) for path in (train, test)]
    width = max(matrix.shape[1] for matrix, _, _ in parts)
    matrices, sizes = [], []
    for path, (matrix, _, queries) in zip((train, test), parts, strict=True):
        matrix.resize(matrix.shape[0], width)
        matrices.append(matrix.toarray())
        beside = path.with_name(path.name.removesuffix(".gz") + ".query.gz")
        if beside.exists():
            sizes.append([int(size) for size in gzip.decompress(beside.read_bytes()).split()])
        else:
            sizes.append(np.unique(queries, return_counts=True)[1].tolist())
    return FeatureFile(train, test, (matrices[0], matrices[1]), (parts[0][1], parts[1][1]), (sizes[0], sizes[1]), first)


def _plain(file: FeatureFile, parameters: Mapping[str, Any]) -> float:
    settings = {"objective": "lambdarank", "verbosity": -1, "num_threads": 1, **parameters}
    data = lgb.Dataset(file.matrix[0], file.grades[0], group=file.sizes[0])
    scores = np.asarray(lgb.train(settings, data, ROUNDS).predict(file.matrix[1]))
    return ndcg(file.grades[1], scores, file.sizes[1])


def _product(file: FeatureFile, folder: Path, parameters: Mapping[str, Any], seed: int, rounds: int = ROUNDS) -> float:
    """Import, train and rank with a new home; return the nDCG@10 of the test queries."""
    folder.mkdir()
    lines = "\n".join(f"{name} = {value}" for name, value in parameters.items())
    (folder / "feedrank.toml").write_text(CONFIG.format(rounds=rounds, seed=seed, parameters=lines))
    run = CliRunner().invoke(main, ["--home", str(folder), "import", str(file.train)], catch_exceptions=False)
    if run.exit_code:
        raise RuntimeError(run.output)
    home = Home(folder, progress=False)
    home.train(promote=True)
    scores = np.empty(len(file.grades[1]))
    with home.recommender() as recommender:
        for start, documents in _lists(file):
            feed = recommender.rank(documents)
            for entry in feed.items:
                scores[start + int(entry.id.rpartition(":")[2])] = entry.score
    return ndcg(file.grades[1], scores, file.sizes[1])


def _lists(file: FeatureFile) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield the first row and the documents of each test query, new ones to the bundle, with their numbers."""
    used = [int(name[1:]) - file.first for name in file.names]
    start = 0
    for query, size in enumerate(file.sizes[1]):
        rows = file.matrix[1][start : start + size][:, used].tolist()
        yield (
            start,
            [
                {"id": f"new:{query}:{number}", "fields": dict(zip(file.names, row, strict=True))}
                for number, row in enumerate(rows)
            ],
        )
        start += size
