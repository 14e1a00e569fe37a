"""m2sectl for those who mend things, against a real broker, a real Redis and a daemon: dead letters, pausing."""

import json
import os
import random
import struct
import subprocess
import time

import workload
from daemon import LENGTH, Daemon
from harness import protobuf
from harness.kafka import Broker, Record
from harness.process import BIN, scratch, wait_until
from harness.redis import Server

DLQ = "clicks.dlq"
OWN = "__connect.errors."


def ctl(kafka, *words, expect=0):
    environment = {"M2SED_KAFKA_BROKERS": kafka.bootstrap, "M2SED_KAFKA_INTERACTIONS": "clicks"}
    environment["M2SED_KAFKA_ITEMS"] = "things"
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
    for topic, partitions in (("clicks", 3), (DLQ, 1), ("things.dlq", 1)):
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


# ---- a daemon ----


class Live:
    """A daemon that has learned a little."""

    def __init__(self, folder, kafka, redis):
        self.client, self.redis = kafka.client(), redis.client()
        self.random, self.time_ms, self.sent = random.Random(1), 1_700_000_000_000, 0
        for topic in ("interactions", "interactions.dlq", "items", "items.dlq", "erasures", "m2se.status"):
            self.client.create_topic(topic, 1)
        rows = [struct.pack("<32f", *(self.random.gauss(0, 1) for _ in range(32))) for _ in range(30)]
        self.client.produce(
            "items", [workload.item_record(f"item {n}", row, row, 32) for n, row in enumerate(rows)]
        )
        self.daemon = Daemon(folder / "live", kafka, redis, 0, {"train": {"batch": 16}, "serve": {"epoch_steps": 5}})
        self.daemon.settings["kafka"]["properties"]["group.instance.id"] = "live"
        self.daemon.configure({"checkpoint": {"keep": 50}})

    def produce(self, count, first_user=0):
        records = []
        for _ in range(count):
            self.time_ms += 1000
            user = f"user {self.random.randrange(first_user, 8)}"
            item = f"item {self.random.randrange(30)}"
            event = {"user_id": user, "item_id": item, "event_time_ms": self.time_ms, "event_id": str(self.time_ms)}
            records.append(Record(user.encode(), protobuf.encode("Interaction", event)))
        self.client.produce("interactions", records)
        self.sent += count

    def ctl(self, *words, expect=0):
        command = [BIN / "m2sectl", *words, "--config", self.daemon.config]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        assert done.returncode == expect, (words, done)
        return done.stdout if expect == 0 else done.stderr

    def status(self):
        return json.loads(self.ctl("status", "--json"))

    def wait_position(self, position):
        """Until the daemon has come that far in the log."""

        def there():
            return any(
                p["topic"] == "interactions" and int(p["next_offset"]) == position for p in self.status()["partitions"]
            )

        wait_until(lambda: self.redis.call("EXISTS", "m2se:status") and there(), 30, f"position {position}")

    def wait_reason(self, words):
        wait_until(lambda: any(words in reason for reason in self.status()["reasons"]), 20, words)


def test_pause(live):
    process = live.daemon.start("--init-if-empty")
    live.produce(100)
    live.wait_position(100)
    live.ctl("pause", "disks are changed\x1b[2J")
    live.wait_reason("paused by an operator")
    paused = live.status()
    assert any(reason.endswith("Z: disks are changed[2J") for reason in paused["reasons"]), paused["reasons"]
    assert paused["state"] == "paused", paused["state"]
    live.produce(50)
    time.sleep(1.5)
    live.wait_position(100)
    assert live.status()["events"]["received"] == "100"
    process.kill()
    live.redis.call("DEL", "m2se:status")
    process = live.daemon.start()
    wait_until(lambda: live.redis.call("EXISTS", "m2se:status"), 30, "a status")
    live.wait_reason("paused by an operator")
    assert live.status()["events"]["received"] == "0"
    live.ctl("resume")
    live.wait_position(150)
    wait_until(lambda: (s := live.status())["reasons"] == [] and s["state"] == "running", 30, "all is well")
    assert "not paused" in live.ctl("resume", expect=os.EX_NOINPUT)
    assert "stop the daemon" in live.ctl("rollback", "1", "--yes", expect=os.EX_UNAVAILABLE)
    assert process.output().count("paused by an operator") == 1
    assert process.output().count("an operator lets consumption go on") == 1


