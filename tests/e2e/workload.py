"""What the tests let stream: interactions of MovieLens-100K, and between them what a real stream brings too."""

import base64
import dataclasses
import json
import struct
import subprocess
import sys

from harness import protobuf
from harness.kafka import Record
from harness.process import CACHE, SOURCE, skip

# What a record breaks, for the reference: the daemon takes no notice of a header.
EXPECT = "expect-rule"


def movielens(folder):
    """(items, interactions) as ops/trial/movielens.py writes them, oldest first; fetched once into the cache."""
    try:
        subprocess.run(
            [sys.executable, SOURCE / "ops" / "trial" / "movielens.py", CACHE, folder],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=400,
        )
    except subprocess.CalledProcessError as error:
        if error.returncode == 69:  # EX_UNAVAILABLE
            skip("MovieLens-100K cannot be fetched: the network is not there")
        raise
    return [
        [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for name in ("items.jsonl", "interactions.jsonl")
    ]


def is_bad(record):
    return any(name == EXPECT for name, _ in record.headers)


# ---- interactions ----


def encode_interaction(number, event):
    """The three forms that a producer may choose, in turn."""
    if number % 7 == 3:
        return json.dumps(event).encode()
    data = protobuf.encode("Interaction", event)
    return b"\0\0\0\0\x2a\0" + data if number % 7 == 5 else data


def strangers():
    """Users whose ids need care in keys, and what they look at."""
    users = ["{a}%7D", "käuferin ☂", "x" * 128]
    return [
        {
            "user_id": user,
            "item_id": str(50 + number),
            "event_time_ms": 880_000_000_000 + number,
            "event_id": "",
        }
        for number in range(12)
        for user in users
    ]


def bad_interactions():
    good = {"user_id": "1", "item_id": "2", "event_time_ms": 880_000_000_000}
    return [
        ("size", b""),
        ("size", None),
        ("size", protobuf.encode("Interaction", {**good, "kind": "k" * (64 << 10)})),
        ("format", b"\xff\xfe\xfd what is this?"),
        ("format", b'{"user_id": "1", '),
        ("format", b"\0\0\0"),
        ("text", protobuf.encode("Interaction", good).replace(b"\x12\x012", b"\x12\x01\xff")),
        ("id", protobuf.encode("Interaction", {**good, "user_id": ""})),
        ("id", protobuf.encode("Interaction", {**good, "item_id": "a\x07b"})),
        ("id", protobuf.encode("Interaction", {**good, "user_id": "y" * 129})),
        ("time", protobuf.encode("Interaction", {**good, "event_time_ms": 1 << 60})),
        ("time", json.dumps({**good, "event_time_ms": -5}).encode()),
    ]


def with_trouble(interactions):
    """The events in order, and among them: repeats soon and late, events without event_id or time, of unknown items."""
    events, by_user = [], {}
    for number, event in enumerate(interactions):
        event = dict(event)
        if number % 10 == 1:
            event["event_id"] = ""
        elif number % 97 == 5:
            event["item_id"] = f"unheard-of-{number % 4}"
        if number % 300 == 7:
            del event["event_time_ms"]
        events.append(event)
        history = by_user.setdefault(event["user_id"], [])
        history.append(event)
        if number % 50 == 20:
            events.append(history[-min(len(history), 1 + number // 50 % 40)])
        if number % 211 == 100:
            events.append(history[0])  # for many users too long ago to be noticed
    return events


def interaction_records(interactions):
    bad = bad_interactions()
    records = []
    for number, event in enumerate(with_trouble(strangers() + interactions)):
        records.append(Record(event["user_id"].encode(), encode_interaction(number, event)))
        if number % 450 == 30:
            rule, value = bad[number // 450 % len(bad)]
            key = None if rule == "format" else f"somebody{number}".encode()
            records.append(Record(key, value, [(EXPECT, rule.encode()), ("trace", None)]))
    return records


# ---- items ----


@dataclasses.dataclass
class Features:
    """Rows of an item, each modality [count * dim] as little-endian float32."""

    text: bytes
    image: bytes


def item_record(item_id, text=b"", image=b"", dim=0, title=""):
    values = {"item_id": item_id, "title": title}
    if text:
        values["text_rows"] = {"dim": dim, "data": text}
    if image:
        values["image_rows"] = {"dim": dim, "data": image}
    return Record(item_id.encode(), protobuf.encode("Item", values))


def item_records(items):
    """Every item with its rows; some have rows of images too (the title's row stands in for a picture's), some only
    these, some none yet; some come again with other rows, some are deleted in the end."""
    records, again = [], []
    dim = items[0]["text_rows"]["dim"]
    row = 4 * dim
    for number, item in enumerate(items):
        text = base64.b64decode(item["text_rows"]["data"])
        image = text[:row] + text[-row:] if number % 3 == 0 else b""
        if number % 31 == 7:
            again.append(item_record(item["item_id"], text[:row], image, dim, item["title"]))
        if number % 23 == 4:
            again.append(Record(item["item_id"].encode(), None))
        if number % 17 == 3:
            text, image = b"", b""
        elif number % 12 == 6:
            text = b""
        records.append(item_record(item["item_id"], text, image, dim, item["title"]))
    wide = struct.pack(f"<{dim + 1}f", *[0.5] * (dim + 1))
    bad = [
        ("dim", item_record("1", wide, dim=dim + 1).value),
        ("length", item_record("2", wide, dim=dim).value),
        ("finite", item_record("3", struct.pack("<f", float("nan")) * dim, dim=dim).value),
        ("format", b"\x07"),
    ]
    return records + again + [Record(b"7", value, [(EXPECT, rule.encode())]) for rule, value in bad]


def more_item_records(features):
    """Rows for the items that interactions named without them, for one that nobody has named, and other rows for one
    that had some."""
    first, *_, last = features.values()
    row = min(len(rows.text) or len(rows.image) for rows in features.values())
    dim = row // 4
    names = [f"unheard-of-{number}" for number in range(4)] + ["of-nobody", next(iter(features))]
    return [
        item_record(name, last.text[:row], first.image[:row] if number % 2 else b"", dim)
        for number, name in enumerate(names)
    ]


def read_items(records):
    """{item id: Features} of the items that have rows in the end, from the log (one partition)."""
    features = {}
    for record in records:
        if is_bad(record):
            continue
        if record.value is None:
            features.pop(record.key.decode(), None)
            continue
        item = protobuf.decode("Item", record.value)
        rows = Features(item["text_rows"]["data"], item["image_rows"]["data"])
        if rows.text or rows.image:
            features[item["item_id"]] = rows
        else:
            features.pop(item["item_id"], None)
    return features
