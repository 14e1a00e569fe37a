"""Servers, a log with a real stream in it, and what must come of it."""

import contextlib
import time

import workload
from daemon import KEEP, LENGTH, Daemon
from expected import expect
from harness.kafka import Broker
from harness.process import scratch
from harness.redis import Server

TOPIC = "interactions"
COUNTERS = (
    "trained_events",
    "skipped_no_context",
    "skipped_no_features",
    "skipped_duplicate",
    "dead_lettered",
)


@contextlib.contextmanager
def timed(name):
    start = time.monotonic()
    yield
    print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)


class World:
    def __init__(self, folder, kafka, redis, events, partitions, portions=1):
        """The log has the first of so many portions of the events; add_events brings the next one."""
        self.folder, self.kafka, self.redis = folder, kafka, redis
        self.client = kafka.client()
        self.partitions = partitions
        items, interactions = workload.movielens(folder)
        assert len(interactions) >= events
        for topic, count in ((TOPIC, partitions), ("items", 1)):
            self.client.create_topic(topic, count)
            self.client.create_topic(f"{topic}.dlq", 1)
        self.client.create_topic("m2se.status", 1)
        self.client.produce("items", workload.item_records(items))
        self.read_items()
        records = workload.interaction_records(interactions[:events])
        size = -(-len(records) // portions)
        self.later = [records[begin : begin + size] for begin in range(0, len(records), size)]
        self.add_events()
        if not self.later:
            assert self.expected.counts["trained_events"] > events / 2

    def add_events(self):
        self.client.produce(TOPIC, self.later.pop(0))
        self.records = self.client.read_all(TOPIC)
        self.expected = self.expect()
        counts = self.expected.counts
        print(f"expected: {dict(counts)}, {len(self.expected.sequences)} users, {len(self.features)} items")
        assert self.later or all(counts[name] for name in COUNTERS)

    def read_items(self):
        log = self.client.read_all("items")
        self.features = workload.read_items(log)
        self.bad_items = [record for record in log if workload.is_bad(record)]

    def expect(self, until=None):
        return expect(TOPIC, self.records, lambda _: self.features, LENGTH, KEEP, until)

    def add_items(self, since):
        """More items get features. since: {partition: offset}; what comes from there on is read with them."""
        before = self.features
        self.client.produce("items", workload.more_item_records(before))
        self.read_items()
        assert set(before) < set(self.features)

        def featured(record):
            return before if record.offset < since[record.partition] else self.features

        self.expected = expect(TOPIC, self.records, featured, LENGTH, KEEP)

    def daemon(self, name, database, settings=None):
        return Daemon(self.folder / name, self.kafka, self.redis, database, settings)

    def database(self, number):
        """A connection to one of the databases of the Redis server."""
        client = self.redis.client()
        client.call("SELECT", number)
        return client


@contextlib.contextmanager
def world(events, partitions, portions=1):
    with scratch() as folder, Broker(folder / "kafka") as kafka, Server(folder / "redis") as redis:
        kafka.start()
        redis.start()
        with timed("log"):
            made = World(folder, kafka, redis, events, partitions, portions)
        yield made
