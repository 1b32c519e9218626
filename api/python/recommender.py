"""The recommender of the Python API: feeds in this process, one by one or for many users at once."""

from __future__ import annotations

import operator
import time
import uuid
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from types import TracebackType
from typing import Any, SupportsIndex, TypeVar

from pydantic import ValidationError

from feedrank.api.client.requests import Diversity, Filters
from feedrank.api.http.bodies import NOT_OF_THE_REQUEST, RankBody, RecommendBody
from feedrank.api.progress import ShowProgress
from feedrank.api.python.feed import Feed, feed_from_record
from feedrank.api.python.feed_table import FeedTable
from feedrank.api.python.frames import ArrowStream
from feedrank.api.validation_errors import first_error
from feedrank.engine.journal.journal import Journal
from feedrank.engine.serving import recommender as engine
from feedrank.engine.serving.ranking_record import RankingRecord
from feedrank.engine.serving.request import RecommendationRequest

BATCH_USERS = 64
"""Users ranked together: larger batches are not faster, as their rows leave the processor's cache."""
Id = str | SupportsIndex
"""An id; an integer stands for its digits, as in `Home.load`."""
T = TypeVar("T")


class Recommender:
    """Recommends from the current bundle and the state of the whole journal; a context manager. Thread-safe.

    Each call first applies what other processes wrote to the journal. Unlike the service, it is in no experiment, does
    not load a bundle that is promoted later, and recommends only items that the bundle has: train again for new ones.
    """

    def __init__(self, recommender: engine.Recommender, journal: Journal, log: bool) -> None:
        """log: whether feeds are written to the journal before they are returned. `close` closes the journal."""
        self._recommender: engine.Recommender | None = recommender
        self._log = log
        self._close_journal = weakref.finalize(self, journal.close)

    @property
    def bundle(self) -> str:
        """Name of the bundle that ranks."""
        return self._open().pipeline.bundle

    def recommend(
        self, user: Id | None = None, n: int = 10, *, query: str = "", history: Iterable[Id] | None = None,
        session: Id | None = None, surface: str | None = None, context: Mapping[str, Any] | None = None,
        filters: Filters | None = None, diversity: Diversity | None = None, at: float | None = None,
    ) -> Feed:  # fmt: skip
        """Recommend `n` items, best first; an unknown user gets popular items.

        history: item ids, latest first, that replace the stored history of the user. session: of the visitor, who has a
        history without a user too. context: fields of the request, such as {"device": "phone"}, for declared features;
        they are logged. at: unix seconds; None: now. As in the service, time never goes back: a moment before the
        latest event is that of the latest event. Raises ValueError for arguments that the service would refuse.
        """
        body: dict[str, Any] = {"n": n, "filters": (filters or Filters()).to_dict()}
        body |= _options(user, session, query, history, diversity) | _context(surface, context)
        return self._recommend(_validated(RecommendBody, body), at)

    def rank(
        self, items: Iterable[Id | Mapping[str, Any]], user: Id | None = None, n: int | None = None, *, query: str = "",
        history: Iterable[Id] | None = None, session: Id | None = None, surface: str | None = None,
        context: Mapping[str, Any] | None = None, diversity: Diversity | None = None, at: float | None = None,
    ) -> Feed:  # fmt: skip
        """Rank the given items, best first; otherwise like `recommend`. n: number of items to return; None: all.

        items: ids, or {"id", "fields"} for an item with the fields that it has in this list, such as the price shown:
        {name: value}, where None is a missing value. They are logged with the ranking, and features may read them.
        """
        body: dict[str, Any] = {"n": n, "items": _items(items)}
        body |= _options(user, session, query, history, diversity) | _context(surface, context)
        return self._recommend(_validated(RankBody, body), at)

    def recommend_many(
        self, users: object, n: int = 10, *, filters: Filters | None = None, log: bool = False,
        progress: ShowProgress | None = None, at: float | None = None,
    ) -> FeedTable:  # fmt: skip
        """Recommend `n` items for each of many users, as one table. A user who comes twice is ranked once.

        users: ids, as a list or as a column of pandas, polars or pyarrow; missing values are left out. log: also write
        each feed to the journal, as a feed that is shown has to be; then users are ranked one by one. Without it all
        are ranked as of one moment, and nothing changes. progress: called with (label, users done, users).
        """
        import pyarrow as pa

        started = time.perf_counter()
        names = user_ids(users)
        parts = list(self.feed_batches(names, n, filters=filters, log=log, progress=progress, at=at))
        table = pa.concat_tables([feed_schema().empty_table(), *(part for part, _ in parts)])
        unknown = tuple(user for _, users_of_part in parts for user in users_of_part)
        with_rows = set(table["user"].unique().to_pylist())
        empty = tuple(user for user in names if user not in with_rows)
        return FeedTable(table, len(names), unknown, empty, round(time.perf_counter() - started, 2))

    def feed_batches(
        self, users: list[str], n: int = 10, *, filters: Filters | None = None, log: bool = False,
        progress: ShowProgress | None = None, at: float | None = None,
    ) -> Iterator[tuple[Any, list[str]]]:  # fmt: skip
        """Yield (pyarrow Table of feeds, unknown users among them) batch by batch; see `recommend_many`."""
        recommender = self._open()
        body = {"n": n, "filters": (filters or Filters()).to_dict()}
        at = time.time() if at is None else at
        remaining, done = iter(users), 0
        while batch := list(islice(remaining, BATCH_USERS)):
            requests = [_request(_validated(RecommendBody, {**body, "user": user})) for user in batch]
            known = recommender.snapshot.users
            unknown = [user for user in batch if known.row(user) < 0]
            if log:
                records = [recommender.recommend(str(uuid.uuid4()), at, request) for request in requests]
            else:
                records = recommender.recommend_batch(at, requests)
            yield _feed_table(records), unknown
            done += len(batch)
            if progress is not None:
                progress(f"feeds: {done:,} of {len(users):,} users", done, len(users))

    def close(self) -> None:
        """Close the journal; feeds that were returned can still be explained."""
        recommender, self._recommender = self._recommender, None
        if recommender is not None and recommender.prefetch_queue is not None:
            recommender.prefetch_queue.stop()
        self._close_journal()

    def __enter__(self) -> Recommender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        """Describe the recommender in one line."""
        if self._recommender is None:
            return "Recommender(closed)"
        return f"Recommender(bundle={self.bundle!r}, log={self._log})"

    def _open(self) -> engine.Recommender:
        if self._recommender is None:
            raise RuntimeError("this recommender is closed; open another one with home.recommender()")
        return self._recommender

    def _recommend(self, body: RecommendBody | RankBody, at: float | None) -> Feed:
        recommender, request = self._open(), _request(body)
        at = time.time() if at is None else at
        record = recommender.recommend(str(uuid.uuid4()), at, request, log=self._log)
        return feed_from_record(record if self._log else replace(record, logged=False), recommender.snapshot)


