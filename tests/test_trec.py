"""TREC files: they keep our order, and ir_measures computes the same metrics from them."""

from __future__ import annotations

import gzip
from itertools import pairwise

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import AP, RR, R, Success, nDCG

from feedrank.models.evaluation.metrics import evaluate, order
from feedrank.models.evaluation.trec import (
    Qrels,
    Run,
    label_run,
    read_qrels,
    read_run,
    strictly_decreasing,
    write_qrels,
    write_run,
)

MEASURES = {
    "ndcg@10": nDCG @ 10,
    "ndcg": nDCG,
    "mrr": RR,
    "map": AP,
    "map@5": AP @ 5,
    "recall@5": R @ 5,
    "recall@100": R @ 100,
    "hr@1": Success @ 1,
    "hr@10": Success @ 10,
}


def bounds(sizes):
    return np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)


def world(seed):
    """A run with tied scores and graded judgements, some of unlisted items, and some queries without a positive one."""
    generator = np.random.default_rng(seed)
    queries = tuple(f"q {g}" for g in range(12))
    listed, judged = generator.integers(1, 15, 12), generator.integers(1, 20, 12)
    run_documents, documents = [], []
    for size, other in zip(listed, judged, strict=True):
        run_documents += [f"d{x}" for x in generator.permutation(25)[:size]]
        documents += [f"d{x}" for x in generator.permutation(25)[:other]]
    offsets, scores = bounds(listed), generator.integers(0, 4, sum(listed)) / 3
    by = order(scores, offsets)
    labels = generator.integers(0, 4, sum(judged)) * (generator.random(sum(judged)) < 0.5)
    labels[: judged[0]] = 0
    return (
        Run(queries, tuple(run_documents[row] for row in by), scores[by], offsets),
        Qrels(queries, tuple(documents), labels, bounds(judged)),
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_our_metrics_equal_those_of_ir_measures_from_the_files(tmp_path, seed, ending):
    run, qrels = world(seed)
    run_path, qrels_path = tmp_path / f"run{ending}", tmp_path / f"qrels{ending}"
    write_run(run_path, run)
    write_qrels(qrels_path, qrels)
    judged = label_run(run, qrels)
    ours = evaluate(MEASURES, judged.labels, judged.offsets, relevant=judged.ideal)
    group_of_query = {query.replace(" ", "%20"): g for g, query in enumerate(qrels.queries)}
    theirs = ir_measures.iter_calc(
        list(MEASURES.values()),
        list(ir_measures.read_trec_qrels(str(qrels_path))),
        list(ir_measures.read_trec_run(str(run_path))),
    )
    names = {measure: name for name, measure in MEASURES.items()}
    seen = 0
    for value in theirs:
        name = names[value.measure]
        assert ours[name][group_of_query[value.query_id]] == pytest.approx(value.value, abs=1e-6), (
            name,
            value.query_id,
        )
        seen += 1
    assert seen == len(MEASURES) * len(run.queries)


def test_a_query_the_run_lacks_counts_as_0_and_one_not_judged_is_left_out(tmp_path):
    run = Run(("a", "z"), ("x", "x"), np.ones(2), np.array([0, 1, 2]))
    qrels = Qrels(("a", "b"), ("x", "y"), np.array([1, 1]), np.array([0, 1, 2]))
    judged = label_run(run, qrels)
    ours = evaluate(["ndcg@10", "map"], judged.labels, judged.offsets, relevant=judged.ideal)
    write_run(tmp_path / "run", run)
    write_qrels(tmp_path / "qrels", qrels)
    theirs = ir_measures.calc_aggregate(
        [nDCG @ 10, AP],
        list(ir_measures.read_trec_qrels(str(tmp_path / "qrels"))),
        list(ir_measures.read_trec_run(str(tmp_path / "run"))),
    )
    assert ours["ndcg@10"].tolist() == [1, 0]
    assert theirs == {nDCG @ 10: ours["ndcg@10"].mean(), AP: ours["map"].mean()}


GAINS = {
    "linear": {},
    "exponential": {label: 2**label - 1 for label in range(4)},
    (0, 1, 7, 20): {0: 0, 1: 1, 2: 7, 3: 20},
}
"""Gain setting -> the gains of ir_measures."""


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_gains_and_relevance_levels_are_those_of_ir_measures(gain, level, seed):
    run, qrels = world(seed)
    graded = {"gains": GAINS[gain]} if GAINS[gain] else {}
    measures = {
        "ndcg": nDCG(**graded), "ndcg@3": nDCG(**graded) @ 3, "mrr": RR(rel=level), "map": AP(rel=level),
        "map@4": AP(rel=level) @ 4, "recall@5": R(rel=level) @ 5, "hr@2": Success(rel=level) @ 2,
    }  # fmt: skip
    judged = label_run(run, qrels)
    ours = evaluate(measures, judged.labels, judged.offsets, relevant=judged.ideal, gain=gain, level=level)
    theirs = ir_measures.calc_aggregate(
        list(measures.values()),
        [ir_measures.Qrel(query, document, int(label)) for query, document, label in rows_of(qrels, qrels.labels)],
        [
            ir_measures.ScoredDoc(query, document, float(score))
            for query, document, score in rows_of(run, strictly_decreasing(run.scores, run.offsets))
        ],
    )
    for name, measure in measures.items():
        assert ours[name].mean() == pytest.approx(theirs[measure], abs=1e-6), name


def rows_of(columns, values):
    """(query, document, value) of a run or of qrels."""
    query_of = np.repeat(np.arange(len(columns.queries)), np.diff(columns.offsets)).tolist()
    return [
        (columns.queries[query], document, value)
        for query, document, value in zip(query_of, columns.documents, values, strict=True)
    ]


ids = st.text(min_size=1, max_size=6)
groups = st.dictionaries(ids, st.lists(ids, min_size=1, max_size=6, unique=True), max_size=4)


@settings(deadline=None)
@given(groups, st.booleans(), st.data())
def test_any_run_and_qrels_come_back_as_they_were(tmp_path_factory, world, packed, data):
    folder = tmp_path_factory.mktemp("trec")
    path = folder / ("file.gz" if packed else "file")
    documents = tuple(name for names in world.values() for name in names)
    offsets = bounds([len(names) for names in world.values()])
    finite = st.floats(width=32, allow_nan=False)
    scores = np.array(data.draw(st.lists(finite, min_size=len(documents), max_size=len(documents))), np.float32)
    scores = scores[order(scores, offsets)]
    write_run(path, Run(tuple(world), documents, scores, offsets))
    run = read_run(path)
    assert (run.queries, run.documents) == (tuple(world), documents)
    np.testing.assert_array_equal(run.scores, strictly_decreasing(scores, offsets))
    np.testing.assert_array_equal(run.offsets, offsets)

    labels = np.arange(len(documents)) % 5 - 1
    write_qrels(path, Qrels(tuple(world), documents, labels, offsets))
    qrels = read_qrels(path)
    assert (qrels.queries, qrels.documents) == (tuple(world), documents)
    np.testing.assert_array_equal(qrels.labels, labels)
    assert [entry.name for entry in folder.iterdir()] == [path.name]


def one_by_one(scores):
    """What `falling` should give for one group of normal floats, a step at a time."""
    lowered = []
    for score in np.clip(np.where(np.isnan(scores), -np.inf, scores), -1e38, 1e38).astype(np.float32):
        value = score
        if lowered and value >= lowered[-1]:
            value = np.nextafter(lowered[-1], np.float32(-np.inf))
        lowered.append(value)
    return np.array(lowered, np.float32)


@given(st.lists(st.lists(st.sampled_from([2.0, 1.0, 1 + 1e-9, -1.0, -1e-3, 1e300, -1e300, -np.inf, np.nan]))))
def test_falling_scores_are_the_nearest_below(groups):
    offsets = bounds([len(group) for group in groups])
    flat = np.array([score for group in groups for score in group], np.float64)
    flat = flat[order(flat, offsets)]
    expected = [one_by_one(flat[a:b]) for a, b in pairwise(offsets.tolist())]
    np.testing.assert_array_equal(
        strictly_decreasing(flat, offsets), np.concatenate([np.empty(0, np.float32), *expected])
    )


@given(st.lists(st.floats(allow_nan=True), max_size=30))
def test_falling_scores_fall_whatever_they_were(scores):
    column = np.sort(np.array(scores, np.float64))
    offsets = np.array([0, len(column)])
    lowered = strictly_decreasing(column[order(column, offsets)], offsets)
    assert np.isfinite(lowered).all()
    assert np.all(lowered[1:] < lowered[:-1])
    assert np.all((lowered == 0) | (np.abs(lowered) >= np.finfo(np.float32).tiny))  # none that a tool may flush to 0


def test_scores_that_differ_already_are_kept():
    scores = np.array([3.5, 0.1, -7.25, 9.0, 0.0, -1e-30], np.float32)
    np.testing.assert_array_equal(strictly_decreasing(scores, np.array([0, 3, 3, 6])), scores)
    assert strictly_decreasing(np.zeros(3), np.array([0, 3])).tolist() == pytest.approx(
        [0, -1.1754944e-38, -1.1754945e-38]
    )
    assert strictly_decreasing(np.empty(0), np.array([0, 0])).tolist() == []


def test_lines_look_like_trec(tmp_path):
    run = Run(("q 1",), ("b", "50%\tz"), np.array([0.5, 0.5]), np.array([0, 2]))
    write_run(tmp_path / "run.txt", run, tag="my run")
    assert (tmp_path / "run.txt").read_text() == (
        "q%201 Q0 b 1 0.5 my%20run\nq%201 Q0 50%25%09z 2 0.49999997 my%20run\n"
    )
    write_qrels(tmp_path / "qrels.txt", Qrels(("q 1",), ("b",), np.array([2.0]), np.array([0, 1])))
    assert (tmp_path / "qrels.txt").read_text() == "q%201 0 b 2\n"


def test_equal_runs_are_equal_bytes_when_packed(tmp_path):
    run, _ = world(0)
    write_run(tmp_path / "a.gz", run)
    write_run(tmp_path / "b.gz", run)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()).count(b"\n") == len(run.documents)


