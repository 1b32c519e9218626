"""Experiments in the engine: assignment of users, interleaved and sampled lists, and replay of changes."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from feedrank.api.experiment_config import parse_experiment
from feedrank.engine.events.codec import parse, to_dict
from feedrank.engine.events.events import ExperimentEvent
from feedrank.engine.experiments.analysis_plan import AnalysisPlan, CustomMetric, Guardrail
from feedrank.engine.experiments.assignment import (
    SLOTS,
    arm_of_slot,
    arms_of_slots,
    drop_arm,
    initial_slot_ranges,
    rebalance,
    slot_of,
    slots_of,
)
from feedrank.engine.experiments.bucketing import INTERLEAVED, NO_ASSIGNMENT, assign
from feedrank.engine.experiments.exploration import sample_slate
from feedrank.engine.experiments.hashing import hash32, hashes32
from feedrank.engine.experiments.interleaving import balanced_credit, balanced_interleaving, team_draft
from feedrank.engine.experiments.registry import ChangeError, ExperimentRegistry, replay_events
from feedrank.engine.experiments.shadows import kendall_tau
from feedrank.engine.experiments.spec import HOLDOUT, Arm, ExperimentSpec, ExplorationPolicy, Targeting
from feedrank.engine.retrieval.diversity import Diversity
from feedrank.engine.serving.request import RecommendationRequest

TESTS = Path(__file__).parent
TWO = {"a": Arm(), "b": Arm(bundle="other")}


# --- assignment


def test_hashes_are_those_that_were_published() -> None:
    # the vectors that implementations of MurmurHash3 x86 32 are commonly checked by
    assert (hash32(""), hash32("", 1), hash32("hello"), hash32("hello, world")) == (
        0, 0x514E28B7, 0x248BFA47, 0x149BBB7F,
    )  # fmt: skip
    assert hash32("The quick brown fox jumps over the lazy dog") == 0x2E4FF723


@given(st.lists(st.text(max_size=40)), st.integers(0, 2**32 - 1))
def test_hashes_of_many_units_equal_single_hashes(texts: list[str], seed: int) -> None:
    assert hashes32(texts, seed).tolist() == [hash32(text, seed) for text in texts]


def test_slots_are_those_of_the_golden_file() -> None:
    cases = json.loads((TESTS / "assignment.json").read_text())["cases"]
    assert [slot_of(one["salt"], one["unit"]) for one in cases] == [one["slot"] for one in cases]
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine: the golden file alone was compared")
    output = subprocess.run([node, TESTS / "assignment.js"], input=json.dumps({"cases": cases}), capture_output=True,
                          text=True, check=True).stdout  # fmt: skip
    assert json.loads(output)["slots"] == [one["slot"] for one in cases]


def test_units_are_shared_out_by_weight() -> None:
    spans = initial_slot_ranges({"a": 1, "b": 2, "c": 1})
    arms = arms_of_slots(spans, slots_of("salt", [f"user {n}" for n in range(40_000)]))
    assert chisquare(np.bincount(arms), [10_000, 20_000, 10_000]).pvalue > 0.001
    assert [arm_of_slot(spans, slot_of("salt", f"user {n}")) for n in range(20)] == [
        ["a", "b", "c"][n] for n in arms[:20]
    ]


weights = st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any)


@given(weights, weights, weights)
def test_a_change_of_weights_reassigns_as_few_units_as_possible(
    one: list[int], two: list[int], three: list[int]
) -> None:
    names = ("a", "b", "c")
    spans = initial_slot_ranges(dict(zip(names, one, strict=True)))
    for wanted in (two, three):
        after = rebalance(spans, dict(zip(names, wanted, strict=True)))
        sizes = [sum(map(len, after[name])) for name in names]
        assert sum(sizes) == SLOTS
        assert np.allclose(np.array(sizes) / SLOTS, np.array(wanted) / sum(wanted), atol=2e-6)
        before = [sum(map(len, spans[name])) for name in names]
        everyone = np.arange(SLOTS)
        old, new = arms_of_slots(spans, everyone), arms_of_slots(after, everyone)
        assert (old != new).sum() == sum(max(now - then, 0) for now, then in zip(sizes, before, strict=True))
        spans = after


# --- assignment to experiments


def registry_after(*changes: tuple[str, str, dict[str, object]]) -> ExperimentRegistry:
    """The registry after changes of (experiment, change, payload)."""
    return replay_events(
        ExperimentEvent(f"e{position}", 1_000 * position, name, change, payload)
        for position, (name, change, payload) in enumerate(changes)
    )


def running(*experiments: ExperimentSpec) -> ExperimentRegistry:
    changes = [
        change for one in experiments for change in ((one.name, "create", one.to_dict()), (one.name, "start", {}))
    ]
    registry = registry_after(*changes)
    assert all(registry.get(one.name).status == "running" for one in experiments)
    return registry


def variants_of_users(registry: ExperimentRegistry, **options: object) -> list[list[str]]:
    """The variants of many users."""
    return [
        [one.variant for one in assign(registry, RecommendationRequest(f"u{n}", **options), f"r{n}", 10**6).exposures]  # type: ignore[arg-type]
        for n in range(400)
    ]


def test_a_user_stays_in_an_arm() -> None:
    registry = running(ExperimentSpec("x", TWO))
    first, again = variants_of_users(registry), variants_of_users(registry)
    assert first == again
    assert {tuple(one) for one in first} == {("a",), ("b",)}
    arms = {
        one[0]: assign(registry, RecommendationRequest(f"u{n}"), "r", 10**6).arm.bundle for n, one in enumerate(first)
    }
    assert arms == {"a": "", "b": "other"}
    assert assign(registry, RecommendationRequest(None), "r", 10**6) is NO_ASSIGNMENT, (
        "a request without a user is no unit"
    )


def test_experiments_of_a_layer_share_no_users() -> None:
    registry = running(ExperimentSpec("x", TWO, share=0.5), ExperimentSpec("y", TWO, share=0.5))
    counts = Counter(
        assign(registry, RecommendationRequest(f"u{n}"), "r", 10**6).exposures[0].experiment.name for n in range(400)
    )  # fmt: skip
    assert sum(counts.values()) == 400
    assert min(counts.values()) > 120
    full = registry.apply(ExperimentEvent("c", 0, "z", "create", ExperimentSpec("z", TWO, share=0.1).to_dict()))
    with pytest.raises(ChangeError, match=r"has 0\.0% of its units free.*needs 10\.0%"):
        full.apply(ExperimentEvent("s", 0, "z", "start"))


def test_a_stopped_experiment_frees_its_share() -> None:
    registry = running(ExperimentSpec("x", TWO))
    registry = replay_events([ExperimentEvent("stop", 5, "x", "stop", {"reason": "enough"})], registry)
    assert registry.get("x").stop_reason == "enough"
    both = replay_events(
        [
            ExperimentEvent("c", 6, "y", "create", ExperimentSpec("y", TWO).to_dict()),
            ExperimentEvent("s", 7, "y", "start"),
        ],
        registry,
    )
    assert {one[0] for one in variants_of_users(both)} == {"a", "b"}


def test_layers_are_independent_and_may_not_change_the_same_thing() -> None:
    mixed = {"plain": Arm(), "mixed": Arm(diversity=Diversity(weight=0.3))}
    registry = running(ExperimentSpec("ranker", TWO), ExperimentSpec("diversity", mixed, layer="list"))
    combinations = Counter(tuple(one) for one in variants_of_users(registry))
    assert set(combinations) == {("a", "plain"), ("a", "mixed"), ("b", "plain"), ("b", "mixed")}
    assert min(combinations.values()) > 50
    own = next(
        RecommendationRequest(f"u{n}") for n, one in enumerate(variants_of_users(registry)) if one == ["b", "mixed"]
    )
    arm = assign(registry, own, "r", 10**6).arm
    assert (arm.bundle, arm.diversity) == ("other", Diversity(weight=0.3))
    more = registry.apply(ExperimentEvent("c", 0, "other", "create", ExperimentSpec("other", TWO, layer="z").to_dict()))
    with pytest.raises(ChangeError, match="also changes bundle; put 'other' in the same layer"):
        more.apply(ExperimentEvent("s", 0, "other", "start"))


def test_only_requests_on_which_arms_could_differ_count() -> None:
    mixed = {"plain": Arm(), "mixed": Arm(diversity=Diversity(weight=0.3))}
    registry = running(
        ExperimentSpec("x", mixed), ExperimentSpec("y", {"few": Arm(), "many": Arm(candidates=300)}, layer="l")
    )
    assert {len(one) for one in variants_of_users(registry)} == {2}
    assert {len(one) for one in variants_of_users(registry, items=("i",))} == {1}, "given items are not recalled"
    assert {len(one) for one in variants_of_users(registry, diversity=Diversity(weight=0.5))} == {1}


def test_targeting_and_times() -> None:
    aimed = Targeting(surfaces=("home",), context={"country": ("ch", "at")}, queries=False)
    registry = running(ExperimentSpec("x", TWO, targeting=aimed, start=500, end=2_000_000))
    context_options = {"surface": "home", "context": {"country": "ch"}}
    assert {len(one) for one in variants_of_users(registry, **context_options)} == {1}
    for other in ({"surface": "search"}, {"context": {"country": "de"}}, {"query": "moon"}, {"context": {}}):
        assert {len(one) for one in variants_of_users(registry, **{**context_options, **other})} == {0}
    request = RecommendationRequest("u", surface="home", context={"country": "ch"})
    assert assign(registry, request, "r", 499) is NO_ASSIGNMENT
    assert assign(registry, request, "r", 2_000_000) is NO_ASSIGNMENT


def test_a_holdout_is_the_same_for_all_of_a_layer() -> None:
    registry = running(
        ExperimentSpec("x", TWO, holdout=0.2, share=0.5), ExperimentSpec("y", TWO, holdout=0.2, share=0.5)
    )  # fmt: skip
    found = variants_of_users(registry)
    kept = [one for one in found if HOLDOUT in one]
    assert 40 < len(kept) < 120
    assert all(one == [HOLDOUT, HOLDOUT] for one in kept), "a user in the holdout is in that of both"


def test_sessions_and_requests_are_units_too() -> None:
    registry = running(ExperimentSpec("x", TWO, unit="request"))
    found = {assign(registry, RecommendationRequest("u"), f"r{n}", 10**6).exposures[0].variant for n in range(50)}
    assert found == {"a", "b"}
    registry = running(ExperimentSpec("x", TWO, unit="session"))
    assert assign(registry, RecommendationRequest("u"), "r", 10**6) is NO_ASSIGNMENT
    assert {
        assign(registry, RecommendationRequest("u", session="s"), f"r{n}", 10**6).exposures[0].variant
        for n in range(50)
    } in (
        {"a"},
        {"b"},
    )


def test_a_stopped_arm_has_no_users_and_the_others_keep_theirs() -> None:
    three = {**TWO, "c": Arm(bundle="third")}
    registry = running(ExperimentSpec("x", three))
    before = variants_of_users(registry)
    registry = replay_events([ExperimentEvent("s", 9, "x", "stop-arm", {"arm": "c", "reason": "harm"})], registry)
    after = variants_of_users(registry)
    assert all(now == ([] if then == ["c"] else then) for then, now in zip(before, after, strict=True))
    assert registry.get("x").stopped_arms == {"c": "harm"}
    with pytest.raises(ChangeError, match="expected one of b, c"):
        registry.apply(ExperimentEvent("t", 9, "x", "stop-arm", {"arm": "a"}))
    assert drop_arm(initial_slot_ranges({"a": 1, "b": 1}), "b")["b"] == ()


def test_interleaving_and_shadow_experiments_assign_all_arms() -> None:
    found = assign(running(ExperimentSpec("x", TWO, kind="interleave")), RecommendationRequest("u"), "r", 10**6)
    assert [one.variant for one in found.exposures] == [INTERLEAVED]
    assert [name for name, _ in found.interleaved_arms] == ["a", "b"]
    found = assign(running(ExperimentSpec("x", TWO, kind="shadow")), RecommendationRequest("u"), "r", 10**6)
    assert (found.exposures, found.interleaved_arms) == ((), ())
    assert [(name, arm) for name, arm, _ in found.shadows] == [("x", "b")]


# --- the journal's changes


def test_an_experiment_survives_the_journal() -> None:
    own = ExperimentSpec(
        "x", {"a": Arm(0.5), "b": Arm(0.5, "other", 50, 3, Diversity(2, 0.1), ExplorationPolicy("epsilon-greedy"))},
        targeting=Targeting(("home",), {"country": ("ch",)}, True),
        plan=AnalysisPlan(
            "sales", (Guardrail("ctr", 0.1),), {"sales": CustomMetric("purchase", "sum")}, min_days=3, cuped=False
        ),
    )  # fmt: skip
    event = ExperimentEvent("e", 1, "x", "create", own.to_dict(), 2)
    assert parse(json.loads(json.dumps(to_dict(event)))) == event
    assert replay_events([event]).get("x").experiment == own


def test_the_keys_of_an_analysis_plan_are_keys_of_the_experiment() -> None:
    body = {"name": "x", "arms": {"a": {}, "b": {}}}
    declared = parse_experiment({**body, "primary": "ctr", "min_units": 50, "alpha": 0.1}, "x.toml")
    assert declared.plan == AnalysisPlan("ctr", min_units=50, alpha=0.1)
    assert parse_experiment(body, "x.toml").plan == AnalysisPlan() == ExperimentSpec.from_dict(body).plan
    assert {"alpha", "min_units", "primary"} <= declared.to_dict().keys()
    for wrong, message in (
        ({"min_units": 0}, "x.toml: min_units is 0; expected at least 1"),
        ({"planned_units": "9"}, "x.toml: planned_units: found '9'"),
        ({"power": 0.01}, "x.toml: power is 0.01; expected a probability above alpha"),
        ({"guardrails": [{"metric": "ctr", "max_relative_loss": 2}]}, "x.toml: guardrails.0: max_relative_loss of"),
        ({"plan": {}}, "x.toml: unknown key plan;"),
        ({"weights": [1, 1]}, "x.toml: unknown key weights;"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            parse_experiment({**body, **wrong}, "x.toml")


def test_invalid_changes_are_skipped() -> None:
    own = ExperimentSpec("x", TWO)
    events = [ExperimentEvent("c", 1, "x", "create", own.to_dict()), ExperimentEvent("s", 2, "x", "start"),
              ExperimentEvent("w", 3, "x", "weights", {"weights": {"b": 3}})]  # fmt: skip
    bad = [ExperimentEvent("c2", 4, "x", "create", own.to_dict()), ExperimentEvent("s2", 5, "x", "start"),
           ExperimentEvent("n", 6, "nobody", "stop"), ExperimentEvent("o", 7, "x", "fly"),
           ExperimentEvent("b", 8, "y", "create", {"arms": {"a": {"color": 1}}}),
           ExperimentEvent("v", 9, "x", "weights", {"weights": {"z": 1}})]  # fmt: skip
    registry = replay_events([*events, *bad])
    assert registry.states == replay_events(events).states
    assert set(registry.rejected) == {event.id for event in bad}
    state = registry.get("x")
    assert [shares for _, shares in state.allocation_history] == [{"a": 0.5, "b": 0.5}, {"a": 0.25, "b": 0.75}]
    with pytest.raises(ChangeError, match="found no experiment 'y'; there are: x"):
        registry.get("y")


def test_reports_of_shadows_add_up() -> None:
    own = ExperimentSpec("x", TWO, kind="shadow")
    shadow_report = {"arm": "b", "rankings": 2, "kendall_tau": 0.5, "latency_counts": [1, 1]}
    events = [ExperimentEvent("c", 1, "x", "create", own.to_dict())]
    events += [ExperimentEvent(f"r{n}", 2 + n, "x", "shadow", shadow_report) for n in range(3)]
    odd = ExperimentEvent("odd", 9, "x", "shadow", {**shadow_report, "latency_counts": [1]})
    registry = replay_events([*events, odd])
    assert registry.get("x").shadow_totals == {"b": {"rankings": 6, "kendall_tau": 1.5, "latency_counts": [3, 3]}}
    assert "other statistics" in registry.rejected["odd"]


def test_bundles_are_pinned_where_arms_differ_by_bundle() -> None:
    registry = registry_after(("x", "create", ExperimentSpec("x", TWO).to_dict()), ("x", "start", {"incumbent": "now"}))
    assert [arm.bundle for arm in registry.get("x").experiment.arms.values()] == ["now", "other"]
    assert registry.bundles == ["now", "other"]
    mixed = ExperimentSpec("y", {"a": Arm(), "b": Arm(candidates=50)})
    registry = registry_after(("y", "create", mixed.to_dict()), ("y", "start", {"incumbent": "now"}))
    assert registry.bundles == [], "whatever serves makes both arms"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "a b"}, "expected 1 to 100 characters without white space or /"),
        ({"arms": {"a": Arm()}}, "found 1 arms, expected at least 2"),
        ({"arms": {"a": Arm(0), "b": Arm(0)}}, "found arms with a total weight of 0"),
        ({"arms": {"a": Arm(), HOLDOUT: Arm()}}, "it is reserved for holdouts"),
        ({"arms": {**TWO, "c": Arm()}, "kind": "interleave", "interleaving": "balanced"}, "found 3 arms, expected 2"),
        ({"arms": {"a": Arm(), "b": Arm(explore=ExplorationPolicy())}, "kind": "shadow"}, "expected the kind ab"),
        ({"share": 0}, "share is 0; expected more than 0"),
        ({"start": 5, "end": 5}, "end is 5; expected a time after start"),
    ],
)
def test_an_invalid_experiment_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(ExperimentSpec("x", TWO), **wrong)  # type: ignore[arg-type]


# --- interleaved lists


def test_a_team_draft_alternates_and_shows_each_item_once() -> None:
    lists = [list("abcdef"), list("badxyz"), list("zyxabc")]
    firsts = Counter()
    for seed in range(300):
        draft = team_draft(lists[:2], 6, seed)
        assert len(set(draft.items)) == 6
        assert draft.teams.count(0) == draft.teams.count(1), "one of each team a round"
        for position, team in enumerate(draft.teams):
            for own in (0, 1) if team < 0 else (team,):
                rest = [item for item in lists[own] if item not in draft.items[:position]]
                assert draft.items[position] == rest[0], "a team's best that is not shown yet"
        firsts[draft.teams[0]] += 1
    assert 110 < firsts[0] < 190
    three = team_draft(lists, 7, 1)
    assert sorted(three.teams[:3]) == [0, 1, 2]
    agreed = team_draft([list("abc"), list("acb")], 5, 0)
    assert (agreed.items[0], agreed.teams[0]) == ("a", -1), "what both would show counts for neither"
    assert len(agreed.items) == 3, "no more than there are"


def test_balanced_interleaving_is_that_of_the_paper() -> None:
    # Joachims 2003: of A = a b c and B = b e a, the list is a b e c ... or b a e c ..., by the team that begins
    found = {balanced_interleaving([list("abc"), list("bea")], 4, seed).items for seed in range(20)}
    assert found == {("a", "b", "e", "c"), ("b", "a", "e", "c")}
    ranks = [[0, 1, -1, 2], [2, 0, 1, -1]]  # of the shown list a b e c in A and in B
    assert balanced_credit(ranks, [False, True, False, False]) == [0.0, 1.0]
    assert balanced_credit(ranks, [True, False, False, False]) == [1.0, 0.0]
    assert balanced_credit(ranks, [True, False, True, False]) == [1.0, 1.0]
    assert balanced_credit(ranks, [False] * 4) == [0.0, 0.0]


# --- exploration


def test_plackett_luce_draws_by_the_probabilities_it_logs() -> None:
    scores = np.array([1.0, 0.5, 0.0, -3.0], np.float32)
    drawn: Counter[tuple[int, ...]] = Counter()
    shares: dict[tuple[int, ...], float] = {}
    chosen = ExplorationPolicy(temperature=0.7, depth=10)
    for seed in range(6_000):
        positions, propensities = sample_slate(scores, 2, chosen, seed)
        drawn[tuple(positions.tolist())] += 1
        shares[tuple(positions.tolist())] = float(np.prod(propensities))
    weights = np.exp(scores / 0.7).astype(np.float64)
    for pair in permutations(range(4), 2):
        exact = weights[pair[0]] / weights.sum() * weights[pair[1]] / (weights.sum() - weights[pair[0]])
        if pair in shares:
            assert shares[pair] == pytest.approx(exact, rel=1e-6)
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    expected = [6_000 * shares[pair] for pair in drawn]
    assert chisquare([*drawn.values()], np.array(expected) * 6_000 / sum(expected)).pvalue > 0.001


def test_plackett_luce_at_extreme_temperatures() -> None:
    scores = np.array([2.0, 1.0, 0.0], np.float32)
    positions, shares = sample_slate(scores, 3, ExplorationPolicy(temperature=1e-3), 1)
    assert (positions.tolist(), shares.tolist()) == ([0, 1, 2], [1, 1, 1])
    positions, shares = sample_slate(
        np.arange(5, 0, -1).astype(np.float32), 5, ExplorationPolicy(temperature=1e6, depth=2), 3
    )
    assert set(positions[:2].tolist()) == {0, 1}
    assert positions[2:].tolist() == [2, 3, 4]
    assert shares[2:].tolist() == [1, 1, 1]
    _, shares = sample_slate(
        np.linspace(500, -500, 100).astype(np.float32), 100, ExplorationPolicy(temperature=0.5, depth=100), 5
    )
    assert (shares > 0).all()
    assert (shares <= 1).all()
    assert sample_slate(np.empty(0, np.float32), 5, ExplorationPolicy(), 0)[0].tolist() == []


def test_epsilon_greedy_leaves_the_head_alone() -> None:
    scores = np.arange(10, 0, -1).astype(np.float32)
    chosen = ExplorationPolicy("epsilon-greedy", epsilon=0.5, tail=2, depth=8)
    tails: Counter[int] = Counter()
    for seed in range(4_000):
        positions, shares = sample_slate(scores, 4, chosen, seed)
        assert positions[:2].tolist() == [0, 1]
        assert shares[:2].tolist() == [1, 1]
        assert shares[2] == pytest.approx(0.5 / 6 + 0.5 * (positions[2] == 2))
        tails[int(positions[2])] += 1
    expected = {position: 4_000 * (0.5 / 6 + 0.5 * (position == 2)) for position in range(2, 8)}
    assert chisquare([tails[position] for position in expected], [*expected.values()]).pvalue > 0.001


def test_rank_correlation() -> None:
    assert kendall_tau(np.array([3.0, 2.0, 1.0])) == 1
    assert kendall_tau(np.array([1.0, 2.0, 3.0])) == -1
    assert kendall_tau(np.array([2.0, 3.0, 1.0])) == pytest.approx(1 / 3)
    assert kendall_tau(np.array([1.0])) == 0
