"""Read H&M's purchases (Kaggle, 2022): transactions_train.csv, articles.csv and customers.csv."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from feedrank.api.readers import layouts
from feedrank.api.readers.folders import Folder
from feedrank.api.readers.import_options import DEFAULTS, ImportOptions
from feedrank.api.readers.layouts import Layout, Row
from feedrank.api.readers.rejects import Rejects
from feedrank.engine.events.events import Event

ARTICLE_DIGITS = 10
"""Digits of an article's id. Tools that read ids as numbers cut off the zeros at its beginning."""


def _article(row: Row) -> Iterator[Row]:
    yield {**row, "item": str(row["item"]).strip().zfill(ARTICLE_DIGITS)}


def _described(row: Row) -> Iterator[Row]:
    category = [row[name] for name in ("index_group_name", "product_group_name", "product_type_name") if row.get(name)]
    yield {**next(_article(row)), "category": list(dict.fromkeys(category))}


LAYOUTS = (
    Layout(
        "item",
        {"article_id": "item", "prod_name": "title", "detail_desc": "text"},
        ("articles*.csv", "articles*.parquet"),
        converter=lambda: _described,
    ),
    Layout("user", {"customer_id": "user", "postal_code": "postal_code"}, ("customers*.csv", "customers*.parquet")),
    Layout(
        "interaction",
        {"t_dat": "timestamp", "customer_id": "user", "article_id": "item", "price": "value"},
        ("transactions*.csv", "transactions*.parquet"),
        constants={"type": "purchase"},
        converter=lambda: _article,
    ),
)


def is_hm(folder: Folder) -> bool:
    """Return whether a folder holds the purchases or the articles."""
    return bool(folder.match("transactions_train*")) or bool(folder.match("articles*") and folder.match("customers*"))


def read_events(path: Path, rejects: Rejects, options: ImportOptions = DEFAULTS) -> Iterator[Event]:
    """Read the articles, the customers and the purchases, from a folder, a zip or one file.

    A purchase is an interaction of type `purchase` with its price as the value, at the start of its day. Two equal
    rows are two purchases. Ids of articles have ten digits, with zeros at the beginning.
    """
    yield from layouts.read_layouts(path, LAYOUTS, rejects, options)
