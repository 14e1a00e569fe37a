"""A daemon that stays: it starts before there is anything to learn from, and follows items and events as they come, while
Kafka and Redis are not always there."""

import random
import signal
import struct
import time

import stored
import workload
from checks import check_sequences
from daemon import KEEP, LENGTH, Daemon
from expected import decode_interaction, expect
from harness import protobuf
from harness.kafka import Broker, Record
from harness.process import Process, scratch, wait_until
from harness.redis import Server
from world import COUNTERS, TOPIC, timed

USERS, ITEMS, DIM, PARTITIONS = 30, 60, 32, 3
SETTINGS = {"train": {"batch": 16}, "serve": {"epoch_steps": 5}}


class Stream:
    def __init__(self, folder, kafka, redis):
        self.kafka, self.redis = kafka, redis
        self.random = random.Random(1)
        self.client, self.store = kafka.client(), redis.client()
        for topic, partitions in ((TOPIC, PARTITIONS), ("items", 1), ("m2se.status", 1), (f"{TOPIC}.dlq", 1)):
            self.client.create_topic(topic, partitions)
        self.daemon = Daemon(folder / "live", kafka, redis, 0, SETTINGS)
        self.time_ms = 1_700_000_000_000
        self.phases = [(0, set())]  # (event time, ids of items with rows after it)

    # ---- what happens ----

    def produce(self, count, items):
        """Events of known users; returns what each user did last: {user: event time}"""
        last, records = {}, []
        for _ in range(count):
            self.time_ms += 1000
            user, item = f"user {self.random.randrange(USERS)}", self.random.choice(items)
            event = {
                "user_id": user,
                "item_id": item,
                "event_time_ms": self.time_ms,
                "event_id": str(self.time_ms),
            }
            records.append(Record(user.encode(), protobuf.encode("Interaction", event)))
            last[user] = self.time_ms
        self.client.produce(TOPIC, records)
        return last

    def produce_items(self, names):
        def rows():
            return struct.pack(f"<{DIM}f", *(self.random.gauss(0, 1) for _ in range(DIM)))

        self.client.produce("items", [workload.item_record(name, rows(), rows(), DIM) for name in names])

    def featured_from_now(self, names):
        self.phases.append((self.time_ms, set(names)))

    # ---- what can be seen ----

    def status(self):
        blob = self.store.call("GET", f"{stored.PREFIX}status")
        return protobuf.decode("Status", blob) if blob else None

    def user(self, name, field):
        return self.store.call("HGET", stored.key("user", name), field)

    def item(self, name, field="v"):
        return self.store.call("HGET", stored.key("item", name), field)

    def wait_followed(self, last, seconds=20):
        """Until each of these users has a vector made after that event."""
        wait_until(
            lambda: all(int(self.user(user, "event_ms") or 0) == time_ms for user, time_ms in last.items()),
            seconds,
            "the users' vectors",
        )

    def wait_status(self, condition, what, seconds=20):
        return wait_until(lambda: (status := self.status()) and condition(status) and status, seconds, what)

    def manifest_is_complete(self):
        """Does the newest checkpoint have all that was produced?"""
        ends = {str(p): str(self.client.offset(TOPIC, p)) for p in range(PARTITIONS)}
        return self.daemon.manifest()["positions"].get(TOPIC) == ends


def before_items(stream):
    """Events, but no item has features: it waits and says so."""
    stream.produce(50, ["a stranger"])
    process = stream.daemon.start("--init-if-empty")
    status = stream.wait_status(
        lambda status: "no item has feature rows yet" in status["reasons"], "a status with its reason"
    )
    assert status["state"] == "STATE_STARTING", status
    return process


def follow(stream, names):
    stream.produce_items(names)
    stream.featured_from_now(names)
    wait_until(
        lambda: all(stream.store.pipeline([["EXISTS", stored.key("item", n)] for n in names])), 20, "items"
    )
    for _ in range(10):
        stream.wait_followed(stream.produce(60, names))
    start = time.monotonic()
    stream.wait_followed(stream.produce(1, names))
    print(f"from the producer to a new vector: {1000 * (time.monotonic() - start):.0f} ms")
    stream.wait_status(
        lambda s: s["state"] == "STATE_RUNNING" and s["serving"]["epoch"] > 3 and not s["reasons"], "epochs"
    )