# ---- the end of a sequence ----


def test_end(live):
    """A vector that is made again with a new epoch, and not by an event, ends when its sequence does."""
    end_ms = int(time.time() * 1000) + 1_000_000
    assert live.redis.call("PEXPIREAT", "m2se:seq:user 0", end_ms) == 1
    live.redis.call("DEL", "m2se:user:user 0")
    live.produce(60, first_user=1)
    live.wait_position(live.sent)
    wait_until(lambda: live.redis.call("PEXPIRETIME", "m2se:user:user 0") == end_ms, 20, "the vector, and its end")
    assert live.redis.call("PEXPIRETIME", "m2se:seq:user 0") == end_ms


# ---- explain ----


def test_explain(live):
    """What the daemon wrote of a user: the sequence, and scores whose parts add up, the best first."""
    wait_until(lambda: live.status()["serving"]["users_waiting"] == "0", 30, "the vectors of all users")
    shown, sequence, best = (
        json.loads(live.ctl(*words, "--json"))
        for words in (["explain", "user 1", "-k", "30"], ["sequence", "user 1"], ["recommend", "user 1", "-k", "5"])
    )
    entries = [(entry["item_id"], int(entry["event_time_ms"])) for entry in sequence["items"]]
    assert [(entry["item_id"], int(entry["event_time_ms"])) for entry in shown["sequence"]] == entries[-LENGTH:]
    assert int(shown["event_time_ms"]) == entries[-1][1] and int(shown["sequence_count"]) == len(entries) > 1
    assert (shown["user"], shown["epoch"], shown["step"]) == ("user 1", best["epoch"], best["step"]), (shown, best)
    items, had = shown["items"], {item for item, _ in entries}
    assert {item["item_id"] for item in items} == {f"item {number}" for number in range(30)}
    scores = [item["score"] for item in items]
    assert scores == sorted(scores, reverse=True) and scores[0] > scores[-1]
    for item in items:
        assert abs(item["text"] + item["image"] + item["bias"] - item["score"]) < 1e-4, item
        assert item["seen"] == (item["item_id"] in had), item
    assert any(item["text"] for item in items) and any(item["bias"] for item in items)
    unseen = [item["item_id"] for item in items if not item["seen"]]
    assert unseen[:5] == [item["item_id"] for item in best["items"]]
    assert "newest" in live.ctl("explain", "user 1", "-k", "2")
    assert "nobody" in live.ctl("explain", "nobody", expect=os.EX_NOINPUT)


# ---- audit ----


def audit(live, expect=0, *words):
    command = [BIN / "m2sectl", "audit", "--json", *words, "--config", live.daemon.config]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == expect, done
    return json.loads(done.stdout), done.stderr


