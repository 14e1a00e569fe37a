"""Items that come as texts and pictures: their rows are computed beside the stream, survive kill -9, follow changes."""

import base64
import json
import shutil
import struct
import subprocess
import time
import zlib

import stored
from daemon import Daemon
from harness.kafka import Broker, Record
from harness.process import SOURCE, scratch, wait_until
from harness.redis import Server
from world import timed

ITEMS, USERS, EVENTS = 40, 25, 400
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def make_models(folder):
    """Models of the committed fixtures, with vocabularies of their size: rows mean nothing, and are always the same."""
    fixtures = SOURCE / "tests" / "fixtures" / "encoder"
    shutil.copytree(fixtures / "bert", folder / "bert")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    (folder / "bert" / "vocab.txt").write_text("\n".join(pieces[:50]) + "\n")
    shutil.copytree(fixtures / "clip_gelu", folder / "clip")
    pieces = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), *(f"unused{n}" for n in range(6))]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "clip" / "vocab.json").write_text(json.dumps({piece: n for n, piece in enumerate(pieces)}))
    (folder / "clip" / "merges.txt").write_text("#version: 0.2\n")
    (folder / "words.txt").write_text("\n".join(LETTERS) + "\n")
    root = folder / "pictures"
    root.mkdir()
    shutil.copy(SOURCE / "tests" / "corpus" / "picture" / "420.jpg", root)
    return {
        "text_model": str(folder / "bert"),
        "image_model": str(folder / "clip"),
        "words": str(folder / "words.txt"),
        "image_root": str(root),
        "store": str(folder / "store"),
    }


def png(width, height):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


def item(name, *texts, images=()):
    record = {"item_id": name, "texts": list(texts), "images": list(images)}
    return Record(key=name.encode(), value=json.dumps(record).encode())


def in_base64(data):
    return {"data": base64.b64encode(data).decode()}


def text_of(number):
    return " ".join(LETTERS[number // power % 26] for power in (1, 26, 7))


def interactions(first, count, name=None):
    return [
        Record(
            key=f"u{n % USERS}".encode(),
            value=json.dumps(
                {
                    "user_id": f"u{n % USERS}",
                    "item_id": name or str((n * n + n // USERS) % ITEMS),
                    "event_time_ms": 1_700_000_000_000 + 1000 * n,
                }
            ).encode(),
        )
        for n in range(first, first + count)
    ]


class Stream:
    def __init__(self, kafka, redis, daemon):
        self.client, self.daemon = kafka.client(), daemon
        self.redis = redis.client()

    def vector(self, name):
        return self.redis.call("HGET", stored.key("item", name), "v")

    def wait_for(self, *names):
        wait_until(lambda: all(self.vector(name) for name in names), 60, f"vectors of {names[-1]}")

    def status(self):
        """{} before the first one, a second after the start."""
        try:
            return self.daemon.ctl("status")
        except subprocess.CalledProcessError:
            return {}

    def features(self):
        return self.daemon.ctl("features", "status")


def check_new_items(stream):
    start = time.monotonic()
    stream.client.produce("items", [item("new", "q r s")])
    stream.wait_for("new")
    print(f"record to readable vector: {1000 * (time.monotonic() - start):.0f} ms")
    # An event that comes before its item waits for it.
    stream.client.produce("interactions", interactions(EVENTS, 50, "late"))
    stream.client.produce("items", [item("late", "l a t e")])
    stream.wait_for("late")


def check_pictures(stream):
    images = [{"path": "420.jpg"}, in_base64(png(50000, 50000)), in_base64(b"GIF89a"), {"path": "none.jpg"}]
    stream.client.produce("items", [item("pictures", "p", images=images)])
    stream.wait_for("pictures")
    wait_until(lambda: stream.features()["pending"] == 0, 30, "the end of all features")
    refused = stream.features()["refused_by_reason"]
    assert refused == {"too_many_pixels": 1, "not_a_picture": 1, "not_found": 1}, refused

    def is_told():
        counted = stream.status().get("features", {})
        return all(int(counted.get(f"picture_{reason}", 0)) == 1 for reason in refused)

    wait_until(is_told, 10, "the reasons in the status")


def check_kill(stream):
    more = [f"more{n}" for n in range(100)]
    stream.client.produce("items", [item(name, text_of(1000 + n)) for n, name in enumerate(more)])
    time.sleep(0.1)
    stream.daemon.process.kill()
    stream.daemon.start()
    stream.wait_for(*more)


def check_changes(stream):
    contents = stream.features()["contents"]
    stream.client.produce("items", [item("new", "q r s", "z z z")])
    wait_until(lambda: stream.features()["contents"] == contents + 1, 30, "the changed item")
    stream.client.produce("items", [Record(key=b"new", value=None)])
    wait_until(lambda: stream.vector("new") is None, 30, "the deletion")
    wait_until(lambda: stream.features()["contents"] == contents - 1, 30, "the deletion in the store")


def main():
    with scratch() as folder, Broker(folder / "kafka") as kafka, Server(folder / "redis") as redis:
        kafka.start()
        redis.start()
        client = kafka.client()
        for topic in ("interactions", "interactions.dlq", "items", "items.dlq", "m2se.status"):
            client.create_topic(topic, 1)
        client.produce("items", [item(str(n), text_of(n)) for n in range(ITEMS)])
        client.produce("interactions", interactions(0, EVENTS))
        daemon = Daemon(
            folder / "features",
            kafka,
            redis,
            0,
            {"features": make_models(folder), "train": {"parking": 1000}, "serve": {"epoch_steps": 2}},
        )
        stream = Stream(kafka, redis, daemon)
        with timed("first vectors"):
            daemon.start("--init-if-empty")
            stream.wait_for(*map(str, range(ITEMS)))
        for check in (check_new_items, check_pictures, check_kill, check_changes):
            with timed(check.__name__):
                check(stream)
        assert daemon.process.stop() == 0
        with timed("to the end"):
            daemon.run_to_the_end()
        manifest = daemon.manifest()
        taught = EVENTS + 50 - USERS  # but the first event of each user
        assert int(manifest["skipped_no_features"]) == 0, manifest
        assert int(manifest["trained_events"]) == taught, (manifest["trained_events"], taught)
        assert daemon.ctl("audit")["good"]


main()
