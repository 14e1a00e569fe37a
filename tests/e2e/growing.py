"""A world whose log grows while a daemon follows it, and what a test of faults asks of both."""

import contextlib
import os

import stored
import workload
from harness import protobuf
from harness.kafka import Broker
from harness.process import scratch, wait_until
from harness.redis import Server
from world import TOPIC, World

LONG = bool(os.environ.get("M2SED_LONG"))


class Growing(World):
    def __init__(self, folder, kafka, redis, events, partitions):
        self.folder, self.kafka, self.redis = folder, kafka, redis
        self.client, self.partitions = kafka.client(), partitions
        items, interactions = workload.movielens(folder)
        for topic, count in ((TOPIC, partitions), ("items", 1)):
            self.client.create_topic(topic, count)
            self.client.create_topic(f"{topic}.dlq", 1)
        self.client.create_topic("m2se.status", 1)
        self.client.produce("items", workload.item_records(items))
        self.coming = workload.interaction_records(interactions[:events])
        self.read_items()

    def produce(self, count):
        """The next records of the stream go into the log; returns how many are still to come."""
        self.client.produce(TOPIC, self.coming[:count])
        del self.coming[:count]
        return len(self.coming)

    def daemon(self, name, database, settings=None):
        """One that has its partitions back at once when it is started again after a kill."""
        daemon = super().daemon(name, database, settings)
        daemon.settings["kafka"]["properties"]["group.instance.id"] = name
        daemon.configure({})
        return daemon

    def ends(self):
        """{partition: offset after the last record}: not the end, where the mark of a transaction may stand."""
        return {record.partition: record.offset + 1 for record in self.client.read_all(TOPIC)}

    def settle(self):
        """The log is complete: what must come of it."""
        self.records = self.client.read_all(TOPIC)
        self.expected = self.expect()


@contextlib.contextmanager
def growing(events, partitions, redis_config=()):
    with (
        scratch() as folder,
        Broker(folder / "kafka") as kafka,
        Server(folder / "redis", redis_config) as redis,
    ):
        kafka.start()
        redis.start()
        yield Growing(folder, kafka, redis, events, partitions)


def status(world, database):
    """The newest Status, or None while there is none or Redis does not answer."""
    try:
        with world.database(database) as client:
            blob = client.call("GET", f"{stored.PREFIX}status")
    except OSError:
        return None
    return protobuf.decode("Status", blob) if blob else None


def wait_taken(world, database, seconds=60):
    """Until every record of the log has gone through Redis to the trainer."""
    ends = world.ends()

    def taken():
        newest = status(world, database)
        found = {p["partition"]: p["trained_offset"] for p in newest["partitions"]} if newest else None
        return newest and all(found.get(partition) == end for partition, end in ends.items()) and newest

    return wait_until(taken, seconds, f"a status with the positions {ends}")