def test_audit(live):
    wait_until(lambda: live.status()["serving"]["users_waiting"] == "0", 30, "the vectors of all users")
    users = len(live.redis.call("KEYS", "m2se:seq:*"))
    good, _ = audit(live)
    assert good["good"] and good["sequences"] == good["vectors"] == users > 4 and good["entries"] == live.sent, good
    assert "all is well" in live.ctl("audit")
    sample, _ = audit(live, 0, "--sample", "3")
    assert sample["sequences"] == sample["vectors"] == 3
    # Whatever is broken is found, and once.
    redis, keys = live.redis, sorted(live.redis.call("KEYS", "m2se:user:*"))
    epoch = int(redis.call("HGET", "m2se:model", "epoch"))
    vector = redis.call("HGET", keys[0], "v")
    sequence = redis.call("GET", "m2se:seq:user 0")
    breaks = [
        ("vectors_damaged", keys[0], ["HSET", keys[0], "v", vector[:-4]], ["HSET", keys[0], "v", vector]),
        (
            "vectors_damaged",
            keys[0],
            ["HSET", keys[0], "v", vector[:-4] + struct.pack("<f", float("nan"))],
            ["HSET", keys[0], "v", vector],
        ),
        ("epochs_ahead", keys[1], ["HSET", keys[1], "epoch", epoch + 2], ["HSET", keys[1], "epoch", epoch]),
        ("vectors_damaged", keys[1], ["HSET", keys[1], "epoch", "x"], ["HSET", keys[1], "epoch", epoch]),
        (
            "sequences_damaged",
            b"m2se:seq:user 0",
            ["SET", "m2se:seq:user 0", sequence[:-1]],
            ["SET", "m2se:seq:user 0", sequence],
        ),
        (
            "vectors_without_sequence",
            b"m2se:user:user 0",
            ["DEL", "m2se:seq:user 0"],
            ["SET", "m2se:seq:user 0", sequence],
        ),
        ("keys_foreign", b"m2se:seq:list", ["LPUSH", "m2se:seq:list", "x"], ["DEL", "m2se:seq:list"]),
        ("keys_foreign", b"m2se:user:{a}", ["HSET", "m2se:user:{a}", "v", "x"], ["DEL", "m2se:user:{a}"]),
    ]
    wrong = {name for name, *_ in breaks}
    for name, key, damage, repair in breaks:
        redis.call(*damage)
        found, said = audit(live, os.EX_DATAERR)
        assert {n: found[n] for n in wrong} == {**dict.fromkeys(wrong, 0), name: 1}, (name, found)
        assert said.startswith(f"m2sectl: {key.decode()}: ") and said.count("\n") == 1, said
        redis.call(*repair)
    assert audit(live)[0]["good"]
    redis.call("DEL", keys[2])
    assert audit(live)[0]["sequences_without_vector"] == 1


# ---- rollback ----


def test_rollback(live):
    daemon = live.daemon
    daemon.run_to_the_end()  # which leaves no event waiting
    numbers = [int(generation["generation"]) for generation in daemon.ctl("checkpoint", "list")]
    before = daemon.manifest()
    old, newest = numbers[0], numbers[-1]
    older = daemon.ctl("checkpoint", "show", str(old))
    assert old < newest and older["positions"] != before["positions"]
    assert "--yes" in live.ctl("rollback", str(old), expect=os.EX_USAGE)
    assert "is the newest" in live.ctl("rollback", str(newest), "--yes", expect=os.EX_USAGE)
    live.ctl("rollback", "99999", "--yes", expect=os.EX_NOINPUT)
    sequences = {key: live.redis.call("GET", key) for key in live.redis.call("KEYS", "m2se:seq:*")}
    live.ctl("rollback", f"gen-{old:010}", "--yes")
    copy = daemon.manifest()
    assert copy["generation"] == str(newest + 1) and copy["checksum"] != older["checksum"]
    assert {**copy, "generation": 0, "checksum": 0} == {**older, "generation": 0, "checksum": 0}
    left = [int(generation["generation"]) for generation in daemon.ctl("checkpoint", "list")]
    assert left == [old, newest + 1] and all(one["good"] for one in daemon.ctl("checkpoint", "verify", "all"))
    assert len(list(daemon.checkpoints.glob("undone-gen-*"))) == len(numbers) - 1
    daemon.run_to_the_end()
    after = daemon.manifest()
    for name in ("positions", "event_digest", "trained_events", "skipped_duplicate"):
        assert after[name] == before[name], (name, after[name], before[name])
    assert int(after["generation"]) > newest + 1
    for name, blob in sequences.items():
        assert live.redis.call("GET", name) == blob, name


def main():
    with scratch() as folder, Broker(folder / "kafka") as kafka, Server(folder / "redis") as redis:
        kafka.start()
        redis.start()
        test_letters(kafka, kafka.client())
        live = Live(folder, kafka, redis)
        test_pause(live)
        test_end(live)
        test_explain(live)
        assert live.daemon.process.stop() == 0
        test_audit(live)
        test_rollback(live)


main()
