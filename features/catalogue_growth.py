"""Extends a behavioural state to a catalogue with new items, as if they had been there from the start."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.types import Rows, Times
from feedrank.features import custom_counters, history_store, state_arrays
from feedrank.features.counter_table import _COUNTER_SHIFT, _USER_SHIFT, rehash
from feedrank.features.history_store import BLOCK_BYTES, HistoryStore
from feedrank.features.jit import jit
from feedrank.features.state import BehaviouralState
from feedrank.features.state_arrays import history_store_of
from feedrank.features.state_spec import StateSpec

Arrays = dict[str, NDArray[Any]]
_CATALOGUE_ARRAYS = (
    "counts", "dislikes", "first_at", "last_at", "category_codes", "category_offsets", "custom_counters.codes",
    "custom_counters.bounds",
)  # fmt: skip


class CatalogueGrowth:
    """The step from a catalogue to one with new items, prepared so that a state in use makes it quickly."""

    def __init__(self, before: Catalogue, after: Catalogue, spec: StateSpec) -> None:
        """Prepare all that does not depend on a state; raises ValueError as `extend_catalogue` does."""
        self._before, self._after = before, after
        _check_rows(before, after)
        self._counters = custom_counters.empty_counter_table(spec.counters, after)
        fields = {"category", *(counter.item_field for counter in spec.counters)} - {"", "item"}
        mappings = (_code_mapping(before, after, field) for field in fields)
        self._keeps_codes = all(np.array_equal(codes, np.arange(len(codes))) for codes in mappings)

    def apply(self, state: BehaviouralState) -> BehaviouralState:
        """Return the state of the catalogue with new items.

        This is the same state if its arrays have spare rows and all codes stay, else a larger copy.
        """
        arrays, after = state.arrays(), self._after
        items = len(arrays["first_at"])
        room = len(arrays["counts"]) - items - 1
        if not self._keeps_codes or len(after) > items or len(after.categories) > room:
            return extend_catalogue(state, self._before, after)
        _check_columns(arrays, self._before)
        bounds = state_arrays.padded_offsets(self._counters.bounds, items)
        offsets = state_arrays.padded_offsets(after.category_offsets, items)
        state.extend(after, offsets, self._counters._replace(bounds=bounds))
        return state


def extend_catalogue(state: BehaviouralState, before: Catalogue, after: Catalogue) -> BehaviouralState:
    """Copy the state of catalogue `before` into a new state of catalogue `after`.

    New items have rows after the old ones. Counts stay with the categories and field values under which they were
    counted, even if items changed theirs. Counts of values that `after` does not have are dropped. Raises ValueError
    if an old item has another row, or if the state belongs to another catalogue.
    """
    old, n = state.arrays(), len(before)
    _check_columns(old, before)
    _check_rows(before, after)
    fresh = BehaviouralState(after, state.spec)
    new = fresh.arrays()
    old_items, new_items = len(old["first_at"]), len(new["first_at"])
    new["counts"][:n] = old["counts"][:n]
    codes = _code_mapping(before, after, "category")
    counts = old["counts"][old_items : old_items + len(codes)]
    new["counts"][new_items + codes[codes >= 0]] = counts[codes >= 0]
    new["counts"][-1] = old["counts"][-1]
    new["dislikes"][:n], new["dislikes"][-1] = old["dislikes"][:n], old["dislikes"][-1]
    for name in ("first_at", "last_at"):
        new[name][:n] = old[name][:n]
    parts = old | {name: new[name] for name in _CATALOGUE_ARRAYS}
    if new_items != old_items:
        for name, marks in (("histories", 1), ("dislike_marks", 2)):  # a dislike is an entry of twice as many items
            store = _reencode_histories(history_store_of(old, name), marks * old_items, marks * new_items)
            parts |= {f"{name}.{part}": array for part, array in store._asdict().items()}
    for counter_index, counter in enumerate(state.spec.counters):
        if counter.item_field not in ("", "item"):
            codes = _code_mapping(before, after, counter.item_field)
            if not np.array_equal(codes, np.arange(len(codes))):
                parts |= _remap_codes(parts, counter_index, codes)
    fresh.restore(parts)
    return fresh


def warm_up() -> None:
    """Compile what the first copy of a state would wait for."""
    store = history_store.with_room(history_store.with_users(history_store.empty_store(), 1), 1)
    history_store.append(store, 0, history_store.INTERACTIONS, 0, 0.0, 1)
    _reencode_histories(store, 1, 2)


def _check_columns(arrays: Arrays, before: Catalogue) -> None:
    items = len(arrays["first_at"])
    if not (
        len(arrays["counts"]) > items + len(before.categories)
        and items >= len(before)
        and np.array_equal(arrays["category_codes"], before.category_codes)
        and np.array_equal(arrays["category_offsets"], state_arrays.padded_offsets(before.category_offsets, items))
    ):
        raise ValueError(f"found the state of another catalogue, expected the state of these {len(before)} items")


def _check_rows(before: Catalogue, after: Catalogue) -> None:
    (text, bounds), (new_text, new_bounds) = before.ids.to_arrays(), after.ids.to_arrays()
    if not (np.array_equal(new_bounds[: len(bounds)], bounds) and np.array_equal(new_text[: len(text)], text)):
        raise ValueError("found an old item in another row; expected the old items first and in unchanged order")


def _code_mapping(before: Catalogue, after: Catalogue, field: str) -> NDArray[np.int32]:
    """Map each code of a field in `before` to its code in `after`; -1 if no item has the value any more."""
    if field == "category":
        return after.categories.rows(list(before.categories))
    codes, bounds = before.field_codes(field)
    n = len(before)
    if before.fields == after.fields[:n] and before.tags == after.tags[:n]:
        return np.arange(codes.max(initial=-1) + 1, dtype=np.int32)  # codes are assigned by first appearance
    new_codes, new_bounds = after.field_codes(field)
    samples = [(before, row) for row in _first_rows(codes, bounds)]
    samples += [(after, row) for row in _first_rows(new_codes, new_bounds)]
    # encode the values of both catalogues together, old ones first, so that old codes are unchanged
    joint, _ = Catalogue.from_items(
        {str(i): {**source.fields[row], "tags": list(source.tags[row])} for i, (source, row) in enumerate(samples)}
    ).field_codes(field)
    added = [new_codes[new_bounds[row] : new_bounds[row + 1]] for source, row in samples if source is after]
    flat = np.concatenate([np.empty(0, np.int32), *added])
    mapping = np.full(joint.max(initial=-1) + 1, -1, np.int32)
    mapping[joint[len(joint) - len(flat) :]] = flat
    return mapping[: codes.max(initial=-1) + 1]


def _first_rows(codes: NDArray[np.int32], bounds: NDArray[np.int64]) -> list[int]:
    """Return the rows in which some code appears for the first time, ascending."""
    _, first = np.unique(codes, return_index=True)
    rows: list[int] = np.unique(np.searchsorted(bounds, first, "right") - 1).tolist()
    return rows


def _remap_codes(arrays: Arrays, counter_index: int, codes: NDArray[np.int32]) -> Arrays:
    """Replace the codes of one counter; sums keep their order, and sums whose code is -1 are dropped."""
    used = int(arrays["custom_counters.used"][0])
    keys, sums = arrays["custom_counters.keys"][:used].copy(), arrays["custom_counters.sums"][:used]
    selected, code_mask = keys >> _COUNTER_SHIFT == counter_index, (1 << _USER_SHIFT) - 1
    new_codes = codes[keys[selected] & code_mask].astype(np.int64)
    keys[selected] = (keys[selected] & ~code_mask) | np.maximum(new_codes, 0)
    keep = np.ones(used, np.bool_)
    keep[selected] = new_codes >= 0
    keys, sums = keys[keep], sums[keep]
    hash_index = np.zeros(1 << max(2 * len(keys) - 1, 0).bit_length(), np.int32)
    rehash(keys, len(keys), hash_index)
    return {
        "custom_counters.keys": keys,
        "custom_counters.sums": sums,
        "custom_counters.hash_index": hash_index,
        "custom_counters.used": np.array([len(keys)], np.int64),
    }


def _reencode_histories(store: HistoryStore, n_items: int, new_n_items: int) -> HistoryStore:
    """Encode all histories again for more items: an entry is (seconds x number of items + row)."""
    used, n_users = int(store.used[0]), len(store.lengths)
    if not used:
        return store
    digits = 1  # upper bound of additional digits per entry
    while n_items << (7 * digits) < new_n_items:
        digits += 1
    room = used + int(store.lengths.sum(dtype=np.int64)) * digits // BLOCK_BYTES + store.heads.shape[1] * n_users + 1
    new = HistoryStore(
        heads=np.zeros_like(store.heads),
        fills=np.zeros_like(store.fills),
        lengths=np.zeros_like(store.lengths),
        latest=np.zeros_like(store.latest),
        previous=np.zeros(room, np.int32),
        pool=np.zeros((room, BLOCK_BYTES), np.uint8),
        used=np.zeros(1, np.int64),
    )
    longest = int(store.lengths.max())
    _reencode(store, new, n_items, new_n_items, np.empty(longest, np.int32), np.empty(longest))
    n_blocks = int(new.used[0])
    return new._replace(previous=new.previous[:n_blocks], pool=new.pool[:n_blocks])


@jit
def _reencode(
    store: HistoryStore, target: HistoryStore, n_items: int, new_n_items: int, rows: Rows, times: Times
) -> None:
    """Copy entries one by one, oldest first; rows, times: buffers as long as the longest list."""
    for user in range(len(store.lengths)):
        for list_index in range(store.lengths.shape[1]):
            count = history_store.read(store, user, list_index, n_items, rows[: store.lengths[user, list_index]], times)
            for entry in range(count - 1, -1, -1):
                history_store.append(target, user, list_index, rows[entry], times[entry], new_n_items)
