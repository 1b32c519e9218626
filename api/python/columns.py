"""Maps the columns of a data frame to the parts of an event, by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_USER = ("user", "userid", "uid", "visitor", "visitorid", "customer", "customerid", "person", "personid", "member",
         "memberid", "account", "accountid", "reviewerid")  # fmt: skip
_ITEM = ("item", "itemid", "iid", "movie", "movieid", "product", "productid", "sku", "article", "articleid", "news",
         "newsid", "track", "trackid", "song", "songid", "book", "bookid", "isbn", "asin", "parentasin", "content",
         "contentid", "video", "videoid", "listing", "listingid", "doc", "docid")  # fmt: skip
_TIMESTAMP = ("timestamp", "time", "ts", "datetime", "date", "timestampms", "eventtime", "eventtimestamp", "createdat",
              "unixtime", "unixtimestamp", "epoch", "tdat", "at")  # fmt: skip
_SESSION = ("session", "sessionid", "usersession", "visit", "visitid")
_RANKING = ("ranking", "rankingid", "impressionid", "requestid", "slateid", "listid", "feedid", "searchid", "queryid")
_LABEL = ("label", "labels", "clicked", "isclicked", "click", "isclick", "clicks", "relevance", "relevancy")
_POSITION = ("position", "positions", "pos", "slot")
_PROPENSITY = ("propensity", "propensities", "propensityscore")

ALIASES: dict[str, dict[str, tuple[str, ...]]] = {
    "items": {
        "item": (*_ITEM, "id"),
        "timestamp": ("timestamp", "timestampms", "updatedat", "ts"),
        "title": ("title", "name", "headline", "movietitle", "itemname", "productname", "producttitle", "booktitle"),
        "text": ("text", "description", "abstract", "body", "summary", "overview", "itemdescription"),
        "category": ("category", "categories", "genre", "genres", "categoryid", "categorycode", "topic", "section"),
        "tags": ("tags", "tag", "keywords"),
        "published": ("published", "publishedat", "publishdate", "publicationdate", "releasedate", "createdat", "date"),
    },
    "users": {"user": (*_USER, "id"), "timestamp": ("timestamp", "timestampms", "updatedat", "ts")},
    "interactions": {
        "user": _USER,
        "item": _ITEM,
        "timestamp": _TIMESTAMP,
        "type": ("type", "event", "eventtype", "interaction", "interactiontype", "action", "actiontype", "behavior",
                 "behaviour", "behaviortype", "behaviourtype", "feedbacktype"),
        "value": ("value", "rating", "ratings", "stars", "score", "overall"),
        "ranking": _RANKING,
        "session": _SESSION,
        "dwell_ms": ("dwellms", "dwelltimems", "readtimems"),
        "position": _POSITION,
        "id": ("id", "eventid", "interactionid"),
    },
    "rankings": {
        "id": (*_RANKING, "id"),
        "items": ("items", "itemids", "products", "productids", "slate", "shown", "impressions", "candidates", "list",
                  "recommendations"),
        "item": _ITEM,
        "user": _USER,
        "timestamp": _TIMESTAMP,
        "session": _SESSION,
        "labels": _LABEL,
        "positions": _POSITION,
        "scores": ("score", "scores"),
        "propensities": _PROPENSITY,
        "surface": ("surface", "placement"),
    },
}  # fmt: skip
"""Frame -> part of an event -> names that its column may have, in order of preference: in lower case, letters and
digits only, so `userId`, `user_id` and `User ID` are one name."""

ColumnNames = Mapping[str, "str | Mapping[str, str | None] | None"]
"""Part -> column, or frame -> part -> column; None: no column is used for the part."""


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """Which column of a frame is which part of an event."""

    parts: Mapping[str, str]
    """Part -> column."""
    others: tuple[str, ...]
    """All other columns."""


def map_columns(frame: str, names: Sequence[str], given: Mapping[str, str | None] | None = None) -> ColumnMap:
    """Find the column of each part: the given one, or else the first whose name is known.

    frame: items, users, interactions or rankings. given: part -> column of this frame; None: no column.
    """
    given = given or {}
    free = [name for name in names if name not in given.values()]
    parts: dict[str, str] = {}
    for part, aliases in ALIASES[frame].items():
        if part in given:
            if (column := given[part]) is not None:
                parts[part] = column
            continue
        known = [name for alias in aliases for name in sorted(free, key=lambda name: name != part)
                 if _plain(name) == alias]  # fmt: skip
        if known:
            parts[part] = known[0]
            free.remove(known[0])
    used = set(parts.values())
    return ColumnMap(parts, tuple(name for name in names if name not in used))


def columns_by_frame(
    columns: ColumnNames | None, names: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, str | None]]:
    """Split the `columns` argument of `load` by frame.

    names: frame -> its column names. A part without a frame belongs to each frame that has the part and the column.
    Raises ValueError for an unknown part, and for a column that no frame has.
    """
    given: dict[str, dict[str, str | None]] = {frame: {} for frame in names}
    for key, value in (columns or {}).items():
        if isinstance(value, Mapping):
            if key not in names:
                raise ValueError(f"columns: found the frame {key!r}, expected one of {', '.join(names)}")
            for part, column in value.items():
                _check(part, column, {key: names[key]})
                given[key][part] = column
        else:
            for frame in _check(key, value, names):
                given[frame][key] = value
    return given


def _check(part: str, column: str | None, names: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the frames that have the part and the column; raises ValueError if there are none."""
    with_part = [frame for frame in names if part in ALIASES[frame]]
    if not with_part:
        known = "; ".join(f"{frame}: {', '.join(ALIASES[frame])}" for frame in names)
        raise ValueError(f"columns: found the part {part!r}, expected one of these. {known}")
    with_column = [frame for frame in with_part if column is None or column in names[frame]]
    if not with_column:
        found = "; ".join(f"{frame}: {', '.join(names[frame])}" for frame in with_part)
        raise ValueError(f"columns: {part!r} is to be the column {column!r}, which no frame has. Found {found}")
    return with_column


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
