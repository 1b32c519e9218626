"""Sixty files as spreadsheets, databases and loggers write them, each with what is right to read from it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field

T0 = 1_750_000_000_000
"""2025-06-15 15:06:40 UTC in epoch milliseconds."""
DAY = 1_600_560_000_000
"""2020-09-20 UTC."""


@dataclass(frozen=True, slots=True)
class OddFile:
    """A file, and the events that it holds: all of them are read, or, with none given, it is refused with words."""

    name: str
    data: bytes
    rows: tuple[tuple[object, ...], ...] | None
    """(item, title), (item, title, category) or (user, item, epoch ms, type, value), by the length; None: refused."""
    options: tuple[str, ...] = ()
    said: str = ""
    """Text that the output must have."""
    rejected: int = 0
    """Lines that are rejected, with a reason."""
    suffix: str = ".csv"
    fields: Mapping[str, object] = field(default_factory=dict)
    """Other fields that the last item event has."""


ITEMS = (("1", "Café"), ("2", "Plain"))
CLICKS = (("u1", "1", T0, "click", None), ("u2", "2", T0 + 1, "click", None))
_HEAD = "user,item,timestamp\n"


def _text(text: str, encoding: str = "utf-8") -> bytes:
    return text.encode(encoding)


def _items(separator: str, end: str = "\n", head: str = "") -> str:
    return head + end.join(separator.join(row) for row in (("id", "title"), *ITEMS)) + end


def _clicks(*times: object, head: str = _HEAD) -> str:
    return head + "".join(f"u{n + 1},{n + 1},{time}\n" for n, time in enumerate(times))


def _at(*times: int) -> tuple[tuple[object, ...], ...]:
    return tuple((f"u{n + 1}", str(n + 1), time, "click", None) for n, time in enumerate(times))


def _lines(*bodies: object) -> bytes:
    return "".join(json.dumps(body) + "\n" for body in bodies).encode()


def _zipped(name: str, data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, data)
    return stream.getvalue()


def _item(**parts: object) -> dict[str, object]:
    return {"event": "item", "id": "e1", "timestamp": 0, "item": "1", **parts}


def _click(**parts: object) -> dict[str, object]:
    body = {"event": "interaction", "id": "c1", "timestamp": T0, "item": "1", "type": "click", "user": "u1", **parts}
    return {name: value for name, value in body.items() if value is not ...}


def encodings() -> list[OddFile]:
    """Files in other encodings, with other line ends, compressed."""
    plain = _text(_items(","))
    ascii_items = (("1", "Un"), ("2", "Plain"))
    mac = "id,title\r1,Un\r2,Plain\r"
    return [
        OddFile("UTF-8 with a mark", _text(_items(","), "utf-8-sig"), ITEMS),
        OddFile("UTF-16 with a mark", _text(_items(","), "utf-16"), ITEMS),
        OddFile("UTF-16 big-endian with a mark", b"\xfe\xff" + _text(_items(","), "utf-16-be"), ITEMS),
        OddFile("UTF-16 without a mark", _text(_items(","), "utf-16-le"), ITEMS),
        OddFile("UTF-16 with tabs, Excel's Unicode text", _text(_items("\t", "\r\n"), "utf-16"), ITEMS),
        OddFile("UTF-32", _text(_items(","), "utf-32"), ITEMS),
        OddFile("cp1252", _text(_items(","), "cp1252"), ITEMS, said="cp1252"),
        OddFile("cp1252, said", _text(_items(","), "cp1252"), ITEMS, ("--encoding", "cp1252")),
        OddFile("cp1251, said", _text("id,title\n1,Привет\n", "cp1251"), (("1", "Привет"),), ("--encoding", "cp1251")),
        OddFile("cp1251", _text("id,title\n1,Привет\n", "cp1251"), None, said="--encoding"),
        OddFile("Shift-JIS, said", _text("id,title\n1,日本\n", "shift-jis"), (("1", "日本"),),
                ("--encoding", "shift-jis")),
        OddFile("Shift-JIS", _text("id,title\n1,日本語の本\n", "shift-jis"), None, said="--encoding"),
        OddFile("one damaged line in UTF-8", _text("id,title\n1,Café\n2,") + b"\xe9\n", ITEMS[:1], said="not utf-8",
                rejected=1),
        OddFile("a NUL byte", b"id,title\n1,Un\n2,a\0b\n", ascii_items[:1], said="NUL", rejected=1),
        OddFile("CR LF", _text(_items(",", "\r\n")), ITEMS),
        OddFile("CR only", mac.encode(), ascii_items),
        OddFile("gzip", gzip.compress(plain), ITEMS, suffix=".csv.gz"),
        OddFile("bzip2", bz2.compress(plain), ITEMS, suffix=".csv.bz2"),
        OddFile("xz", lzma.compress(plain), ITEMS, suffix=".csv.xz"),
        OddFile("zip", _zipped("items.csv", plain), ITEMS, suffix=".zip"),
        OddFile("gzip, cut short", gzip.compress(plain * 50)[:-20], ITEMS, said="cut short", suffix=".csv.gz",
                rejected=1),
    ]  # fmt: skip


def separators() -> list[OddFile]:
    """Tables with other separators, quotes and headers."""
    quoted = 'id,title\r\n1,"He said ""hi""\r\nand left"\r\n2,Two\r\n'
    un = (("1", "Un"),)
    return [
        OddFile("sep= of Excel", b"sep=;\r\nid;title\r\n1;Un\r\n", un),
        OddFile("semicolons", _text(_items(";")), ITEMS),
        OddFile("tabs", _text(_items("\t")), ITEMS),
        OddFile("tabs in .tsv", _text(_items("\t")), ITEMS, suffix=".tsv"),
        OddFile("pipes", _text(_items("|")), ITEMS),
        OddFile("two colons, said", _text(_items("::")), ITEMS, ("--separator", "::")),
        OddFile("semicolons, commas in the text", b"id;title\n1;Un, deux\n", (("1", "Un, deux"),)),
        OddFile("a line break in quotes", quoted.encode(), (("1", 'He said "hi"\nand left'), ("2", "Two"))),
        OddFile("blanks after commas", b'id, title\n1, "Un, deux"\n', (("1", "Un, deux"),)),
        OddFile("quoted header", b'"id","title"\n"1","Un"\n', un),
        OddFile("blanks in the header", b" id , title \n1,Un\n", un),
        OddFile("capital letters in the header", b"ID,Title\n1,Un\n", un, said="'Title'"),
        OddFile("a header name twice", b"id,title,title\n1,Un,Deux\n", None, said="more than once"),
        OddFile("no header", b"1,Un\n2,Deux\n", None, said="found the columns"),
        OddFile("header only", b"id,title\n", None, said="no events"),
        OddFile("empty", b"", None, said="no events"),
        OddFile("header repeated", b"id,title\n1,Un\nid,title\n2,Plain\n", (("1", "Un"), ("2", "Plain")),
                said="repeated"),
        OddFile("blank lines", b"\n\nid,title\n\n1,Un\n\n", un),
        OddFile("comment lines", b"# made by a tool\nid,title\n1,Un\n", un, said="comment"),
        OddFile("trailing commas", b"id,title,\n1,Un,\n", un),
        OddFile("trailing commas of rows only", b"id,title\n1,Un,,\n,,,\n", un),
        OddFile("a row too short", b"id,title,category\n1,Un\n2,Deux,x\n", (("2", "Deux", "x"),), rejected=1,
                said="columns"),
        OddFile("a quote that is not closed",
                b'id,title\n1,"Un\n2,Plain\n', (("2", "Plain"),), rejected=1, said="quote"),
        OddFile("quotes within quotes, not doubled", b'id,title\n1,"a "b" c"\n2,Plain\n', (("2", "Plain"),),
                rejected=1, said="not CSV"),
        OddFile("decimal commas", b"user;item;timestamp;type;value\nu1;1;1750000000000;rating;4,5\n",
                (("u1", "1", T0, "rating", 4.5),), said="decimal comma"),
        OddFile("thousands",
                b'user,item,timestamp,type,value\nu1,1,1750000000000,buy,"1,250"\nu2,2,1750000000001,buy,3\n',
                (("u2", "2", T0 + 1, "buy", 3.0),), rejected=1, said="expected a number"),
        OddFile("names of its own, said", b"visitorid,itemid,event,ts\nu1,1,view,1750000000000\n",
                (("u1", "1", T0, "view", None),),
                ("--map", "visitorid=user,itemid=item,ts=timestamp", "--type-column", "event")),
        OddFile("names of its own", b"visitorid,itemid,event,ts\nu1,1,view,1750000000000\n", None, said="found"),
    ]  # fmt: skip


def times() -> list[OddFile]:
    """Times in other units and forms."""
    berlin = ("--zone", "Europe/Berlin")
    go = ("2024-03-03 09:00:00 +0000 UTC", "2024-03-03 09:00:01.5 +0000 UTC")
    t = 1_709_456_400_000
    return [
        OddFile("seconds", _text(_clicks(1750000000, 1750000001)), None, said="--time-unit s"),
        OddFile("seconds, said", _text(_clicks(1750000000, 1750000001)), _at(T0, T0 + 1000), ("--time-unit", "s")),
        OddFile("seconds, auto", _text(_clicks(1750000000, "1750000001.5")), _at(T0, T0 + 1500), ("--time-unit",
                "auto"), "seconds"),
        OddFile("microseconds", _text(_clicks(1750000000000000)), None, said="--time-unit us"),
        OddFile("nanoseconds, auto", _text(_clicks(1750000000123456789)), _at(T0 + 123), ("--time-unit", "auto"),
                "nanoseconds"),
        OddFile("a late row in another unit", _text(_clicks(T0, T0 + 1, 1750000000)), CLICKS, rejected=1, said="1990"),
        OddFile("bare dates", _text(_clicks("2020-09-20")), _at(DAY), said="start of the day in UTC"),
        OddFile("bare dates in a zone", _text(_clicks("2020-09-20")), _at(DAY - 7_200_000), berlin, "Europe/Berlin"),
        OddFile("compact dates", _text(_clicks(20200920, 20200921)), _at(DAY, DAY + 86_400_000), said="compact dates"),
        OddFile("compact dates, floats of pandas", _text(_clicks("20200920.0", "20200921.0")),
                _at(DAY, DAY + 86_400_000), said="compact dates"),
        OddFile("years, floats of pandas", b"id,title,published\n1,A,1999.0\n2,B,\n3,C,2004.0\n",
                (("1", "A"), ("2", "B"), ("3", "C")), said="years", fields={"published": 1_072_915_200_000.0}),
        OddFile("compact dates of publication, floats of pandas",
                b"id,title,published\n1,A,20200921.0\n2,B,\n3,C,20200920.0\n",
                (("1", "A"), ("2", "B"), ("3", "C")), said="compact dates", fields={"published": float(DAY)}),
        OddFile("days of Excel", _text(_clicks("44094.5")), _at(DAY + 43_200_000), said="Excel"),
        OddFile("Go's times", _text(_clicks(*go)), _at(t, t + 1500)),
        OddFile("RFC 2822", _text(_clicks('"Sun, 03 Mar 2024 09:00:00 +0000"')), _at(t)),
        OddFile("no zone", _text(_clicks("2024-03-03 09:00:00")), None, said="--zone"),
        OddFile("no zone, said", _text(_clicks("2024-03-03 10:00:00")), _at(t), berlin, "Europe/Berlin"),
        OddFile("digits cut by a spreadsheet", _text(_clicks("1.75E+12")), None, said="spreadsheet"),
        OddFile("floats of pandas", _text(_clicks("1750000000000.0")), _at(T0)),
        OddFile("one of the year 9999", _text(_clicks(T0, T0 + 1, 253402300799000)), CLICKS, rejected=1,
                said="more than a day after now"),
        OddFile("all in the future", _text(_clicks(4000000000000, 4000000000001)), None, said="times can't be right"),
    ]  # fmt: skip


def ids() -> list[OddFile]:
    """Ids and values that are missing, and numbers that stand for ids."""
    words = ("NaN", "None", "null", r"\N", "NA", "undefined", "")
    nobody = tuple((None, "1", T0 + n, "click", None) for n in range(len(words)))
    missing = _HEAD + "".join(f"{word},1,{T0 + n}\n" for n, word in enumerate(words))
    apart = _HEAD + "".join(f"{user},1,{T0 + n}\n" for n, user in enumerate(("007", "7", "1e5", "100000")))
    versions = ("1.0", "1.5", "2.0")
    null = _item(fields=[{"name": "title", "value": "T"}, {"name": "brand", "value": None}])
    codes = _item(fields=[{"name": "title", "value": "T"}, {"name": "category", "value": 101}])
    return [
        OddFile("floats of pandas as ids", _text(_HEAD + f"1.0,1.0,{T0}\n,2.0,{T0 + 1}\n"),
                (("1", "1", T0, "click", None), (None, "2", T0 + 1, "click", None)), said="pandas"),
        OddFile("versions as ids", _text("id,title\n" + "".join(f"{v},T\n" for v in versions)), tuple((v,
                "T") for v in versions)),
        OddFile("words for missing users", _text(missing), nobody, said="missing"),
        OddFile("ids that stay apart", _text(apart), tuple((u, "1", T0 + n, "click", None) for n,
                u in enumerate(("007", "7", "1e5", "100000")))),
        OddFile("a missing item", _text(_HEAD + f"u1,1,{T0}\nu2,NaN,{T0 + 1}\n"), CLICKS[:1], rejected=1,
                said="item: found nothing"),
        OddFile("equal rows", _text(_HEAD + f"u1,1,{T0}\nu1,1,{T0}\n"), (CLICKS[0], CLICKS[0]), said="equal"),
        OddFile("an id of 300 characters", _text(f"id,title\n{'x' * 300},Long\n1,Un\n"), (("1", "Un"),), rejected=1,
                said="at most 256"),
        OddFile("null fields", _lines(null), (("1", "T"),), suffix=".jsonl"),
        OddFile("null parts", _lines(_click(user=None, value=None, ranking=None)), ((None, "1", T0, "click", None),),
                suffix=".jsonl"),
        OddFile("NaN in JSON", _lines(_click(value=float("nan"))), CLICKS[:1], suffix=".jsonl"),
        OddFile("whole floats in JSON", _lines(_click(item=1.0, user=5.0)), (("5", "1", T0, "click", None),),
                suffix=".jsonl"),
        OddFile("a number as category", _lines(codes), (("1", "T", "101"),), suffix=".jsonl"),
        OddFile("seconds in JSON", _lines(_click(timestamp=1750000000)), None, said="--time-unit s", suffix=".jsonl"),
        OddFile("rows in JSON", _lines({"user": "u1", "item": 1, "timestamp": T0}), CLICKS[:1], suffix=".jsonl"),
        OddFile("nested values", _lines(_item(fields=[{"name": "a", "value": {"b": 1}}]), _item(id="e2", item="2",
                fields=[{"name": "title", "value": "U"}])),
                (("2", "U"),), rejected=1, said="fields[0].value", suffix=".jsonl"),
        OddFile("text in a file named .parquet", b"id,title\n1,Un\n", None, said="Parquet", suffix=".parquet"),
    ]  # fmt: skip


def odd_files() -> list[OddFile]:
    """Return all files."""
    return [*encodings(), *separators(), *times(), *ids()]
