"""A behavioural state carried over to a catalogue with more items, as if they had been there from the start."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.types import Rows, Times
from features import chains
from features.chains import BLOCK, Chains
from features.compiled import compiled
from features.keyed import _DECLARATION, _PERSON, rehash
from features.state import BehaviouralState

Arrays = dict[str, NDArray[Any]]
_OF_THE_CATALOGUE = (
    "counts", "first_at", "last_at", "category_codes", "category_offsets", "keyed.codes", "keyed.bounds",
)  # fmt: skip


def grown(state: BehaviouralState, before: Catalogue, after: Catalogue) -> BehaviouralState:
    """A state of the items of `after` with all that `state`, which is of those of `before`, has seen; a copy.

    New items stand in rows after the old ones. Counts stay with the categories and field values that they were counted
    under, whatever the items are called now; those under a name that is gone from `after` are let go. Raises
    ValueError where an old item has another row, or where the state is of other items.
    """
    old, n = state.arrays(), len(before)
    _check(old, before, after)
    fresh = BehaviouralState(after, state.spec)
    new = fresh.arrays()
    new["counts"][:n] = old["counts"][:n]
    codes = _places(before, after, "category")
    new["counts"][len(after) + codes[codes >= 0]] = old["counts"][n:-1][codes >= 0]
    new["counts"][-1] = old["counts"][-1]
    for name in ("first_at", "last_at"):
        new[name][:n] = old[name]
    parts = old | {name: new[name] for name in _OF_THE_CATALOGUE}
    if len(after) > n:
        found = _rewritten(Chains(*(old[f"chains.{name}"] for name in Chains._fields)), n, len(after))
        parts |= {f"chains.{name}": array for name, array in found._asdict().items()}
    for line, counter in enumerate(state.spec.counters):
        if counter.of not in ("", "item"):
            codes = _places(before, after, counter.of)
            if not np.array_equal(codes, np.arange(len(codes))):
                parts |= _renamed(parts, line, codes)
    fresh.restore(parts)
    return fresh


def _check(arrays: Arrays, before: Catalogue, after: Catalogue) -> None:
    if not (
        len(arrays["counts"]) == len(before) + len(before.categories) + 1
        and np.array_equal(arrays["category_codes"], before.category_codes)
        and np.array_equal(arrays["category_offsets"], before.category_offsets)
    ):
        raise ValueError(f"found a state of other items than the {len(before)} that it should be of")
    (text, bounds), (longer, more) = before.ids.arrays(), after.ids.arrays()
    if not (np.array_equal(more[: len(bounds)], bounds) and np.array_equal(longer[: len(text)], text)):
        raise ValueError("found an old item in another row; expected the old items first, in the order they were in")


def _places(before: Catalogue, after: Catalogue, field: str) -> NDArray[np.int32]:
    """The code in `after` of each code of `before`, -1 where no item has the value any more."""
    if field == "category":
        return after.categories.rows(list(before.categories))
    codes, bounds = before.codes(field)
    n = len(before)
    if before.fields == after.fields[:n] and before.tags == after.tags[:n]:
        return np.arange(codes.max(initial=-1) + 1, dtype=np.int32)  # codes go by first appearance
    now, now_bounds = after.codes(field)
    naming = [(before, row) for row in _first_rows(codes, bounds)]
    naming += [(after, row) for row in _first_rows(now, now_bounds)]
    # both catalogues' values coded together: the old ones first, so that these codes are those of `before`
    together, _ = Catalogue.from_items(
        {str(place): {**of.fields[row], "tags": list(of.tags[row])} for place, (of, row) in enumerate(naming)}
    ).codes(field)
    mine = [now[now_bounds[row] : now_bounds[row + 1]] for of, row in naming if of is after]
    flat = np.concatenate([np.empty(0, np.int32), *mine])
    found = np.full(together.max(initial=-1) + 1, -1, np.int32)
    found[together[len(together) - len(flat) :]] = flat
    return found[: codes.max(initial=-1) + 1]


def _first_rows(codes: NDArray[np.int32], bounds: NDArray[np.int64]) -> list[int]:
    """Rows, ascending, in which some code appears first."""
    _, first = np.unique(codes, return_index=True)
    rows: list[int] = np.unique(np.searchsorted(bounds, first, "right") - 1).tolist()
    return rows


def _renamed(parts: Arrays, line: int, codes: NDArray[np.int32]) -> Arrays:
    """The keyed arrays with one declaration's codes replaced; sums keep their order, those without a code go."""
    used = int(parts["keyed.used"][0])
    keys, sums = parts["keyed.keys"][:used].copy(), parts["keyed.sums"][:used]
    mine, low = keys >> _DECLARATION == line, (1 << _PERSON) - 1
    moved = codes[keys[mine] & low].astype(np.int64)
    keys[mine] = (keys[mine] & ~low) | np.maximum(moved, 0)
    kept = np.ones(used, np.bool_)
    kept[mine] = moved >= 0
    keys, sums = keys[kept], sums[kept]
    table = np.zeros(1 << max(2 * len(keys) - 1, 0).bit_length(), np.int32)
    rehash(keys, len(keys), table)
    return {
        "keyed.keys": keys, "keyed.sums": sums, "keyed.table": table, "keyed.used": np.array([len(keys)], np.int64)
    }  # fmt: skip


def _rewritten(found: Chains, items: int, more: int) -> Chains:
    """The same entries for a larger number of items: an entry is a multiple of that number, and a row."""
    used, people = int(found.used[0]), len(found.lengths)
    if not used:
        return found
    digits = 1  # that an entry may take beyond those that it took
    while items << (7 * digits) < more:
        digits += 1
    room = used + int(found.lengths.sum(dtype=np.int64)) * digits // BLOCK + 2 * people + 1
    new = Chains(
        heads=np.zeros_like(found.heads),
        fills=np.zeros_like(found.fills),
        lengths=np.zeros_like(found.lengths),
        latest=np.zeros_like(found.latest),
        previous=np.zeros(room, np.int32),
        pool=np.zeros((room, BLOCK), np.uint8),
        used=np.zeros(1, np.int64),
    )
    longest = int(found.lengths.max())
    _rewrite(found, new, items, more, np.empty(longest, np.int32), np.empty(longest))
    filled = int(new.used[0])
    return new._replace(previous=new.previous[:filled], pool=new.pool[:filled])


@compiled
def _rewrite(found: Chains, new: Chains, items: int, more: int, rows: Rows, times: Times) -> None:
    """Entry by entry, oldest first; rows, times: room for the longest chain."""
    for person in range(len(found.lengths)):
        for chain in range(found.lengths.shape[1]):
            count = chains.read(found, person, chain, items, rows[: found.lengths[person, chain]], times)
            for place in range(count - 1, -1, -1):
                chains.add(new, person, chain, rows[place], times[place], more)