def test_a_foreign_run_is_read_in_the_order_of_trec_eval(tmp_path):
    (tmp_path / "run").write_text(
        "q2 Q0 a 1 1.0 x\n"
        "q1 Q0 a 1 0.5 x\n"
        "q1 Q0 b 2 0.9 x\n\n"
        "q2\tQ0\tb\t2\t1.00000000001\tx\n"  # equal as float32, so the id decides
        "q1 Q0 c 3 -inf x\n"
    )
    run = read_run(tmp_path / "run")
    assert run.queries == ("q2", "q1")
    assert run.documents == ("b", "a", "b", "a", "c")
    assert np.isfinite(run.scores).all()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("q Q0 d 1 0.5", r"line 2: found 5 columns, expected 6 \(query Q0 document rank score tag\)"),
        ("q Q0 d 1 high x", "line 2: the score is 'high'; expected a number"),
        ("q Q0 d 1 nan x", "line 2: the score is 'nan'"),
        ("q Q0 a 1 1 x", "query 'q' has document 'a' twice"),
    ],
)
def test_a_broken_run_names_the_place(tmp_path, line, complaint):
    (tmp_path / "run").write_text(f"q Q0 a 1 1 x\n{line}\n")
    with pytest.raises(ValueError, match=complaint):
        read_run(tmp_path / "run")


