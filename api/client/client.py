"""The client: one method a route."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Literal

import httpx

from api.client import answers, bodies
from api.client.answers import Explanation, Feed, Ready, Similar, Taken
from api.client.bodies import Diversity, Filters, segment
from api.client.connection import TIMEOUTS, Connection, Timeouts
from api.client.errors import ClientError
from api.client.retries import ONCE, REAL, USUAL, Ambient, Retries


class Client:
    """A feedrank service over HTTP. Threads may share it; close it, or use it in a `with`.

    Every method raises ApiError where the service refuses or fails, Unreachable where no answer comes and BadAnswer
    where another thing answers; ValueError and TypeError for arguments that can't be sent.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeouts: Timeouts = TIMEOUTS,
        retries: Retries = USUAL,
        ambient: Ambient = REAL,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """The service's address, and an API key where it wants one; `transport` is for TLS or proxies of your own."""
        self._connection = Connection(url, key, timeouts, retries, ambient, transport)
        self._ambient = ambient

    def __repr__(self) -> str:
        return f"Client({self._connection.url!r})"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; no call can follow."""
        self._connection.close()

    def recommend(
        self,
        *,
        user: str | None = None,
        n: int | None = None,
        query: str | None = None,
        history: Iterable[str] | None = None,
        session: str | None = None,
        surface: str | None = None,
        context: Mapping[str, Any] | None = None,
        filters: Filters | None = None,
        diversity: Diversity | None = None,
        deadline_ms: float | None = None,
        explain: bool | None = None,
        ranking: str | None = None,
    ) -> Feed:
        """A feed of `n` items (10 where nothing is said), best first. The service logs it as shown.

        `history` are item ids, latest first, in place of what is known of the person. `deadline_ms` is the service's
        time for the answer; retries have theirs in `Retries`. `ranking` is the id that it is logged under, made up
        where it is None: asked for again, the service answers what it has logged.
        """
        body = bodies.question(
            user=user, n=n, query=query, history=history, session=session, surface=surface, context=context,
            filters=filters, diversity=diversity, deadline_ms=deadline_ms, explain=explain, ranking=_id(ranking),
        )  # fmt: skip
        return self._ranking("/v1/recommend", body, deadline_ms)

    def rank(
        self,
        items: Iterable[str | Mapping[str, Any]],
        *,
        user: str | None = None,
        n: int | None = None,
        query: str | None = None,
        history: Iterable[str] | None = None,
        session: str | None = None,
        surface: str | None = None,
        context: Mapping[str, Any] | None = None,
        diversity: Diversity | None = None,
        deadline_ms: float | None = None,
        explain: bool | None = None,
        ranking: str | None = None,
    ) -> Feed:
        """The given items, best first, or the first `n` of them; at most 1,000, each once. Logged as a feed is.

        An item is an id, or {"id", "fields"} with what there is to know of one that may be new.
        """
        body = bodies.question(
            items=bodies.described(items), user=user, n=n, query=query, history=history, session=session,
            surface=surface, context=context, diversity=diversity, deadline_ms=deadline_ms, explain=explain,
            ranking=_id(ranking),
        )  # fmt: skip
        return self._ranking("/v1/rank", body, deadline_ms)

    def similar(self, item: str, n: int | None = None) -> Similar:
        """The `n` items (10 where nothing is said) nearest to one. Not logged."""
        params = None if n is None else {"n": n}
        return self._connection.call(answers.similar, "GET", f"/v1/items/{segment(item)}/similar", params=params)

    def record(self, events: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> Taken:
        """Send an event, or several in parts that the service takes at once. What is accepted is on its disk.

        Events without an `id` or a `timestamp` are given them here, so that one that is sent again counts once. Of
        several, those that the service can't read are in `rejected`; one alone raises BadRequest. All are read and
        written as JSON before the first is sent: pass very long logs in parts. Where a part fails, the error has in
        `unsent` what remains, to be recorded later.
        """
        now = self._ambient.clock()
        if isinstance(events, Mapping):
            told = [bodies.stamped(events, 0, now)]
            return self._send(told, [(0, 1, bodies.encoded("the event", told[0]))])
        told = [bodies.stamped(event, place, now) for place, event in enumerate(events)]
        lines = [bodies.encoded(f"events[{place}]", event) for place, event in enumerate(told)]
        return self._send(told, list(bodies.batches(lines)))

    def interact(
        self,
        item: str,
        type: str = "click",
        *,
        ranking: str | None = None,
        user: str | None = None,
        session: str | None = None,
        value: float | None = None,
        dwell_ms: float | None = None,
        position: int | None = None,
        fields: Mapping[str, Any] | None = None,
        id: str | None = None,
        timestamp: int | str | None = None,
    ) -> Taken:
        """Record what a person did with an item: a click, rating, purchase, ...

        `ranking` is the feed's id; without one the click belongs to the last ranking of that user that showed the item
        within 30 minutes. `position` counts from 1; `timestamp` is epoch milliseconds or ISO-8601 with a zone.
        """
        event = bodies.interaction(
            item, type, fields, ranking=ranking, user=user, session=session, value=value, dwell_ms=dwell_ms,
            position=position, id=id, timestamp=timestamp,
        )  # fmt: skip
        return self.record(event)

    def ranking(self, id: str) -> Feed:
        """A ranking as it was answered."""
        return self._connection.call(answers.feed, "GET", f"/v1/rankings/{segment(id)}")

    def explain(self, id: str) -> Explanation:
        """Why each item of a ranking is where it is; slow."""
        return self._connection.call(answers.explanation, "GET", f"/v1/rankings/{segment(id)}/explain")

    def replay(self, id: str, wait_s: float = 300.0) -> dict[str, Any]:
        """A ranking made again as of then: the same, or where it differs. Slow where the log is long.

        Raises Conflict where another replay is under way, or the ranking can't be made again.
        """
        path = f"/v1/rankings/{segment(id)}/replay"
        return self._connection.call(dict, "POST", path, twice=False, deadline_s=wait_s)

    def state(self, kind: Literal["user", "item"], id: str) -> dict[str, Any]:
        """What the service knows of a person or an item."""
        return self._connection.call(dict, "GET", f"/v1/state/{segment(kind)}/{segment(id)}")

    def forget(self, kind: Literal["user", "item"], id: str) -> dict[str, Any]:
        """Delete all that is logged of a person, for good; or take an item out of every feed.

        `events`, how many were deleted, is 0 where it was done by an attempt whose answer was lost.
        """
        return self._connection.call(dict, "DELETE", f"/v1/state/{segment(kind)}/{segment(id)}")

    def bundles(self) -> dict[str, Any]:
        """The bundles that there are."""
        return self._connection.call(dict, "GET", "/v1/bundles")

    def promote(self, name: str) -> dict[str, Any]:
        """Have a bundle serve."""
        return self._connection.call(dict, "POST", f"/v1/bundles/{segment(name)}/promote", twice=False)

    def rollback(self) -> dict[str, Any]:
        """Have the bundle serve again that did before."""
        return self._connection.call(dict, "POST", "/v1/bundles/rollback", twice=False)

    def ready(self) -> Ready:
        """What answers come from. Asked once, without retries."""
        return self._connection.call(answers.ready, "GET", "/readyz", retries=ONCE)

    def _ranking(self, path: str, body: bytes, deadline_ms: float | None) -> Feed:
        deadline_s = 0.0 if deadline_ms is None else deadline_ms / 1000
        return self._connection.call(answers.feed, "POST", path, body, deadline_s=deadline_s)

    def _send(self, told: list[dict[str, Any]], parts: list[tuple[int, int, bytes]]) -> Taken:
        taken = answers.NOTHING_TAKEN
        for first, _, body in parts:
            try:
                taken += self._connection.call(answers.taken, "POST", "/v1/events", body)
            except ClientError as error:
                error.unsent, error.taken = tuple(told[first:]), taken
                raise
        return taken


def _id(given: str | None) -> str:
    return str(uuid.uuid4()) if given is None else given
