"""Small files in the layouts in which other systems and public data sets export their data, and what they say.

The records are made up; names of files, columns, keys, separators, encodings and times are those of the sources.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feedrank.api.readers import Rejects, guess_format, read_events
from feedrank.engine.events.codec import to_dict
from feedrank.engine.events.events import Event, RankingEvent

KINDS = ("item", "user", "ranking", "interaction")


@dataclass(frozen=True, slots=True)
class Export:
    """The files of one export, and the events that they hold."""

    name: str
    format: str
    files: Mapping[str, str | bytes]
    """File name -> content. One file is imported by itself, several as a folder."""
    counts: tuple[int, int, int, int]
    """Items, users, rankings and interactions, each an event of its own."""
    events: tuple[Mapping[str, Any], ...]
    """Parts that one of the events must have; `fields` is a dict of all its fields."""
    rejected: int = 0
    tallies: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """Sentences that must be among those about how it was read."""

    def write(self, folder: Path) -> Path:
        """Write the files into a new folder; return the path to import."""
        folder.mkdir(parents=True)
        for name, content in self.files.items():
            data = content.encode() if isinstance(content, str) else content
            (folder / name).write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
        return folder / next(iter(self.files)) if len(self.files) == 1 else folder

    def faults(self, path: Path) -> list[str]:
        """Import the path without being told its format; return what differs from the export, in sentences."""
        found = guess_format(path)
        if found != self.format:
            return [f"guessed {found}, expected {self.format}"]
        rejects = Rejects()
        bodies = [_body(event) for event in read_events(path, rejects)]
        counts = tuple(len({body["id"] for body in bodies if body["event"] == kind}) for kind in KINDS)
        faults = [] if counts == self.counts else [f"found {counts} events, expected {self.counts}"]
        if rejects.rejected != self.rejected:
            faults.append(f"rejected {rejects.rejected} ({rejects.reasons()}), expected {self.rejected}")
        tallies = {what.replace(str(path), "FOLDER"): count for what, count in rejects.tallies.items()}
        if tallies != dict(self.tallies):
            faults.append(f"found the tallies {tallies}, expected {dict(self.tallies)}")
        notes = [note.replace(str(path), "FOLDER") for note in rejects.notes]
        faults += [f"found no note {note!r} in {notes}" for note in self.notes if note not in notes]
        missing = [wanted for wanted in self.events if not any(_has(body, wanted) for body in bodies)]
        return faults + [f"found no event {dict(wanted)}" for wanted in missing]


def _has(body: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(body.get(part) == value for part, value in wanted.items())


def _body(event: Event) -> dict[str, Any]:
    body = to_dict(event)
    if "fields" in body or body["event"] in ("item", "user"):
        body["fields"] = {entry["name"]: entry["value"] for entry in body.get("fields", ())}
    if isinstance(event, RankingEvent):
        body |= {"items": list(event.items), "labels": list(event.labels or ()), "item_fields": event.item_fields}
    return body


def _lines(*bodies: Any) -> str:
    return "".join(json.dumps(body, separators=(",", ":")) + "\n" for body in bodies)


_GO_TIME = "2020-01-01 01:01:01.000000001 +0000 UTC"
_GORSE = (
    Export(
        "gorse's export of items, CSV", "gorse",
        {"items.csv": "item_id,is_hidden,categories,time_stamp,labels,description\r\n"
         f'1,false,x,{_GO_TIME},"{{""genre"":[""comedy"",""sci-fi""]}}","o,n,e"\r\n'
         f'2,false,x|y,{_GO_TIME},b|c,"t\r\nw\r\no"\r\n3,true,,2021-01-01 00:00:00 +0000 UTC,null,"""three"""\r\n'},
        (3, 0, 0, 0),
        (
            {"item": "1", "timestamp": 1577840461000,
             "fields": {"title": "o,n,e", "category": ["x"], "genre": ["comedy", "sci-fi"], "removed": False}},
            {"item": "2", "fields": {"title": "t\nw\no", "category": ["x", "y"], "tags": ["b", "c"], "removed": False}},
            {"item": "3", "fields": {"title": '"three"', "removed": True}},
        ),
    ),
    Export(
        "gorse's export of feedback, CSV", "gorse",
        {"feedback.csv": "feedback_type,user_id,item_id,time_stamp\r\nclick,0,2,2024-03-03 09:00:00 +0000 UTC\r\n"
         "read,2,6,2024-03-03 09:00:00 +0000 UTC\r\nshare,1,4,0001-01-01 00:00:00 +0000 UTC\r\n"},
        (0, 0, 0, 2),
        ({"type": "click", "user": "0", "item": "2", "timestamp": 1709456400000},
         {"type": "read", "user": "2", "item": "6"}),
        rejected=1,
    ),
    Export(
        "gorse's export of items, JSON lines", "gorse",
        {"items.jsonl": _lines(
            {"ItemId": "1", "IsHidden": False, "Categories": ["x"], "Timestamp": "2022-01-01T01:01:01.5Z",
             "Labels": {"size": {"width": 3}, "tags": ["a"], "vector": [0.5, 1]}, "Comment": "lamp"},
            {"ItemId": "2", "IsHidden": True, "Categories": None, "Timestamp": "0001-01-01T00:00:00Z", "Labels": None,
             "Comment": ""})},
        (2, 0, 0, 0),
        (
            {"item": "1", "timestamp": 1640998861500,
             "fields": {"title": "lamp", "category": ["x"], "size.width": 3.0, "tags": ["a"], "vector": [0.5, 1.0],
                        "removed": False}},
            {"item": "2", "timestamp": 0, "fields": {"removed": True}},
        ),
    ),
    Export(
        "gorse's export of feedback, JSON lines", "gorse",
        {"feedback.jsonl": _lines(
            {"FeedbackType": "star", "UserId": "u", "ItemId": "1", "Value": 4.5, "Timestamp": "2024-03-03T09:00:00Z",
             "Updated": "0001-01-01T00:00:00Z", "Labels": None, "Comment": "good"})},
        (0, 0, 0, 1),
        ({"type": "star", "user": "u", "item": "1", "value": 4.5, "fields": {"comment": "good"}},),
    ),
    Export(
        "gorse's export of users, JSON lines", "gorse",
        {"users.jsonl": _lines({"UserId": "u", "Labels": {"gender": "f"}, "Comment": "c"})},
        (0, 1, 0, 0),
        ({"user": "u", "fields": {"gender": "f", "comment": "c"}},),
    ),
    Export(
        "gorse's REST API, a page", "gorse",
        {"feedback.json": json.dumps({"Cursor": "x", "Feedback": [
            {"FeedbackType": "like", "UserId": "u", "ItemId": "1", "Timestamp": "2024-03-03T09:00:00Z", "Comment": ""},
            {"FeedbackType": "like", "UserId": "v", "ItemId": "1", "Timestamp": "2024-03-03T09:00:00Z", "Comment": ""},
        ]})},
        (0, 0, 0, 2),
        ({"type": "like", "user": "v", "item": "1"},),
    ),
)  # fmt: skip


def _ubi_query(hits: list[str], second: int, **parts: Any) -> dict[str, Any]:
    return {
        "application": "shop", "query_id": "q1", "client_id": "c1", "user_query": "lamp", "query_attributes": {},
        "timestamp": f"2025-06-15T10:00:{second:02}.000Z", "query_response_id": f"r{second}",
        "query_response_hit_ids": hits, **parts,
    }  # fmt: skip


def _ubi_event(action: str, second: int, target: Mapping[str, Any] | None, **parts: Any) -> dict[str, Any]:
    attributes = None if target is None else {"object": target, "position": {"ordinal": 2, "x": 7}, "dwell_time": 1.5}
    return {
        "application": "shop", "action_name": action, "query_id": "q1", "session_id": "s1", "client_id": "c1",
        "user_id": "", "timestamp": f"2025-06-15T10:00:{second:02}.000Z", "user_query": "lamp", "message_type": None,
        "message": None, "event_attributes": attributes, **parts,
    }  # fmt: skip


_UBI_QUERIES = (
    _ubi_query(["d4", "d5", "d6"], 20, user_query="lamps", query_attributes={"page": 2}),
    _ubi_query(["d1", "d2", "d3"], 5),
    _ubi_query([], 1),
    _ubi_query(["d1"], 30, query_id="q2", client_id="c2"),
)
_UBI_EVENTS = (
    _ubi_event("impression", 5, {"object_id": "d1", "object_id_field": "asin"}),
    _ubi_event("click", 25, {"object_id": "d5", "object_id_field": "asin"}),
    _ubi_event("click", 2, {"object_id": "d1", "object_id_field": "asin"}),  # by a client whose clock is behind
    _ubi_event("add_to_cart", 26, {"object_id": "SKU-6", "object_id_field": "sku", "internal_id": "d6"}),
    _ubi_event("click", 6, {"object_id": "SKU-77", "object_id_field": "sku"}),
    _ubi_event("click", 27, {"object_id": "d9", "object_id_field": "asin"}),
    _ubi_event("click", 31, {"object_id": "d1"}, query_id="q2", client_id="c2", user_id="ann"),
    _ubi_event("click", 33, {"object_id": "d1"}, query_id="q3"),
    _ubi_event("click", 34, {"object_id": "d2"}, query_id=None),
    _ubi_event("search", 0, None),
)
_UBI_FIELDS = {"position.x": 7.0, "dwell_time": 1.5}
_UBI_FOUND = (
    {"event": "ranking", "id": "q1", "items": ["d1", "d2", "d3"], "user": "c1", "session": "s1"},
    {"event": "ranking", "id": "q1:2", "items": ["d4", "d5", "d6"], "user": "c1", "session": "s1",
     "fields": {"query": "lamps", "application": "shop", "page": 2.0}},
    {"event": "ranking", "id": "q2", "items": ["d1"], "user": "ann", "session": "s1"},
    {"type": "impression", "item": "d1", "ranking": "q1", "position": 2, "fields": _UBI_FIELDS, "session": "s1"},
    {"type": "click", "item": "d5", "ranking": "q1:2", "user": "c1"},
    {"type": "click", "item": "d1", "ranking": "q1", "timestamp": 1749981602000},
    {"type": "add_to_cart", "item": "d6", "ranking": "q1:2"},
    {"type": "click", "item": "d9", "ranking": "q1"},
    {"type": "click", "item": "d1", "ranking": "q2", "user": "ann", "fields": {**_UBI_FIELDS, "client_id": "c2"}},
    {"type": "click", "item": "d1", "ranking": "q3"},
    {"type": "click", "item": "d2", "user": "c1"},
)  # fmt: skip
_UBI_TALLIES = {
    "events of an item that no list of their query showed": 1,
    "events of a query without a list: import queries before events": 1,
}


def _ubi_bulk() -> str:
    bodies = [({"index": {"_index": "ubi_events", "_id": str(n)}}, body) for n, body in enumerate(_UBI_EVENTS)]
    bodies += [({"index": {"_index": "ubi_queries", "_id": f"q{n}"}}, body) for n, body in enumerate(_UBI_QUERIES)]
    return _lines(*(line for pair in bodies for line in pair))


def _ubi_response(*bodies: Any) -> str:
    hits = [{"_index": "ubi", "_id": str(n), "_score": 1.0, "_source": body} for n, body in enumerate(bodies)]
    return json.dumps({"took": 3, "timed_out": False, "hits": {"total": {"value": len(hits)}, "hits": hits}}, indent=1)


_UBI = (
    Export("UBI, a bulk file", "ubi", {"ubi.ndjson.gz": _ubi_bulk()}, (0, 0, 3, 8), _UBI_FOUND, 3, _UBI_TALLIES),
    Export(
        "UBI, two files", "ubi",
        {"ubi_events.ndjson": _lines(*_UBI_EVENTS), "ubi_queries.ndjson": _lines(*_UBI_QUERIES)},
        (0, 0, 3, 8), _UBI_FOUND, 3, _UBI_TALLIES,
    ),
    Export(
        "UBI, search responses", "ubi",
        {"events.json": _ubi_response(*_UBI_EVENTS), "queries.json": _ubi_response(*_UBI_QUERIES)},
        (0, 0, 3, 8), _UBI_FOUND, 3, _UBI_TALLIES,
    ),
)  # fmt: skip

_SYNTHETIC = "interactions with a synthetic timestamp, because the file has no times"
_MOVIELENS = (
    Export(
        "MovieLens 1M", "movielens",
        {"movies.dat": "1::Alpha (1995)::Animation|Children's\n2::Café Nord: 2 (1996)::Drama\n".encode("latin-1"),
         "ratings.dat": "1::1::5::978300760\n6040::2::3::956703932\n",
         "users.dat": "1::F::1::10::48067\n6040::M::25::6::11106\n"},
        (2, 2, 0, 2),
        (
            {"item": "2", "fields": {"title": "Café Nord: 2 (1996)", "category": ["Drama"]}},
            {"user": "1", "fields": {"gender": "F", "age": 1.0, "occupation": "K-12 student", "zip": "48067"}},
            {"user": "6040", "item": "2", "type": "rating", "value": 3.0, "timestamp": 956703932000},
        ),
    ),
    Export(
        "MovieLens 10M", "movielens",
        {"movies.dat": "1::Alpha (1995)::(no genres listed)\n2::Café Nord (1996)::IMAX|Sci-Fi\n",
         "ratings.dat": "1::1::4.5::838985046\n", "tags.dat": "15::1::pixar::1215184630\n"},
        (2, 0, 0, 1),
        ({"item": "2", "fields": {"title": "Café Nord (1996)", "category": ["IMAX", "Sci-Fi"]}},
         {"item": "1", "value": 4.5}),
        notes=("tags of FOLDER/tags.dat were not read; import that file by itself to add them",),
    ),
    Export(
        "MovieLens 25M, tags", "movielens",
        {"tags.csv": 'userId,movieId,tag,timestamp\r\n4,1,"slow, sad",1573943455\r\n3,1,classic,1439472355\r\n'
         "5,1,Classic,1573943460\r\n"},
        (2, 0, 0, 0),
        ({"item": "1", "timestamp": 1439472355000, "fields": {"tags": ["classic"]}},
         {"item": "1", "timestamp": 1573943455000, "fields": {"tags": ["classic", "slow, sad"]}}),
    ),
)  # fmt: skip

_RECBOLE = (
    Export(
        "RecBole's atomic files, ml-1m", "recbole",
        {"ml-1m.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t1193\t5\t978300760\n",
         "ml-1m.item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tgenre:token_seq\n"
         "1193\tOne Flew Over\t1975\tDrama Children's\n661\tA Peach\t\t\n",
         "ml-1m.user": "user_id:token\tage:float\tgender:token\toccupation:token\tzip_code:token\n"
         "1\t1\tF\t10\t48067\n"},
        (2, 1, 0, 1),
        (
            {"user": "1", "item": "1193", "type": "rating", "value": 5.0, "timestamp": 978300760000},
            {"item": "1193", "fields": {"title": "One Flew Over", "release_year": "1975",
                                        "category": ["Drama", "Children's"]}},
            {"item": "661", "fields": {"title": "A Peach"}},
            {"user": "1", "fields": {"age": 1.0, "gender": "F", "occupation": "10", "zip_code": "48067"}},
        ),
    ),
    Export(
        "RecBole's atomic files, yelp", "recbole",
        {"yelp.inter": "review_id:token\tuser_id:token\tbusiness_id:token\tstars:float\tlabel:float\ttimestamp:float\n"
         "r1\tu1\tb1\t4.0\t1\t1430000000.0\nr2\tu1\tb2\t1.0\t0\t1430000001.0\n",
         "yelp.item": "business_id:token\titem_name:token_seq\tcategories:token_seq\tlatlng:float_seq\n"
         "b1\tJoe's\tFood Bars\t1.5 2\n"},
        (1, 0, 0, 2),
        (
            {"item": "b1", "fields": {"title": "Joe's", "category": ["Food", "Bars"], "latlng": [1.5, 2.0]}},
            {"item": "b1", "type": "click", "timestamp": 1430000000000, "value": 4.0,
             "fields": {"review_id": "r1"}},
            {"item": "b2", "type": "impression"},
        ),
    ),
    Export(
        "RecBole's atomic files, without times", "recbole",
        {"lastfm.inter": "user_id:token\tartist_id:token\tweight:float\n2\t51\t13883\n2\t52\t11690\n"},
        (0, 0, 0, 2),
        ({"user": "2", "item": "51", "type": "click", "value": 13883.0},),
        tallies={_SYNTHETIC: 2},
    ),
)  # fmt: skip

_RETAILROCKET_EVENTS = (
    "timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n"
    "1433224214164,992329,addtocart,248676,\n1433223236124,599528,transaction,356475,4000\n"
)
_RETAILROCKET_FOUND = (
    {"type": "view", "user": "257597", "item": "355908", "timestamp": 1433221332117},
    {"type": "transaction", "item": "356475", "fields": {"transactionid": "4000"}},
)
_RETAILROCKET = (
    Export(
        "RetailRocket, events", "retailrocket", {"events.csv": _RETAILROCKET_EVENTS}, (0, 0, 0, 3), _RETAILROCKET_FOUND
    ),
    Export(
        "RetailRocket", "retailrocket",
        {"events.csv": _RETAILROCKET_EVENTS,
         "item_properties_part1.csv": "timestamp,itemid,property,value\n1435460400000,460429,categoryid,1338\n"
         "1441508400000,206783,888,1116713 960601 n277.200\n",
         "item_properties_part2.csv": "timestamp,itemid,property,value\n1433041200000,183478,561,n277.200\n"
         "1439089200000,183478,available,0\n",
         "category_tree.csv": "categoryid,parentid\n1338,213\n213,\n"},
        (4, 0, 0, 3),
        (
            *_RETAILROCKET_FOUND,
            {"item": "460429", "timestamp": 1435460400000, "fields": {"category": ["1338", "213"]}},
            {"item": "206783", "fields": {"888": "1116713 960601 n277.200"}},
            {"item": "183478", "fields": {"561": 277.2}},
        ),
    ),
)  # fmt: skip

_HM = (
    Export(
        "H&M", "hm",
        {"transactions_train.csv": "t_dat,customer_id,article_id,price,sales_channel_id\n"
         "2020-09-20,000058a1,0108775015,0.0254,2\n2020-09-20,000058a1,0108775015,0.0254,2\n"
         "2020-09-21,00007d2d,108775044,0.03,1\n",
         "articles.csv": "article_id,product_code,prod_name,product_type_name,product_group_name,colour_group_name,"
         "index_group_name,detail_desc\n"
         '0108775015,0108775,Strap top,Vest top,Garment Upper body,Black,Ladieswear,"Jersey top, narrow straps."\n',
         "customers.csv": "customer_id,FN,Active,club_member_status,fashion_news_frequency,age,postal_code\n"
         "000058a1,,,ACTIVE,NONE,49.0,52043ee2\n"},
        (1, 1, 0, 3),
        (
            {"type": "purchase", "user": "000058a1", "item": "0108775015", "timestamp": 1600560000000, "value": 0.0254,
             "fields": {"sales_channel_id": "2"}},
            {"type": "purchase", "item": "0108775044", "timestamp": 1600646400000},
            {"item": "0108775015", "fields": {
                "title": "Strap top", "text": "Jersey top, narrow straps.", "product_code": "0108775",
                "category": ["Ladieswear", "Garment Upper body", "Vest top"], "product_type_name": "Vest top",
                "product_group_name": "Garment Upper body", "colour_group_name": "Black",
                "index_group_name": "Ladieswear"}},
            {"user": "000058a1"},
        ),
    ),
)  # fmt: skip

_OTTO = (
    Export(
        "OTTO, JSON lines", "otto",
        {"train.jsonl": _lines(
            {"session": 0, "events": [{"aid": 1517085, "ts": 1659304800025, "type": "clicks"},
                                      {"aid": 1649869, "ts": 1659369893840, "type": "carts"}]},
            {"session": 1, "events": [{"aid": 424964, "ts": 1659304800025, "type": "orders"}, {"aid": 1}]})},
        (0, 0, 0, 3),
        ({"user": "0", "item": "1649869", "type": "carts", "timestamp": 1659369893840},
         {"user": "1", "item": "424964", "type": "orders"}),
        rejected=1,
    ),
    Export(
        "OTTO, Kaggle's table", "otto",
        {"train.csv": "session,aid,ts,type\n0,1517085,1659304800,0\n0,1649869,1659369893,1\n"},
        (0, 0, 0, 2),
        ({"user": "0", "item": "1517085", "type": "clicks", "timestamp": 1659304800000},
         {"item": "1649869", "type": "carts"}),
    ),
)  # fmt: skip

_ITEM_2018 = {
    "title": "Slime &amp; Co", "category": ["Toys", "Slime"], "brand": "Acme", "price": "$1,012.50",
    "asin": "B000012345", "description": ["Green.", "Not food."], "also_buy": ["B000012346"], "also_view": [],
    "feature": ["wet"], "rank": "9 in Toys", "image": [],
}  # fmt: skip
_AMAZON = (
    Export(
        "Amazon reviews of 2014", "amazon",
        {"reviews_Beauty_5.json.gz": _lines(
            {"reviewerID": "A2SUAM1J3GNN3B", "asin": "0000013714", "reviewerName": "J. McDonald", "helpful": [2, 3],
             "reviewText": "Fine.", "overall": 5.0, "summary": "Heavenly", "unixReviewTime": 1252800000,
             "reviewTime": "09 13, 2009"})},
        (0, 0, 0, 1),
        ({"user": "A2SUAM1J3GNN3B", "item": "0000013714", "type": "rating", "value": 5.0, "timestamp": 1252800000000},),
    ),
    Export(
        "Amazon items of 2014", "amazon",
        {"meta_Toys.json.gz": "{'asin': '0000031852', 'title': \"Girls' Tutu\", 'price': 3.17, 'imUrl': 'http://x',"
         " 'related': {'also_bought': ['B00JHONN1S'], 'bought_together': ['B002BZX8Z6']},"
         " 'salesRank': {'Toys': 211836}, 'brand': 'Coxlures',"
         " 'categories': [['Sports', 'Dance'], ['Sports', 'Girls']]}\n"},
        (1, 0, 0, 0),
        ({"item": "0000031852", "fields": {
            "title": "Girls' Tutu", "price": 3.17, "brand": "Coxlures", "category": ["Sports", "Dance", "Girls"],
            "also_buy": ["B00JHONN1S"], "bought_together": ["B002BZX8Z6"]}},),
    ),
    Export(
        "Amazon reviews of 2018", "amazon",
        {"Toys_5.json": _lines(
            {"overall": 2.0, "verified": True, "reviewTime": "01 1, 2018", "reviewerID": "AUI6WTTT0QZYS",
             "asin": "5120053084", "style": {"Size:": "Large"}, "reviewText": "No.", "summary": "No",
             "unixReviewTime": 1514764800})},
        (0, 0, 0, 1),
        ({"user": "AUI6WTTT0QZYS", "item": "5120053084", "value": 2.0, "timestamp": 1514764800000,
          "fields": {"verified": True}},),
    ),
    Export(
        "Amazon items of 2018", "amazon", {"meta_Toys.json": _lines(_ITEM_2018)}, (1, 0, 0, 0),
        ({"item": "B000012345", "fields": {
            "title": "Slime & Co", "category": ["Toys", "Slime"], "brand": "Acme", "price": 1012.5,
            "text": "Green. Not food.", "also_buy": ["B000012346"], "features": ["wet"]}},),
    ),
    Export(
        "Amazon reviews of 2023", "amazon",
        {"All_Beauty.jsonl.gz": _lines(
            {"rating": 5.0, "title": "Nice", "text": "Smells good.", "images": [], "asin": "B00YQ6X8EO",
             "parent_asin": "B00YQ6X8EP", "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ", "timestamp": 1588687728923,
             "helpful_vote": 0, "verified_purchase": True})},
        (0, 0, 0, 1),
        ({"user": "AGKHLEW2SOWHNMFQIJGBECAF7INQ", "item": "B00YQ6X8EP", "value": 5.0, "timestamp": 1588687728923},),
    ),
    Export(
        "Amazon items of 2023", "amazon",
        {"meta_All_Beauty.jsonl": _lines(
            {"main_category": "All Beauty", "title": "Howard LC0008 Conditioner", "average_rating": 4.8,
             "rating_number": 10, "features": [], "description": ["Leather."], "price": None, "images": [],
             "videos": [], "store": "Howard", "categories": ["Care"], "details": {}, "parent_asin": "B01CUPMQZE",
             "bought_together": None})},
        (1, 0, 0, 0),
        ({"item": "B01CUPMQZE", "fields": {
            "title": "Howard LC0008 Conditioner", "text": "Leather.", "category": ["All Beauty", "Care"],
            "brand": "Howard"}},),
    ),
    Export(
        "Amazon ratings of 2023", "amazon",
        {"All_Beauty.csv": "user_id,parent_asin,rating,timestamp\n"
         "AFKZENTNBQ7A7V7UXW5JJI6UGRYQ,B09H2SPGNK,5.0,1643392500000\n"},
        (0, 0, 0, 1),
        ({"user": "AFKZENTNBQ7A7V7UXW5JJI6UGRYQ", "item": "B09H2SPGNK", "type": "rating", "value": 5.0,
          "timestamp": 1643392500000},),
    ),
    Export(
        "Amazon ratings of 2014, without header", "amazon",
        {"ratings_Beauty.csv": "A39HTATAQ9V7YF,0205616461,5.0,1369699200\nA3JM6GV9MNOF9X,0558925278,3.0,1355443200\n"},
        (0, 0, 0, 2),
        ({"user": "A39HTATAQ9V7YF", "item": "0205616461", "value": 5.0, "timestamp": 1369699200000},),
    ),
    Export(
        "Amazon ratings of 2018, without header", "amazon",
        {"All_Beauty.csv": "0143026860,A1V6B6TNIC10QE,1.0,1424304000\n014789302X,A3SFRT223XXWF7,5.0,1405728000\n"},
        (0, 0, 0, 2),
        ({"user": "A3SFRT223XXWF7", "item": "014789302X", "value": 5.0, "timestamp": 1405728000000},),
    ),
)  # fmt: skip

_LASTFM = (
    Export(
        "Last.fm, HetRec 2011", "lastfm",
        {"user_artists.dat": "userID\tartistID\tweight\n2\t51\t13883\n2\t52\t11690\n",
         "artists.dat": "id\tname\turl\tpictureURL\n51\tDuran Duran\thttp://www.last.fm/music/x\thttp://y.jpg\n"
         "52\tMorcheeba\thttp://www.last.fm/music/y\t\n",
         "tags.dat": "tagID\ttagValue\n13\tchillout\n14\tdown tempo é\n".encode("latin-1"),
         "user_taggedartists.dat": "userID\tartistID\ttagID\tday\tmonth\tyear\n2\t52\t13\t1\t4\t2009\n",
         "user_taggedartists-timestamps.dat": "userID\tartistID\ttagID\ttimestamp\n2\t52\t14\t1241128800000\n"
         "2\t52\t13\t1238536800000\n3\t51\t13\t-428720400000\n",
         "user_friends.dat": "userID\tfriendID\n2\t275\n"},
        (4, 0, 0, 2),
        (
            {"item": "51", "fields": {"title": "Duran Duran", "url": "http://www.last.fm/music/x",
                                      "picture": "http://y.jpg"}},
            {"user": "2", "item": "51", "type": "listen", "value": 13883.0},
            {"item": "52", "timestamp": 1238536800000, "fields": {"tags": ["chillout"]}},
            {"item": "52", "timestamp": 1241128800000, "fields": {"tags": ["chillout", "down tempo é"]}},
        ),
        rejected=1, tallies={_SYNTHETIC: 2},
    ),
    Export(
        "Last.fm 1K", "lastfm",
        {"userid-timestamp-artid-artname-traid-traname.tsv":
         "user_000001\t2009-05-04T23:08:57Z\tf1b1cf71\tDeep Dish\t4b2c\tMe Im Famous\n"
         "user_000001\t2009-05-04T13:54:10Z\ta7f7df4a\t坂本龍一\t\tComposition 0919\n"
         "user_000001\t2009-05-03T15:48:25Z\tf1b1cf71\tDeep Dish\t4b2c\tMe Im Famous\n",
         "userid-profile.tsv": "#id\tgender\tage\tcountry\tregistered\nuser_000001\tm\t\tJapan\tAug 13, 2006\n"},
        (2, 1, 0, 3),
        (
            {"user": "user_000001", "item": "4b2c", "type": "listen", "timestamp": 1241478537000},
            {"item": "4b2c", "fields": {"title": "Me Im Famous", "artist": "Deep Dish", "category": ["Deep Dish"]}},
            {"type": "listen", "item": "坂本龍一 - Composition 0919"},
            {"user": "user_000001", "fields": {"gender": "m", "country": "Japan", "registered": "Aug 13, 2006"}},
        ),
    ),
)  # fmt: skip

_SEQUENCES = (
    Export(
        "sequences, one line for each user", "sequences", {"Beauty.txt.gz": "1 1 2 3\n2 3 1\n"}, (0, 0, 0, 5),
        ({"user": "1", "item": "2", "type": "click"},), tallies={_SYNTHETIC: 5},
    ),
    Export(
        "sequences, one line for each interaction", "sequences", {"Beauty.txt": "1 1\n1 2\n2 1\n"}, (0, 0, 0, 3),
        ({"user": "2", "item": "1", "type": "click"},), tallies={_SYNTHETIC: 3},
    ),
)  # fmt: skip

_LISTS = "rankings with a synthetic timestamp, because the file has no times"
_ZEROS = "numbers that a line leaves out are 0, as in SVMlight; --missing absent keeps them missing"
_LETOR = (
    Export(
        "LETOR 4.0, a fold", "letor",
        {"train.txt": "2 qid:10 1:0.5 2:0.0 #docid = GX000-01 inc = 1 prob = 0.2\n0 qid:10 2:1 #docid = GX000-02\n"
         "1 qid:11 1:2 #docid = GX000-01\n",
         "vali.txt": "0 qid:12 1:1 2:1 #docid = GX000-01\n0 qid:12 3:1 #docid = GX000-03\n",
         "test.txt": "0 qid:13 1:1 #docid = GX000-04\nnone qid:13 1:1 #docid = GX000-05\n"},
        (0, 0, 4, 0),
        (
            {"id": "letor:train.txt:10", "timestamp": 1420070460000, "items": ["GX000-01", "GX000-02"],
             "labels": [2.0, 0.0], "item_fields": {"f1": (0.5, 0.0), "f2": (0.0, 1.0)}, "fields": {"query_id": "10"}},
            {"id": "letor:vali.txt:12", "timestamp": 1506470460000, "labels": [0.0, 0.0]},
            {"id": "letor:test.txt:13", "timestamp": 1592870460000, "items": ["GX000-04"]},
        ),
        rejected=1, tallies={_LISTS: 4}, notes=(_ZEROS,),
    ),
    Export(
        "SVMlight, each document a query", "letor",
        {"ids.svm.gz": "# made by hand\n1 qid:7\t0:1.5 10:nan\n\n-1 qid:8 0:2\n"}, (0, 0, 2, 0),
        ({"id": "letor:ids.svm:7", "items": ["ids.svm:7:1"], "item_fields": {"f0": (1.5,)}},
         {"id": "letor:ids.svm:8", "labels": [-1.0], "item_fields": {"f0": (2.0,), "f10": (0.0,)}}),
        tallies={_LISTS: 2},
    ),
    Export(
        "SVMlight with the sizes of queries, as LightGBM has", "letor",
        {"rank.train": "0 0:0.89 2:1\n1 1:0.69\n3 2:-2e-1\n", "rank.train.query": "1\n2\n"}, (0, 0, 2, 0),
        (
            {"id": "letor:rank.train:2", "items": ["rank.train:2:1", "rank.train:2:2"], "labels": [1.0, 3.0],
             "item_fields": {"f0": (0.0, 0.0), "f1": (0.69, 0.0), "f2": (0.0, -0.2)}},
        ),
        tallies={_LISTS: 2}, notes=(_ZEROS, "queries are numbered by the sizes in rank.train.query"),
    ),
    Export(
        "a table with query ids", "letor",
        {"judged.csv": "qid,grade,doc_id,bm25,brand,price\nq1,2,a,0.5,x,\nq1,0,b,nan,y,9.5\n,1,a,1,x,2\n"},
        (0, 0, 1, 0),
        (
            {"id": "letor:judged.csv:q1", "items": ["a", "b"], "labels": [2.0, 0.0],
             "item_fields": {"bm25": (0.5, None), "brand": ("x", "y"), "price": (None, 9.5)}},
        ),
        rejected=1, tallies={_LISTS: 1}, notes=("columns of texts: brand",),
    ),
)  # fmt: skip

EXPORTS = (
    *_GORSE, *_UBI, *_MOVIELENS, *_RECBOLE, *_RETAILROCKET, *_HM, *_OTTO, *_AMAZON, *_LASTFM, *_SEQUENCES, *_LETOR,
)  # fmt: skip
"""All exports."""
