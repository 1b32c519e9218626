"""Read Amazon reviews of the releases of 2014, 2018 and 2023: reviews, ratings only, and metadata of the items.

McAuley et al., SIGIR 2015; Ni, Li and McAuley, EMNLP 2019; Hou et al., Bridging Language and Items, 2024.
"""

from __future__ import annotations

import ast
import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from feedrank.api.readers import layouts, lines
from feedrank.api.readers.folders import open_files
from feedrank.api.readers.import_options import DEFAULTS, ImportOptions
from feedrank.api.readers.layouts import Layout
from feedrank.api.readers.rejects import Rejects
from feedrank.api.readers.rows import ContentIds
from feedrank.api.readers.streams import begins_as_json
from feedrank.engine.events.checks import EventError, as_float
from feedrank.engine.events.codec import parse
from feedrank.engine.events.events import Event
from feedrank.engine.events.ids import canonical_event

RATINGS_2023 = Layout(
    "interaction",
    {"user_id": "user", "parent_asin": "item", "rating": "value", "timestamp": "timestamp", "history": ""},
    ("*.csv",),
    constants={"type": "rating"},
)
_ORDERS = {"user first": ("user", "item", "value", "timestamp"), "item first": ("item", "user", "value", "timestamp")}
"""Columns of the files with ratings only, which have no header: of 2014, and of 2018."""
SAMPLE_ROWS = 200
"""First rows of a file without a header that decide the order of its columns."""

_ASIN = re.compile(r"[A-Z0-9]{10}", re.ASCII)
_PRICE = re.compile(r"\$?\s*(\d[\d,]*(?:\.\d+)?)", re.ASCII)
_LISTS = {
    "also_buy": "also_buy", "also_view": "also_view", "also_bought": "also_buy", "also_viewed": "also_view",
    "bought_together": "bought_together", "buy_after_viewing": "buy_after_viewing",
}  # fmt: skip
"""Lists of other items, by the names that the releases have for them."""


def is_amazon(body: Any) -> bool:
    """Return whether a JSON value is a review or an item of one of the three releases."""
    if not isinstance(body, Mapping) or "event" in body:
        return False
    names = set(body)
    is_review = {"reviewerID", "asin"} <= names or {"parent_asin", "user_id", "rating"} <= names
    described = {"title", "imUrl", "categories", "category", "related", "also_buy", "main_category", "salesRank"}
    return is_review or (bool(names & {"asin", "parent_asin"}) and bool(names & described))


def is_literal(text: str) -> bool:
    """Return whether a line is an item of 2014, which is a Python literal instead of JSON."""
    return text.startswith("{'") and is_amazon(_decode(text))


def is_ratings_only(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the first rows of a CSV file without a header are ratings: user, item, rating and seconds."""
    return bool(rows) and all(
        len(cells) == 4
        and (as_float(cells[2]) or 0) in (1, 2, 3, 4, 5)
        and cells[3].isdigit()
        and any(_ASIN.fullmatch(cell) for cell in cells[:2])
        for cells in rows
    )


def read_events(path: Path, rejects: Rejects, options: ImportOptions = DEFAULTS) -> Iterator[Event]:
    """Read reviews, ratings or items; the keys or columns tell which, and of which release.

    A review is an interaction of type `rating` with its stars as the value; its text is left out. Items have `title`,
    `text`, `category`, `brand`, `price` and lists such as `also_buy`. Their average rating, its count and their rank
    are left out, because they count the reviews of later times.
    """
    if not begins_as_json(path):
        yield from _read_csv(path, rejects, options)
        return
    source = str(path)
    ids = ContentIds()
    for number, text in lines.read_lines(path, rejects, options.encoding):
        if not text.strip():
            continue
        try:
            event = ids.identify(parse(canonical_event(_body(_decode(text)))))
        except EventError as problem:
            rejects.reject(source, number, str(problem), text)
        else:
            rejects.accept(number)
            yield event


def _read_csv(path: Path, rejects: Rejects, options: ImportOptions) -> Iterator[Event]:
    with open_files(path) as folder:
        name = folder.names[0]
        columns = layouts.columns_of(folder, name, ",", options, RATINGS_2023.columns)
        if RATINGS_2023.fits(columns):
            yield from layouts.read_file(folder, name, RATINGS_2023, rejects, options)
            return
        if len(columns) != 4:
            raise ValueError(
                f"{path}: found the columns {', '.join(columns[:10]) or '(none)'}, expected"
                f" {', '.join(RATINGS_2023.columns)}, or user, item, rating and seconds without a header"
            )
        anything = Layout("interaction", {}, (), header=("0", "1", "2", "3"))
        sample = [row for _, _, row in islice(layouts.rows(folder, name, anything, Rejects(), options), SAMPLE_ROWS)]
        order = _ORDERS[_order(path, sample)]
        ratings = Layout("interaction", {}, (), header=order, time_unit="s", constants={"type": "rating"})
        yield from layouts.read_file(folder, name, ratings, rejects, options)


def _order(path: Path, sample: Sequence[Mapping[str, str]]) -> str:
    """Return the order of the columns: items have ids of ten characters, and users mostly longer ones.

    Raises ValueError if the rows don't tell.
    """
    asins = [sum(_ASIN.fullmatch(row[column]) is not None for row in sample) for column in ("0", "1")]
    if asins[0] == asins[1]:
        raise ValueError(
            f"{path}: can't tell users from items: found {asins[0]} ids of ten characters in both columns of the first"
            f" {len(sample)} rows. Add the header user,item,value,timestamp, and import the file with --format csv"
            " --time-unit s"
        )
    return "item first" if asins[0] > asins[1] else "user first"


def _decode(text: str) -> Any:
    """Decode JSON, or the Python literals of the metadata of 2014. Raises EventError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        if not text.lstrip().startswith("{'"):
            raise EventError("line", f"not JSON: {problem}") from None
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError) as problem:
        raise EventError("line", f"neither JSON nor a Python literal: {problem}") from None


