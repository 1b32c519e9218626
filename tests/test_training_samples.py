"""Training samples for text models: from files, from the event log, with hard negatives by BM25."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import toyworld
import zstandard

from feedrank.api import compose
from feedrank.api.config import Config
from feedrank.api.home_paths import HomePaths
from feedrank.models.finetune import training_samples
from feedrank.models.finetune.log_samples import from_log
from feedrank.models.finetune.samples import QueryTextGroups, with_hard_negatives
from feedrank.models.finetune.samples_file import ColumnNames, read_samples
from feedrank.models.finetune.synthetic_queries import with_synthetic_queries

WIKIQA = 'qid\tquestion\tsentence\tlabel\nQ1\twho\tshe said "so\t1\nQ1\twho\tnobody\t0\nQ2\twhy\tbecause\t1\n'


def groups_of(groups: QueryTextGroups) -> list[tuple[str, dict[str, float]]]:
    """(query, text -> label) a group."""
    return [(query, groups.group(position)) for position, query in enumerate(groups.queries)]


def test_files_of_every_kind_say_the_same(tmp_path: Path) -> None:
    rows = [("who", "she", 1), ("who", "nobody", 0), ("why", "because", 2.5)]
    expected = [("who", {"she": 1.0, "nobody": 0.0}), ("why", {"because": 2.5})]
    lines = "".join(json.dumps({"query": q, "text": t, "label": v}) + "\n" for q, t, v in rows)
    table = "query,text,label\n" + "".join(f"{q},{t},{v}\n" for q, t, v in rows)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "a.csv").write_text(table)
    (tmp_path / "a.tsv").write_text(table.replace(",", "\t"))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "a.csv.zst").write_bytes(zstandard.compress(table.encode()))
    for name in ("a.jsonl", "a.csv", "a.tsv", "a.jsonl.gz", "a.csv.zst"):
        assert groups_of(read_samples(tmp_path / name)) == expected, name


def test_other_columns_triples_and_groups(tmp_path: Path) -> None:
    (tmp_path / "wiki.tsv").write_text(WIKIQA)
    wiki = read_samples(tmp_path / "wiki.tsv", ColumnNames(query="question", text="sentence"))
    assert groups_of(wiki) == [("who", {'she said "so': 1.0, "nobody": 0.0}), ("why", {"because": 1.0})]
    (tmp_path / "answers.jsonl").write_text('{"question": "who", "answer": "she"}\n')
    assert groups_of(read_samples(tmp_path / "answers.jsonl", ColumnNames(query="question", text="answer"))) == [
        ("who", {"she": 1.0})
    ]
    (tmp_path / "triples.csv").write_text("query,positive,negative\nwho,she,nobody\nwho,he,\n")
    assert groups_of(read_samples(tmp_path / "triples.csv")) == [("who", {"she": 1.0, "nobody": 0.0, "he": 1.0})]
    (tmp_path / "grouped.csv").write_text("query,text,group\nwho,she,1\nwho,he,2\nwho,she,1\n")
    assert groups_of(read_samples(tmp_path / "grouped.csv")) == [("who", {"she": 1.0}), ("who", {"he": 1.0})]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"query": "who", "text": "she"}\n{"query": "why"}\n', "line 2: found the columns query, expected"),
        ("a.jsonl", '{"query": "who", "text": ""}\n', "line 1: text: found '', expected a text"),
        ("a.jsonl", "who\n", "line 1: found 'who', expected a JSON object"),
        ("a.jsonl", "[1]\n", "line 1: found [1], expected a JSON object"),
        ("a.csv", "query,text,label\nwho,she,good\n", "line 2: label: found 'good', expected a number of 0 or more"),
        ("a.csv", "query,text,label\nwho,she,-1\n", "line 2: label: found '-1', expected a number of 0 or more"),
        ("a.csv", "query,text\nwho,she,he\n", "line 2: found 3 cells, expected 2 as in the header"),
        ("a.csv", "query,text,group\nwho,she,1\nwhy,he,1\n", "line 3: found the query 'why' in the group of 'who'"),
        ("a.csv", 'query,text\nwho,"she\n', "damaged"),
        ("a.csv", "query,text\n", "found no row"),
        ("a.txt", "", "found the file type '.txt', expected .jsonl"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=r"found|damaged") as problem:
        read_samples(tmp_path / name)
    assert message in str(problem.value)
    assert str(tmp_path / name) in str(problem.value)


def test_a_file_that_was_cut_short(tmp_path: Path) -> None:
    whole = gzip.compress("".join(f'{{"query": "q{i}", "text": "t{i}"}}\n' for i in range(5_000)).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"after line [1-9][0-9]*: damaged"):
        read_samples(tmp_path / "a.jsonl.gz")


def test_a_split_keeps_a_query_on_one_side() -> None:
    groups = QueryTextGroups.from_groups((f"q{i % 40}", {f"yes {i}": 1.0, f"no {i}": 0.0}) for i in range(120))
    train, held_out = groups.split(0.25, seed=1)
    assert not set(train.queries) & set(held_out.queries)
    assert (len(train), len(held_out)) == (90, 30)
    again = groups.split(0.25, seed=1)[1]
    assert held_out.digest == again.digest != groups.split(0.25, seed=2)[1].digest
    thin = held_out.subsample(5, 2, seed=1)
    assert len(thin) == 5
    assert thin.evaluable.all()
    with pytest.raises(ValueError, match="0 to validate on"):
        QueryTextGroups.from_groups((f"q{i}", {"yes": 1.0}) for i in range(9)).split(0.3, seed=1)
    with pytest.raises(ValueError, match="found 1 different queries"):
        QueryTextGroups.from_groups([("q", {"yes": 1.0, "no": 0.0})]).split(0.5, seed=1)


def test_a_teacher_also_scores_groups_without_positives() -> None:
    groups = QueryTextGroups.from_groups((f"q{i}", {f"a {i}": float(i % 4 > 0), f"b {i}": 0.0}) for i in range(80))
    train, held_out = groups.split(0.25, seed=1)
    more, same = groups.split(0.25, seed=1, keep_without_positives=True)
    assert held_out.digest == same.digest
    assert train.digest == more.select(more.positive_counts > 0).digest
    assert len(more) == 60 > len(train)


def test_hard_negatives_share_words_and_are_never_positives() -> None:
    groups = QueryTextGroups.from_groups(
        [(f"what is a {word}", {f"a {word} is a thing of kind {i % 3}": 1.0}) for i, word in enumerate("abcdefghijkl")]
        + [("what is a a", {"also right about a a a": 1.0})]
    )
    mined = with_hard_negatives(groups, 4, seed=1, bm25_depth=5)
    assert np.diff(mined.offsets).tolist() == [5] * 13
    first = mined.group(0)
    assert list(first.values()) == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert "also right about a a a" not in first  # it answers the same query in another group
    assert with_hard_negatives(groups, 4, seed=1, bm25_depth=5).digest == mined.digest


def test_every_epoch_draws_other_texts() -> None:
    groups = QueryTextGroups.from_groups(
        (f"q{i}", {f"yes {i}": 1.0} | {f"no {i} {j}": 0.0 for j in range(9)}) for i in range(4)
    )
    lists = training_samples.listwise_samples(groups, 3, 2, seed=5)
    assert lists["query"] == ["q0", "q1", "q2", "q3"] * 2
    assert lists["labels"] == [[1.0, 0.0, 0.0, 0.0]] * 8
    assert lists["texts"][0] != lists["texts"][4]
    tuples = training_samples.contrastive_samples(groups.select(np.array([True, True, False, False])), 12, 1, seed=5)
    assert list(tuples)[:2] == ["anchor", "positive"]
    row = [column[0] for column in tuples.values()]
    assert len(set(row)) == len(row) == 14  # the nine of its own, and others from the other group
    samples = training_samples.pointwise_samples(groups, 3, 1, seed=5)
    assert samples["label"] == [1.0, 0.0, 0.0, 0.0] * 4


def test_groups_from_rankings_are_clicked_against_skipped_items(rankings_home: Path) -> None:
    config = Config()
    inputs = compose.load_training_inputs(HomePaths(rankings_home), config)
    documents = inputs.item_inputs.catalogue.documents(config.embedder.document)
    groups = from_log(inputs.item_inputs, inputs.log, documents, config.training_settings)
    assert len(groups) == 800
    assert (groups.positive_counts == 1).all()
    assert (np.diff(groups.offsets) == 8).all()
    for query, labelled in groups_of(groups)[:50]:
        genre = next(name for name, words in toyworld.GENRES.items() if query.split()[1] in words.split())
        assert [text for text, label in labelled.items() if label] == [
            text for text in labelled if text.endswith(genre) and labelled[text]
        ]
    assert len(from_log(inputs.item_inputs, inputs.log, documents, config.training_settings, max_groups=100)) == 100


def test_groups_of_a_log_without_rankings_come_from_recall(interactions_home: Path) -> None:
    from feedrank.api.config import load_config

    config = load_config(interactions_home / "feedrank.toml")
    inputs = compose.load_training_inputs(HomePaths(interactions_home), config)
    documents = inputs.item_inputs.catalogue.documents(config.embedder.document)
    groups = from_log(inputs.item_inputs, inputs.log, documents, config.training_settings)
    assert 100 < len(groups) <= toyworld.USERS * config.training.targets_per_user
    assert (groups.positive_counts == 1).all()
    assert groups.evaluable.all()


def test_synthetic_queries_are_words_of_a_text_of_their_group() -> None:
    labelled_queries = [(f"who was q{n}", {f"t{n}a says one two three four": 1.0, f"t{n}b": 0.0}) for n in range(40)]
    groups = QueryTextGroups.from_groups(labelled_queries)
    more = with_synthetic_queries(groups, 2.0, seed=4)
    assert groups_of(more)[:40] == labelled_queries
    synthetic = groups_of(more)[40:]
    assert 20 < len(synthetic) < 60, "of half of the texts nothing can be made"
    openings = 0
    for query, labelled in synthetic:
        text, other = labelled
        assert set(labelled.values()) == {0.0}
        words = query.split()
        openings += words[:2] == ["who", "was"]
        query_words = [word for word in words if word not in ("who", "was")]
        assert 3 <= len(query_words) <= 6
        assert [word for word in text.split() if word in query_words] == query_words, "in their order"
        assert other == text.split()[0][:-1] + "b"
    assert 0 < openings < len(synthetic)
    assert groups_of(with_synthetic_queries(groups, 2.0, seed=4)) == groups_of(more)
    assert groups_of(with_synthetic_queries(QueryTextGroups.from_groups([]), 2.0, seed=4)) == []
