"""m2sectl for those who mend things, against a real broker: dead letters."""

import json
import os
import subprocess

from harness.kafka import Broker, Record
from harness.process import BIN, scratch

DLQ = "clicks.dlq"
OWN = "__connect.errors."


def ctl(kafka, *words, expect=0):
    environment = {"M2SED_KAFKA_BROKERS": kafka.bootstrap, "M2SED_KAFKA_INTERACTIONS": "clicks"}
    done = subprocess.run(
        [BIN / "m2sectl", *words],
        env={**os.environ, **environment},
        capture_output=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == expect, (words, done)
    return done.stdout.decode() if expect == 0 else done.stderr.decode()


def ctl_json(kafka, *words):
    return json.loads(ctl(kafka, *words, "--json"))


# ---- dead letters ----


def letter(number, rule, partition, *more, value=b"\xff value"):
    """As the daemon leaves it."""
    own = {
        "topic": "clicks",
        "partition": partition,
        "offset": 100 + number,
        "stage": "VALUE_CONVERTER",
        "reason": f"why {number}\n",
        "exception.class.name": rule,
        "exception.message": f"why {number}\n",
    }
    headers = [("trace", b"abc"), ("empty", None)]
    headers += [(OWN + name, str(text).encode()) for name, text in own.items()]
    key = None if number == 2 else f"user {number}".encode()
    return Record(key, value, [*headers, *more], timestamp_ms=1_000_000_000_000)


def test_list(kafka):
    letters = ctl_json(kafka, "dlq", "list")
    assert [found["offset"] for found in letters] == list(range(6))
    assert letters[3] == {
        "partition": 0,
        "offset": 3,
        "of": {"topic": "clicks", "partition": 1, "offset": 103},
        "stage": "VALUE_CONVERTER",
        "rule": "time",
        "reason": "why 3\n",
        "key": "user 3",
        "value_bytes": 5000,
        "value_begins": "v" * 60,
    }
    assert letters[2]["key"] is None and letters[0]["value_begins"] == "\ufffd value"
    assert [found["offset"] for found in ctl_json(kafka, "dlq", "list", "-n", "2")] == [4, 5]
    assert [found["offset"] for found in ctl_json(kafka, "dlq", "list", "--rule", "id")] == [1]
    text = ctl(kafka, "dlq", "list", "interactions")
    assert "0/3  of 1/103  time: why 3?\n    key user 3  value of 5000 bytes: vvv" in text
    assert "bytes: ? value\n" in text and "\n" * 2 not in text
    assert ctl_json(kafka, "dlq", "list", "items") == []
    assert "no such record" in ctl(kafka, "dlq", "list", "items")


def test_replay(kafka, client):
    dry = ctl_json(kafka, "dlq", "replay", "--rule", "time", "--dry-run")
    assert (dry["chosen"], dry["acknowledged"], dry["without_value"]) == (3, 0, 1)
    assert client.read_all("clicks") == []
    first = ctl_json(kafka, "dlq", "replay", "--rule", "time", "--limit", "2")
    assert (first["acknowledged"], first["next_offset"]) == (2, 4)
    second = ctl_json(kafka, "dlq", "replay", "--rule", "time", "--from", "4")
    assert (second["acknowledged"], second["next_offset"], second["without_value"]) == (1, -1, 1)
    back = client.read_all("clicks")
    # Each in its own partition; one that the topic does not have any more: by the key.
    assert {(r.key, r.value) for r in back} == {
        (b"user 0", b"\xff value"),
        (b"user 3", b"v" * 5000),
        (b"user 4", b"\xff value"),
    }
    assert {r.key: r.partition for r in back if r.key != b"user 4"} == {b"user 0": 0, b"user 3": 1}
    assert all(r.headers == [("trace", b"abc"), ("empty", None)] for r in back)
    assert all(r.timestamp_ms > 1_000_000_000_000 for r in back)
    assert len(client.read_all(DLQ)) == 6
    text = ctl(kafka, "dlq", "replay", "--rule", "format")
    assert text == f"clicks: 1 records went back, at new positions; a copy stays in {DLQ}\n"
    (last,) = [r for r in client.read_all("clicks") if r.key is None]
    assert last.partition == 2 and last.value == b"\xff value"


def test_letters(kafka, client):
    assert "clicks.dlq" in ctl(kafka, "dlq", "list", expect=os.EX_NOINPUT)
    for topic, partitions in (("clicks", 3), (DLQ, 1), ("items.dlq", 1)):
        client.create_topic(topic, partitions)
    left_out = ("m2sed.value_bytes_left_out", b"1500000")
    client.produce(
        DLQ,
        [
            letter(0, "time", 0),
            letter(1, "id", 1),
            letter(2, "format", 2),
            letter(3, "time", 1, value=b"v" * 5000),
            letter(4, "time", 7),
            letter(5, "time", 0, left_out, value=None),
        ],
    )
    test_list(kafka)
    test_replay(kafka, client)
    for words in (["list", "users"], ["replay", "--limit", "x"], ["list", "--dry-run"], ["list", "items", "more"]):
        ctl(kafka, "dlq", *words, expect=os.EX_USAGE)


def main():
    with scratch() as folder, Broker(folder / "kafka") as kafka:
        kafka.start()
        test_letters(kafka, kafka.client())


main()
