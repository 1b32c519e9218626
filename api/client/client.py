"""The HTTP client, with one method per route."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Literal

import httpx

from feedrank.api.client import requests, responses
from feedrank.api.client.connection import DEFAULT_TIMEOUTS, Connection, Timeouts
from feedrank.api.client.errors import ClientError
from feedrank.api.client.requests import Diversity, Filters, path_segment
from feedrank.api.client.responses import EventsResult, Feed, RankingExplanation, ServiceStatus, SimilarItems
from feedrank.api.client.retries import DEFAULT_RETRIES, NO_RETRIES, SYSTEM_CLOCK, Clock, Retries


class Client:
    """Client of a feedrank service. It is thread-safe; close it, or use it as a context manager.

    Every method raises ApiError for an error response, Unreachable if no response arrives, and BadAnswer if the
    response is not from feedrank. Arguments that can't be sent raise ValueError or TypeError.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        retries: Retries = DEFAULT_RETRIES,
        clock: Clock = SYSTEM_CLOCK,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Set the service's URL and an API key, if it needs one.

        transport: an httpx transport, for custom TLS or proxies. clock: time and randomness, replaced in tests. Raises
        ValueError for an invalid URL or key.
        """
        self._connection = Connection(url, key, timeouts, retries, clock, transport)
        self._clock = clock

    def __repr__(self) -> str:
        return f"Client({self._connection.url!r})"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; the client can't be used afterwards."""
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
        log: bool | None = None,
    ) -> Feed:
        """Recommend `n` items (default 10), best first. The service logs the ranking as shown, unless `log` is False.

        history: item ids, latest first, which replace the user's stored history. deadline_ms: time budget of the
        service for this request; retries have their own limit in `Retries`. ranking: id of the ranking, generated if
        None; a request with the id of a logged ranking returns that ranking.
        """
        body = requests.encode_request(
            user=user,
            n=n,
            query=query,
            history=history,
            session=session,
            surface=surface,
            context=context,
            filters=filters,
            diversity=diversity,
            deadline_ms=deadline_ms,
            explain=explain,
            ranking=_ranking_id(ranking),
            log=log,
        )
        return self._request_feed("/v1/recommend", body, deadline_ms)

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
        log: bool | None = None,
    ) -> Feed:
        """Rank the given items, best first, and return all or the top `n`. Logged like `recommend`.

        items: at most 1,000, without duplicates. An item is an id, or {"id", "fields"} with the fields that it has in
        this list, such as the price shown: {name: value}. They are logged, features may read them, and they register
        an item that is new to the service.
        """
        body = requests.encode_request(
            items=requests.item_list(items), user=user, n=n, query=query, history=history, session=session,
            surface=surface, context=context, diversity=diversity, deadline_ms=deadline_ms, explain=explain,
            ranking=_ranking_id(ranking), log=log,
        )  # fmt: skip
        return self._request_feed("/v1/rank", body, deadline_ms)

    def similar(self, item: str, n: int | None = None) -> SimilarItems:
        """Return the `n` items (default 10) nearest to an item. Not logged."""
        params = None if n is None else {"n": n}
        return self._connection.call(
            responses.parse_similar, "GET", f"/v1/items/{path_segment(item)}/similar", params=params
        )

    def record_events(self, events: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> EventsResult:
        """Send one event, or many events in batches. Accepted events are stored durably.

        Events without an `id` or a `timestamp` get them here, so that an event that is sent twice counts once. Of many
        events, invalid ones are listed in `rejected`; a single invalid event raises BadRequest. All events are encoded
        before the first batch is sent, so pass very long logs in parts. If a batch fails, the error holds the
        remaining events in `unacknowledged`; send them again later.
        """
        now = self._clock.now()
        if isinstance(events, Mapping):
            event = requests.with_id_and_timestamp(events, 0, now)
            return self._send_events([event], [(0, 1, requests.encode_json("the event", event))])
        complete = [requests.with_id_and_timestamp(event, index, now) for index, event in enumerate(events)]
        lines = [requests.encode_json(f"events[{index}]", event) for index, event in enumerate(complete)]
        return self._send_events(complete, list(requests.batches(lines)))

    def record_interaction(
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
    ) -> EventsResult:
        """Record an interaction of a user with an item: a click, rating, purchase, ...

        ranking: id of the ranking that showed the item. Without it, the service takes the user's last ranking within
        30 minutes that showed the item. position: from 1. timestamp: epoch milliseconds or ISO-8601 with a time zone.
        """
        event = requests.interaction_event(
            item, type, fields, ranking=ranking, user=user, session=session, value=value, dwell_ms=dwell_ms,
            position=position, id=id, timestamp=timestamp,
        )  # fmt: skip
        return self.record_events(event)

    def ranking(self, id: str) -> Feed:
        """Return a logged ranking as it was answered."""
        return self._connection.call(responses.parse_feed, "GET", f"/v1/rankings/{path_segment(id)}")

    def explain(self, id: str) -> RankingExplanation:
        """Explain the order of a logged ranking with features and TreeSHAP contributions; slow."""
        return self._connection.call(responses.parse_explanation, "GET", f"/v1/rankings/{path_segment(id)}/explain")

    def replay(self, id: str, wait_s: float = 300.0) -> dict[str, Any]:
        """Replay a logged ranking with the state of that time, and compare; slow for a long journal.

        wait_s: seconds to wait for the result. Raises Conflict if another replay is running, or if the ranking can't
        be replayed.
        """
        path = f"/v1/rankings/{path_segment(id)}/replay"
        return self._connection.call(dict, "POST", path, idempotent=False, deadline_s=wait_s)

    def state(self, kind: Literal["user", "item"], id: str) -> dict[str, Any]:
        """Return all that the service keeps of a user, with all events, or the stored state of an item."""
        return self._connection.call(dict, "GET", f"/v1/state/{path_segment(kind)}/{path_segment(id)}")

    def delete_user(self, id: str) -> dict[str, Any]:
        """Erase a user: delete all logged events of the user, and of the user's sessions, permanently.

        In the result, `deleted_events` is their number. It is 0 if an earlier attempt, whose response was lost,
        deleted them.
        """
        return self._connection.call(dict, "DELETE", f"/v1/state/user/{path_segment(id)}")

    def hide_item(self, id: str) -> dict[str, Any]:
        """Hide an item from all recommendations. Its events stay logged, so `deleted_events` is 0."""
        return self._connection.call(dict, "DELETE", f"/v1/state/item/{path_segment(id)}")

    def bundles(self) -> dict[str, Any]:
        """List the bundles."""
        return self._connection.call(dict, "GET", "/v1/bundles")

    def promote(self, name: str) -> dict[str, Any]:
        """Make a bundle the one that serves."""
        return self._connection.call(dict, "POST", f"/v1/bundles/{path_segment(name)}/promote", idempotent=False)

    def rollback(self) -> dict[str, Any]:
        """Go back to the bundle that served before the current one."""
        return self._connection.call(dict, "POST", "/v1/bundles/rollback", idempotent=False)

    def ready(self) -> ServiceStatus:
        """Return whether the service is ready, and its bundle. Sent once, without retries."""
        return self._connection.call(responses.parse_status, "GET", "/readyz", retries=NO_RETRIES)

    def _request_feed(self, path: str, body: bytes, deadline_ms: float | None) -> Feed:
        deadline_s = 0.0 if deadline_ms is None else deadline_ms / 1000
        return self._connection.call(responses.parse_feed, "POST", path, body, deadline_s=deadline_s)

    def _send_events(self, events: list[dict[str, Any]], batches: list[tuple[int, int, bytes]]) -> EventsResult:
        result = responses.NO_EVENTS
        for first, _, body in batches:
            try:
                result += self._connection.call(responses.parse_events_result, "POST", "/v1/events", body)
            except ClientError as error:
                error.unacknowledged, error.partial_result = tuple(events[first:]), result
                raise
        return result


def _ranking_id(given: str | None) -> str:
    return str(uuid.uuid4()) if given is None else given
