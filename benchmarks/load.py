"""An open-loop HTTP load on loopback: every request has a scheduled start, and its latency counts from there.

A client that waits for an answer before it sends the next request asks nothing while a server stalls, and so
never sees what the users of that moment would have felt: coordinated omission. Here the schedule never waits.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import selectors
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from rich.table import Table

from benchmarks.bars import console
from feedrank.models.atomic_files import atomic_write

Arrivals = Literal["poisson", "even"]
Times = npt.NDArray[np.float64]
Maker = Callable[[int], "Call"]  # the n-th, from 0, made a little ahead of its time
LOOPBACK = ("127.0.0.1", "::1", "localhost")
MOST = {"rate": 20_000, "seconds": 3_600, "connections": 512, "timeout": 3_600}
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
_HUES = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe & Ito 2008, for any colour vision
_FAILED, _INK, _QUIET, _FAINT = "#D55E00", "#1F2933", "#6B7683", "#E4E7EB"


@dataclass(frozen=True, slots=True)
class Call:
    """One request; Host and Content-Length are added to its headers."""

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of each request, in the order of the schedule, at the rate and for the seconds asked."""

    rate: float
    seconds: float
    scheduled: Times
    """Seconds from the start, as `sent` (or taken up, where it never went out) and `done`."""
    sent: Times
    done: Times
    status: npt.NDArray[np.int16]
    """0 for one that failed: no connection, a broken one, an answer that is not HTTP, or out of time."""
    bodies: list[bytes] | None = None
    busy: float = 0.0
    """Share of one core that the client used; near 1 it measured itself."""

    def since(self, start: Times) -> Times:
        """Milliseconds of each request; infinite for what failed, as a quick refusal is no quick answer."""
        return np.where(self.status > 0, (self.done - start) * 1000, np.inf)

    @property
    def latency_ms(self) -> dict[str, float]:
        """Percentiles from the scheduled start by name, p50 to max; infinite where one falls on a failed request."""
        return _percentiles(self.since(self.scheduled))

    @property
    def service_ms(self) -> dict[str, float]:
        """Percentiles from the send by name."""
        return _percentiles(self.since(self.sent))

    def above(self, ms: float) -> float:
        """Share of requests whose latency is above a threshold; what failed is."""
        return float((self.since(self.scheduled) > ms).mean())

    @property
    def achieved(self) -> float:
        """Answers of any status per second, until the last was there."""
        return int((self.status > 0).sum()) / max(self.seconds, float(self.done.max()))

    @property
    def errors(self) -> int:
        """How many failed or had a status of 500 or more."""
        return int(((self.status == 0) | (self.status >= 500)).sum())

    @property
    def statuses(self) -> dict[int, int]:
        """Requests by status."""
        found, counts = np.unique(self.status, return_counts=True)
        return dict(zip(found.tolist(), counts.tolist(), strict=True))

    def as_dict(self) -> dict[str, Any]:
        """The summary in JSON's own types; a percentile that falls on a failed request is None."""
        times = {"latency_ms": self.latency_ms, "service_ms": self.service_ms}
        return {
            "rate": self.rate, "seconds": self.seconds, "requests": len(self.status), "achieved": self.achieved,
            "errors": self.errors, "statuses": {str(status): count for status, count in self.statuses.items()},
            **{what: {at: ms if ms < math.inf else None for at, ms in row.items()} for what, row in times.items()},
            "client_busy": self.busy,
        }  # fmt: skip

    def table(self, title: str = "benchmarks.load") -> Table:
        """The summary: percentiles, and below them rates, statuses and what the client itself used."""
        statuses = ", ".join(f"{status or 'failed'}: {count:,}" for status, count in self.statuses.items())
        caption = (
            f"asked {self.rate:,.6g}/s for {self.seconds:g} s, had {self.achieved:,.1f}/s; errors: {self.errors:,}\n"
            f"{len(self.status):,} requests ({statuses}); the client used {self.busy:.0%} of a core"
        )
        drawn = Table("ms", *PERCENTILES, title=title, caption=caption, caption_justify="left")
        for what, row in (("latency, from the schedule", self.latency_ms), ("service, from the send", self.service_ms)):
            drawn.add_row(what, *(f"{ms:,.2f}" if ms < math.inf else "[red]failed[/]" for ms in row.values()))
        return drawn


def _percentiles(ms: Times) -> dict[str, float]:
    """Each an observed value, as one between an answer and a failure means nothing."""
    ordered, ranks = np.sort(ms), {name: math.ceil(len(ms) * p / 100 - 1e-9) for name, p in PERCENTILES.items()}
    return {name: float(ordered[max(rank, 1) - 1]) for name, rank in ranks.items()}


def schedule(rate: float, seconds: float, arrivals: Arrivals = "poisson", seed: int = 0) -> Times:
    """round(rate * seconds) starts, at least one, in order: evenly apart, or a Poisson process given its count."""
    count = max(1, round(rate * seconds))
    chance = np.random.default_rng(seed)
    return np.arange(count) / rate if arrivals == "even" else np.sort(chance.uniform(0, seconds, count))


