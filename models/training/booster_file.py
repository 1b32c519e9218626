"""Checks the text file of a LightGBM booster before LightGBM reads it: a damaged one would end the process.

LightGBM reads the trees in parallel by their sizes, and follows their children without looking: a wrong number is a
crash or an endless loop, and no exception.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

NODE_COLUMNS: dict[str, Callable[[str], float]] = {
    "split_feature": int, "split_gain": float, "threshold": float, "decision_type": int, "left_child": int,
    "right_child": int, "internal_value": float, "internal_weight": float, "internal_count": int,
}  # fmt: skip
"""Columns of a tree with one number for each split."""
LEAF_COLUMNS: dict[str, Callable[[str], float]] = {"leaf_value": float, "leaf_weight": float, "leaf_count": int}
NEEDED = ("split_feature", "threshold", "decision_type", "left_child", "right_child")
_END, _PARAMETER = b"end of trees", re.compile(rb"\[[^:\]]+:.*\]")


def check_booster_text(text: bytes, n_features: int) -> None:
    """Raise ValueError, which names the tree and its column, for a text that LightGBM can't read without harm."""
    head, separator, body = text.partition(b"\n\nTree=")
    if not separator:
        raise ValueError("found no tree, expected the text of a LightGBM model")
    fields = _fields(head)
    if (found := _whole(fields, "max_feature_idx") + 1) != n_features:
        raise ValueError(f"found {found} features, expected {n_features}; it was trained on others: train again")
    sizes = [_number(int, part, "tree_sizes") for part in _field(fields, "tree_sizes").split()]
    body = b"Tree=" + body
    start = 0
    for number, size in enumerate(sizes):
        tree = body[start : start + int(size)]
        if size <= 0 or not tree.startswith(b"Tree=%d\n" % number) or not tree.endswith(b"\n"):
            raise ValueError(f"tree {number} does not begin and end where tree_sizes says; the text is cut or changed")
        try:
            _check_tree(_fields(tree), n_features)
        except ValueError as problem:
            raise ValueError(f"tree {number}: {problem}") from None
        start += int(size)
    rest = body[start:].lstrip(b"\n")
    if not rest.startswith(_END):
        raise ValueError(f"found something else than {_END.decode()!r} after {len(sizes)} trees")
    _, _, parameters = rest.partition(b"\nparameters:")
    lines = parameters.partition(b"end of parameters")[0].split(b"\n")
    if any(line and not _PARAMETER.fullmatch(line) for line in lines):
        raise ValueError("found a line among the parameters that is not [name: value]")


def _check_tree(fields: Mapping[str, str], n_features: int) -> None:
    leaves = _whole(fields, "num_leaves")
    if leaves < 1:
        raise ValueError(f"num_leaves is {leaves}, expected at least 1")
    nodes = {name: _column(fields, name, kind, leaves - 1, name in NEEDED) for name, kind in NODE_COLUMNS.items()}
    values = {name: _column(fields, name, kind, leaves, name == "leaf_value") for name, kind in LEAF_COLUMNS.items()
              if leaves > 1 or name == "leaf_value"}  # fmt: skip  # the others are empty in a tree of one leaf
    if not all(map(math.isfinite, values["leaf_value"])):
        raise ValueError("found a leaf_value that is not finite")
    if not all(0 <= feature < n_features for feature in nodes["split_feature"]):
        raise ValueError(f"found a split_feature out of 0 to {n_features - 1}")
    _check_shape([int(one) for one in nodes["left_child"]], [int(one) for one in nodes["right_child"]], leaves)
    categories = _whole(fields, "num_cat")
    is_by_category = [int(kind) & 1 for kind in nodes["decision_type"]]
    bounds = [int(one) for one in _column(fields, "cat_boundaries", int, categories + 1, True)] if categories else [0]
    _column(fields, "cat_threshold", int, bounds[-1], bounds[-1] > 0)
    chosen = [threshold for threshold, kind in zip(nodes["threshold"], is_by_category, strict=True) if kind]
    if bounds != sorted(bounds) or not all(0 <= threshold < categories for threshold in chosen):
        raise ValueError("found a split by a category that cat_boundaries does not have")


def _check_shape(left: list[int], right: list[int], leaves: int) -> None:
    """Check that each split and each leaf is reached once; LightGBM numbers a split after its parent."""
    reached = []
    for number, children in enumerate(zip(left, right, strict=True)):
        for child in children:
            if child >= 0 and child <= number:
                raise ValueError(f"split {number} leads back to split {child}")
            reached.append(child)
    expected = [*range(-leaves, 0), *range(1, leaves - 1)] if leaves > 1 else []
    if sorted(reached) != expected:
        raise ValueError("the children do not reach every split and every leaf once")


def _column(
    fields: Mapping[str, str], name: str, kind: Callable[[str], float], length: int, needed: bool
) -> list[float]:
    if name not in fields and not needed:
        return []
    parts = _field(fields, name).split() if length else fields.get(name, "").split()
    if len(parts) != length:
        raise ValueError(f"{name} has {len(parts)} numbers, expected {length}")
    return [_number(kind, part, name) for part in parts]


def _whole(fields: Mapping[str, str], name: str) -> int:
    return int(_number(int, _field(fields, name), name))


def _field(fields: Mapping[str, str], name: str) -> str:
    if name not in fields:
        raise ValueError(f"{name} is missing")
    return fields[name]


def _number(kind: Callable[[str], float], part: str, name: str) -> float:
    try:
        if "_" in part:
            raise ValueError
        return kind(part)
    except ValueError:
        raise ValueError(f"{name} has {part[:20]!r}, expected a number") from None


def _fields(text: bytes) -> dict[str, str]:
    """Split lines of NAME=VALUE; a name that comes twice is refused."""
    fields: dict[str, str] = {}
    for line in text.decode("utf-8").splitlines():
        name, sign, value = line.partition("=")
        if not sign:
            continue
        if name in fields:
            raise ValueError(f"{name} comes twice")
        fields[name] = value
    return fields