def _body(row: Any) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise EventError("line", f"found {type(row).__name__}, expected an object")
    if "reviewerID" in row or "overall" in row:
        seconds = row.get("unixReviewTime")
        time = seconds * 1000 if isinstance(seconds, int) else seconds
        return _rating(row.get("reviewerID"), row.get("asin"), row.get("overall"), time, row.get("verified"))
    if "user_id" in row:
        item = row.get("parent_asin") or row.get("asin")
        return _rating(row["user_id"], item, row.get("rating"), row.get("timestamp"), row.get("verified_purchase"))
    fields = {name: value for name, value in _item_fields(row).items() if value not in (None, "", [])}
    return {
        "event": "item", "id": "set below", "timestamp": 0, "item": row.get("parent_asin") or row.get("asin"),
        "fields": [{"name": name, "value": value} for name, value in fields.items()],
    }  # fmt: skip


def _rating(user: Any, item: Any, stars: Any, time: Any, verified: Any) -> dict[str, Any]:
    return {
        "event": "interaction", "id": "set below", "timestamp": time, "user": user, "item": item, "type": "rating",
        "value": stars,
        "fields": [{"name": "verified", "value": verified}] if isinstance(verified, bool) else [],
    }  # fmt: skip


def _item_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    related = row.get("related")
    others = {**row, **(related if isinstance(related, Mapping) else {})}
    description = row.get("description")
    categories = row.get("categories") or row.get("category") or []
    flat = [name for entry in categories for name in (entry if isinstance(entry, list) else [entry])]
    main = [row["main_category"]] if isinstance(row.get("main_category"), str) else []
    return {
        "title": _plain(row.get("title")),
        "text": " ".join(filter(None, map(_plain, description)))
        if isinstance(description, list)
        else _plain(description),
        "category": list(dict.fromkeys(filter(None, map(_plain, [*main, *flat])))),
        "brand": _plain(row.get("brand") or row.get("store")),
        "price": _price(row.get("price")),
        "features": [text for text in map(_plain, row.get("feature") or row.get("features") or []) if text],
        **{
            name: [str(item) for item in others[key]]
            for key, name in _LISTS.items()
            if isinstance(others.get(key), list)
        },
    }


def _plain(text: Any) -> str | None:
    """Return text without its HTML escapes; None for anything else."""
    return html.unescape(text).strip() if isinstance(text, str) else None


def _price(price: Any) -> float | None:
    """Return a price such as 12.99 or "$12.99" as a number; None for what the pages had in its place."""
    if isinstance(price, int | float) and not isinstance(price, bool):
        return float(price)
    match = _PRICE.fullmatch(price.strip()) if isinstance(price, str) else None
    return float(match[1].replace(",", "")) if match else None
