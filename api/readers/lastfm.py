"""Read the Last.fm data sets: HetRec 2011 (user_artists.dat) and 1K (userid-timestamp-artid-artname-traid-traname.tsv).

Cantador et al., HetRec 2011; Celma, Music Recommendation and Discovery in the Long Tail, 2010.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from feedrank.api.readers import layouts, synthetic_times
from feedrank.api.readers.folders import Folder, open_files
from feedrank.api.readers.import_options import DEFAULTS, ImportOptions
from feedrank.api.readers.layouts import Layout, Row
from feedrank.api.readers.rejects import Rejects
from feedrank.api.readers.tag_history import GivenTag, tag_events
from feedrank.engine.events.events import Event

_LISTEN_COLUMNS = ("user", "timestamp", "artist_id", "artist", "track_id", "track")
_PROFILE_COLUMNS = {"#id": "user", "gender": "gender", "age": "age", "country": "country", "registered": "registered"}


def _listens() -> Callable[[Row], Iterator[Row]]:
    described: set[str] = set()

    def convert(row: Row) -> Iterator[Row]:
        artist, track = str(row["artist"]), str(row["track"])
        item = row["track_id"] or f"{artist} - {track}"  # many tracks have no id
        if item not in described:
            described.add(item)
            yield {"event": "item", "item": item, "title": track, "artist": artist, "category": [artist]}
        yield {"user": row["user"], "item": item, "timestamp": row["timestamp"]}

    return convert


def _counts(rejects: Rejects) -> Callable[[Row], Iterator[Row]]:
    def convert(row: Row) -> Iterator[Row]:
        rejects.tally(synthetic_times.NOTE)
        yield {**row, "timestamp": synthetic_times.random_ms(str(row["user"]), str(row["item"]))}

    return convert


ARTISTS = Layout(
    "item", {"id": "item", "name": "title", "url": "url", "pictureURL": "picture"}, ("artists.dat",), separator="\t"
)
TAGS = Layout("item", {"tagID": "id", "tagValue": "tag"}, ("tags.dat",), separator="\t", encoding="latin-1")
GIVEN_TAGS = Layout(
    "item",
    {"userID": "user", "artistID": "item", "tagID": "tag", "timestamp": "timestamp"},
    ("user_taggedartists-timestamps.dat",),
    separator="\t",
)
USER_ARTISTS = {"userID": "user", "artistID": "item", "weight": "value"}
PROFILES = Layout("user", _PROFILE_COLUMNS, ("userid-profile.tsv",), separator="\t")
LISTENS = Layout(
    "interaction",
    {},
    ("userid-timestamp-artid-artname-traid-traname*.tsv",),
    header=_LISTEN_COLUMNS,
    separator="\t",
    constants={"type": "listen"},
    converter=_listens,
)


def _plays(rejects: Rejects) -> Layout:
    return Layout(
        "interaction", USER_ARTISTS, ("user_artists.dat",), separator="\t", constants={"type": "listen"},
        converter=lambda: _counts(rejects),
    )  # fmt: skip


def is_lastfm(folder: Folder) -> bool:
    """Return whether a folder, or a single file, is one of the two data sets."""
    return layouts.has_files(folder, (_plays(Rejects()), LISTENS, GIVEN_TAGS))


def read_events(path: Path, rejects: Rejects, options: ImportOptions = DEFAULTS) -> Iterator[Event]:
    """Read artists or tracks, users, tags and listens, from a folder, a zip or one file.

    1K: a listen is an interaction of type `listen` with a track, whose item event comes before its first listen. HetRec
    2011: the weight (how often a user listened to an artist) is the value of one `listen` at a synthetic timestamp,
    because the file has no times. Tags become the artists' tags as of the time at which they were given.
    """
    tables = (ARTISTS, PROFILES, LISTENS, _plays(rejects))
    with open_files(path) as folder:
        if layouts.has_files(folder, tables) or not layouts.has_files(folder, (GIVEN_TAGS,)):
            yield from layouts.read_layouts(path, tables, rejects, options)
        yield from _tags(folder, rejects, options)


def _tags(folder: Folder, rejects: Rejects, options: ImportOptions) -> Iterator[Event]:
    names = {
        row["id"]: row["tag"]
        for name in folder.match("tags.dat")
        for _, _, row in layouts.rows(folder, name, TAGS, rejects, options)
    }
    given: list[GivenTag] = []
    for name in folder.match(GIVEN_TAGS.files[0]):
        for number, text, row in layouts.rows(folder, name, GIVEN_TAGS, rejects, options):
            tag, time = names.get(row["tag"]), row["timestamp"]
            if tag is None or not time.isdigit():
                reason = (
                    f"timestamp: found {time!r}, expected milliseconds" if tag else f"tag {row['tag']!r} has no name"
                )
                rejects.reject(folder.source(name), number, reason, text)
                continue
            rejects.accept()  # without its number, as the events come in another order
            given.append(GivenTag(int(time), row["item"], tag))
    yield from tag_events(given)