def _request(body: RecommendBody | RankBody) -> RecommendationRequest:
    options = body.to_options() if isinstance(body, RankBody) else body.model_dump(exclude=NOT_OF_THE_REQUEST)
    return RecommendationRequest.from_options(options)


def user_ids(users: object) -> list[str]:
    """Return distinct user ids as text, in their order. Raises TypeError or ValueError for values that are no ids."""
    import pyarrow as pa

    from feedrank.api.python.arrow_columns import as_ids

    if isinstance(users, str | bytes):
        raise TypeError(f"users: found the text {users!r}, expected several ids: write [{users!r}]")
    if isinstance(users, ArrowStream) and not hasattr(users, "columns"):
        column = pa.chunked_array(users)
    elif hasattr(users, "columns") or isinstance(users, pa.Table):
        raise TypeError("users: found a data frame, expected one column of it, such as users_df['user']")
    elif isinstance(users, pa.Array | pa.ChunkedArray):
        column = pa.chunked_array([users]) if isinstance(users, pa.Array) else users
    elif isinstance(users, Iterable):
        values = list(users)
        try:
            column = pa.chunked_array([pa.array(values)])
        except (pa.ArrowException, TypeError, OverflowError):  # mixed types
            column = pa.chunked_array([pa.array([None if value is None else _id("users", value) for value in values])])
    else:
        raise TypeError(f"users: found {type(users).__name__}, expected a list or column of ids")
    return [user for user in dict.fromkeys(as_ids(column, "users").column.to_pylist()) if user is not None]


def feed_schema() -> Any:
    """Return the schema of a table of feeds."""
    import pyarrow as pa

    return pa.schema(
        [("user", pa.string()), ("position", pa.int32()), ("item", pa.string()), ("score", pa.float64()),
         ("source", pa.string())]
    )  # fmt: skip


def _feed_table(records: list[RankingRecord]) -> Any:
    """Build a pyarrow Table with one row per user and item."""
    import pyarrow as pa

    columns: dict[str, list[Any]] = {"user": [], "position": [], "item": [], "score": [], "source": []}
    for record in records:
        length = len(record.items)
        columns["user"] += [record.user] * length
        columns["position"] += range(1, length + 1)
        columns["item"] += record.items
        columns["score"] += record.scores
        columns["source"] += [record.source] * length
    return pa.table(columns, schema=feed_schema())


def _context(surface: str | None, context: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"surface": surface, "context": dict(context or {})}


def _options(
    user: Id | None, session: Id | None, query: str, history: Iterable[Id] | None, diversity: Diversity | None
) -> dict[str, Any]:
    return {
        "user": None if user is None or user == "" else _id("user", user),
        "session": None if session is None or session == "" else _id("session", session),
        "query": query,
        "history": None if history is None else _ids("history", history),
        "diversity": (diversity or Diversity()).to_dict(),
    }


def _ids(name: str, ids: Iterable[Id]) -> list[str]:
    if isinstance(ids, str):
        raise TypeError(f"{name}: found the text {ids!r}, expected several ids: write [{ids!r}]")
    return [_id(name, value) for value in ids]


def _items(items: Iterable[Id | Mapping[str, Any]]) -> list[Any]:
    if isinstance(items, str | Mapping):
        raise TypeError(f"items: found {items!r}, expected several items: write [{items!r}]")
    return [
        {**item, "id": _id("items", item.get("id"))} if isinstance(item, Mapping) else _id("items", item)
        for item in items
    ]


def _id(name: str, value: object) -> str:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float) and value.is_integer():  # pandas has floats in a column with gaps
        return str(int(value))
    try:
        if isinstance(value, bool):
            raise TypeError
        return str(operator.index(value))  # type: ignore[arg-type]  # TypeError for what is no integer
    except TypeError:
        raise TypeError(f"{name}: found {value!r}, expected an id: text or an integer") from None


def _validated(kind: type[T], values: dict[str, Any]) -> T:
    """Check values by the rules of the HTTP API. Raises ValueError that names the first wrong one."""
    try:
        return kind(**values)
    except ValidationError as problem:
        raise ValueError("{}: {}".format(*first_error(problem))) from None