def test_broken_qrels_name_the_place(tmp_path):
    (tmp_path / "qrels").write_text("q 0 a 0.5\n")
    with pytest.raises(ValueError, match=r"line 1: the label is '0.5'; expected a whole number"):
        read_qrels(tmp_path / "qrels")


def test_what_a_file_cannot_hold_is_refused_and_leaves_no_file(tmp_path):
    one = np.array([0, 1])
    path = tmp_path / "file"
    with pytest.raises(ValueError, match="an id is empty"):
        write_run(path, Run(("q",), ("",), np.ones(1), one))
    with pytest.raises(ValueError, match=r"an id is empty"):
        write_run(path, Run(("",), ("d",), np.ones(1), one))
    with pytest.raises(ValueError, match=r"scores rise from 1.0 to 2.0 at row 2.*models.metrics.order"):
        write_run(path, Run(("p", "q"), ("d", "e", "f"), np.array([0.0, 1.0, 2.0]), np.array([0, 1, 3])))
    for label in (0.5, np.nan, np.inf):
        with pytest.raises(ValueError, match="whole numbers"):
            write_qrels(path, Qrels(("q",), ("d",), np.array([label]), one))
    with pytest.raises(ValueError, match="query 'q' comes twice"):
        Run(("q", "q"), ("d", "d"), np.ones(2), np.array([0, 1, 2]))
    with pytest.raises(ValueError, match="do not span 1 scores of 2 queries"):
        Run(("p", "q"), ("d",), np.ones(1), one)
    with pytest.raises(ValueError, match="2 documents but 1 labels"):
        Qrels(("q",), ("d", "e"), np.ones(1), one)
    assert list(tmp_path.iterdir()) == []