def run(
    host: str, port: int, calls: Maker, rate: float, seconds: float, connections: int = 64,
    arrivals: Arrivals = "poisson", seed: int = 0, timeout: float = 30.0, keep_bodies: bool = False,
) -> Outcome:  # fmt: skip
    """Send `calls(0)`, `calls(1)`, ... on schedule over kept connections, used in turn; nothing is sent twice.

    A request that finds none free waits for one while its latency counts; `timeout` seconds after its scheduled
    start it is given up. ValueError for a host that is not loopback, or a number out of bounds.
    """
    if host not in LOOPBACK:
        raise ValueError(f"found host {host!r}; a load is for one's own machine: use one of {', '.join(LOOPBACK)}")
    for name, value in {"rate": rate, "seconds": seconds, "connections": connections, "timeout": timeout}.items():
        if not 0 < value <= MOST[name]:
            raise ValueError(f"found {name} {value:g}, expected more than 0 and at most {MOST[name]:,}")
    scheduled = schedule(rate, seconds, arrivals, seed)
    columns = np.zeros_like(scheduled), np.zeros_like(scheduled), np.zeros(len(scheduled), np.int16)
    outcome = Outcome(rate, seconds, scheduled, *columns, [b""] * len(scheduled) if keep_bodies else None)
    gc.freeze()  # a full collection of a caller's large heap amid the run would look like a stall of the server
    try:
        # select wakes to the microsecond; epoll would send each request up to 1 ms late
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
            return replace(outcome, busy=runner.run(_fill(outcome, (host, port), calls, connections, timeout)))
    finally:
        gc.unfreeze()


async def _fill(outcome: Outcome, address: tuple[str, int], calls: Maker, connections: int, timeout: float) -> float:
    """Send everything and write what becomes of it into the outcome's columns; the share of a core that it took."""
    clock, numbers = time.perf_counter, iter(range(len(outcome.scheduled)))
    used, start = time.thread_time(), clock() + 0.01  # by when all lanes are ready

    async def lane() -> None:
        """One connection's work: whenever it is free it takes the next request of all, so they leave in order."""
        line: tuple[StreamReader, StreamWriter] | None = None
        for n in numbers:
            call = calls(n)
            wire = _wire(call, address)  # ahead of its time, so that making it delays nothing
            due = start + float(outcome.scheduled[n])
            if (ahead := due - clock()) > 0:
                await asyncio.sleep(ahead)
            outcome.sent[n] = clock() - start
            try:
                async with asyncio.timeout(due + timeout - clock()):
                    if line is None or line[0].at_eof() or line[1].is_closing():
                        if line is not None:
                            line[1].close()
                        line = await asyncio.open_connection(*address)
                        outcome.sent[n] = clock() - start
                    outcome.status[n], body = await _exchange(*line, wire, call.method)
                if outcome.bodies is not None:
                    outcome.bodies[n] = body
            except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
                if line is not None:
                    line[1].transport.abort()
            outcome.done[n] = clock() - start
        if line is not None:
            line[1].close()

    await asyncio.gather(*(lane() for _ in range(min(connections, len(outcome.scheduled)))))
    await asyncio.sleep(0)  # what was closed last is gone one turn later
    return (time.thread_time() - used) / (clock() - start + 0.01)


def _wire(call: Call, address: tuple[str, int]) -> bytes:
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    length = {} if call.body is None else {"Content-Length": len(call.body)}
    fields = {"Host": f"{host}:{address[1]}", **call.headers, **length}
    lines = [f"{call.method} {call.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1") + (call.body or b"")


async def _exchange(reader: StreamReader, writer: StreamWriter, wire: bytes, method: str) -> tuple[int, bytes]:
    """Status and body; EOFError where the connection ends too early, ValueError for what is not HTTP."""
    writer.write(wire)
    status, body = 100, b""
    while status < 200:  # interim answers come before the real one
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1."):
            raise ValueError(f"found an answer that begins {head[:20]!r}, expected HTTP/1.1")
        status = int(head[9:12])
    length, connection = _header(head, b"content-length"), _header(head, b"connection")
    bare = method == "HEAD" or status in (204, 304)
    if not bare and b"chunked" in _header(head, b"transfer-encoding"):
        while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass  # trailers
    elif not bare:
        body = await (reader.readexactly(int(length)) if length else reader.read())
    if b"close" in connection or (head.startswith(b"http/1.0") and b"keep-alive" not in connection):
        writer.close()
    return status, body


def _header(head: bytes, name: bytes) -> bytes:
    """A header's value, of a head in lower case; empty where it is absent."""
    return head.partition(b"\r\n" + name + b":")[2].partition(b"\r\n")[0].strip()