def items_come_and_go(stream, names):
    """A new item has a vector without waiting for an epoch, a deleted one none, until it comes again."""
    stream.produce_items(["brand new"])
    wait_until(lambda: stream.item("brand new"), 20, "the new item")
    # In the middle of an epoch's beginning items are ahead of the model.
    wait_until(
        lambda: stream.item("brand new", "epoch") == stream.store.call("HGET", f"{stored.PREFIX}model", "epoch"),
        20,
        "the new item's epoch",
    )
    stream.client.produce("items", [Record(b"brand new", None)])
    wait_until(lambda: not stream.store.call("EXISTS", stored.key("item", "brand new")), 20, "the deletion")
    epoch = stream.status()["serving"]["epoch"]
    stream.wait_followed(stream.produce(200, [*names, "brand new"]))
    stream.wait_status(lambda status: status["serving"]["epoch"] > epoch, "another epoch")
    assert not stream.store.call("EXISTS", stored.key("item", "brand new"))
    wait_until(stream.manifest_is_complete, 20, "a checkpoint after a deletion")
    stream.produce_items(["brand new"])
    wait_until(lambda: stream.item("brand new"), 20, "the item that is there again")
    stream.featured_from_now([*names, "brand new"])
    stream.wait_followed(stream.produce(100, [*names, "brand new"]))


def faults(stream, names):
    """Kafka is killed and comes back, Redis stops answering for a while: all goes on, nothing is lost."""
    stream.kafka.kill()
    time.sleep(1)
    stream.kafka.start()
    stream.client = stream.kafka.client()
    stream.wait_followed(stream.produce(100, names), 60)
    stream.redis.pause()
    last = stream.produce(100, names)
    time.sleep(1)
    stream.redis.resume()
    stream.wait_followed(last, 60)


def checkpoints(stream, process):
    # One daemon a folder.
    second = Process(stream.daemon.command, stream.daemon.folder / "second.log").start()
    assert second.wait(20) not in (0, -signal.SIGKILL) and "lock" in second.output(), second.output()
    wait_until(stream.manifest_is_complete, 20, "a complete checkpoint")
    positions = stream.daemon.manifest()["positions"][TOPIC]
    for partition, offset in positions.items():
        wait_until(
            lambda p=int(partition), o=int(offset): stream.client.committed_offset("live", TOPIC, p) == o,
            10,
            "the committed offset",
        )
    before = int(stream.daemon.manifest()["generation"])
    process.signal(signal.SIGUSR1)
    wait_until(lambda: int(stream.daemon.manifest()["generation"]) > before, 10, "the checkpoint asked for")


def check_end(stream):
    def featured(record):
        event_time_ms = decode_interaction(record)["event_time_ms"]
        return [names for since, names in stream.phases if since < event_time_ms][-1]

    records = stream.client.read_all(TOPIC)
    expected = expect(TOPIC, records, featured, LENGTH, KEEP)
    check_sequences(stream.store, expected)
    manifest = stream.daemon.manifest()
    counts = {name: int(manifest[name]) for name in COUNTERS}
    counts["trained_events"] += int(manifest["waiting"])
    assert counts == {name: expected.counts[name] for name in COUNTERS}, (counts, expected.counts)
    assert not stream.client.read_all(f"{TOPIC}.dlq")
    print(f"{len(records)} events: {counts}")


def main():
    names = [f"item {number}" for number in range(ITEMS)]
    with scratch() as folder, Broker(folder / "kafka") as kafka, Server(folder / "redis") as redis:
        kafka.start()
        redis.start()
        stream = Stream(folder, kafka, redis)
        process = before_items(stream)
        with timed("follow"):
            follow(stream, names)
        with timed("items come and go"):
            items_come_and_go(stream, names)
        with timed("faults"):
            faults(stream, names)
        checkpoints(stream, process)
        assert process.stop() == 0
        check_end(stream)


main()