def plot(path: str | Path, outcomes: Mapping[str, Outcome]) -> None:
    """Draw latency over time, a panel a name, beside all curves of percentiles; a PNG."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as problem:
        raise ImportError("drawing a load needs matplotlib: pip install 'feedrank[plot]'") from problem
    style: Any = {
        "font.size": 9, "text.color": _INK, "axes.titlelocation": "left", "axes.titleweight": "bold",
        "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": _QUIET, "axes.labelcolor": _QUIET,
        "axes.grid": True, "axes.axisbelow": True, "grid.color": _FAINT, "xtick.color": _QUIET, "ytick.color": _QUIET,
    }  # fmt: skip
    with matplotlib.rc_context(style), atomic_write(Path(path)) as draft:
        figure = Figure((11, 1 + max(3.4, 2.2 * len(outcomes))), dpi=200, layout="constrained", facecolor="white")
        grid = figure.add_gridspec(len(outcomes), 2, width_ratios=(3, 2))
        curve = figure.add_subplot(grid[:, 1], xscale="log", yscale="log", title="percentiles; dotted: from the send")
        most = max(len(outcome.status) for outcome in outcomes.values())
        ticks = {at: f"{100 - 100 / at:.8g} %" for at in (2, *(10**nines for nines in range(1, 9))) if at <= most}
        curve.set(xticks=list(ticks), xticklabels=list(ticks.values()), xlabel="share of requests that are faster")
        curve.minorticks_off()
        for row, (name, outcome) in enumerate(outcomes.items()):
            hue, count, latency = _HUES[row % len(_HUES)], len(outcome.status), outcome.since(outcome.scheduled)
            slower = np.unique(np.geomspace(1, count, 1000).astype(int))
            for ms, look, label in ((latency, "-", name), (outcome.since(outcome.sent), ":", "_unnamed")):
                curve.plot(count / slower, np.sort(ms)[-slower], look, color=hue, label=label)
            panel = figure.add_subplot(grid[row, 0], sharey=curve, title=name, xlabel="seconds", ylabel="latency, ms")
            shown = np.union1d(np.arange(0, count, 1 + count // 20_000), np.argsort(latency)[-1000:])
            panel.scatter(outcome.scheduled[shown], latency[shown], s=4, alpha=0.3, color=hue, linewidth=0)
            parts = np.array_split(np.arange(count), min(max(count // 100, 1), 120))
            edges = [*(outcome.scheduled[part[0]] for part in parts), outcome.seconds]
            for share, width in ((0.5, 0.8), (0.99, 1.6)):
                heights = [np.sort(latency[part])[math.ceil(share * len(part)) - 1] for part in parts]
                label = f"p{100 * share:.0f} of {len(parts[0]):,}"
                panel.stairs(heights, edges, baseline=None, color=_INK, linewidth=width, label=label)
            failed, top = outcome.scheduled[outcome.status == 0], panel.get_xaxis_transform()
            panel.plot(failed, 0 * failed + 0.97, "|", color=_FAILED, transform=top, label=f"{len(failed):,} failed")
            panel.legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
        curve.yaxis.set_major_formatter("{x:,g}")
        curve.legend(frameon=False, loc="upper left")
        figure.savefig(draft, format="png", metadata={"Software": None})


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a load from the command line: print its table and, where asked, write its summary and its picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load")
    parser.add_argument("--url", required=True, help="where to, on loopback")
    for name, kind, default, what in (
        ("rate", float, 100.0, "requests per second"), ("seconds", float, 10.0, "how long to send"),
        ("connections", int, 64, "how many at most"), ("timeout", float, 30.0, "seconds until one is given up"),
        ("seed", int, 0, "of arrivals and users"), ("key", str, None, "API key"),
        ("json", Path, None, "write the summary to this file"), ("plot", Path, None, "draw a PNG"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, default=default, help=what)
    parser.add_argument("--arrivals", choices=("poisson", "even"), default="poisson")
    posted = parser.add_mutually_exclusive_group()
    posted.add_argument("--body", help="POST this JSON; without it and --users, GET")
    posted.add_argument("--users", type=int, help="POST random user ids from 1 to this")
    asked = parser.parse_args(arguments)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {asked.key}"} if asked.key else {})
    bodies = [asked.body.encode()] if asked.body else []
    url = urlsplit(asked.url)
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    try:
        if asked.users is not None:
            users = np.random.default_rng(asked.seed).integers(1, asked.users + 1, 100_000)
            bodies = [b'{"user": "%d"}' % user for user in users.tolist()]
        calls = [Call("POST", path, body, headers) for body in bodies] or [Call("GET", path, None, headers)]
        if url.scheme != "http":
            raise ValueError(f"found {asked.url!r}, expected http://127.0.0.1:PORT/PATH")
        how = {name: getattr(asked, name) for name in ("rate", "seconds", "connections", "arrivals", "seed", "timeout")}
        outcome = run(url.hostname or "", url.port or 80, lambda n: calls[n % len(calls)], **how)
    except ValueError as problem:
        parser.error(str(problem))
    console.print(outcome.table())
    if asked.json:
        with atomic_write(asked.json) as aside:
            aside.write_text(json.dumps({"url": asked.url, **outcome.as_dict()}, indent=1) + "\n")
    if asked.plot:
        plot(asked.plot, {f"{path} at {asked.rate:g}/s": outcome})


if __name__ == "__main__":
    main()
