"""Users who ask to be forgotten: nothing of them is left in Redis or in a checkpoint, and nothing comes back with what was
under way, with a crash, with late events or with older data of Redis; who comes again begins anew."""

import dataclasses
import shutil
import time

import stored
import vectors
from checks import check_sequences
from expected import decode_interaction
from growing import growing, status, wait_taken
from harness import protobuf
from harness.kafka import Record
from harness.process import wait_until
from harness.xxh3 import xxh3_64
from world import COUNTERS, TOPIC, timed
from workload import is_bad

EVENTS, PARTITIONS = 2500, 2
TOPIC_ERASURES = "erasures"


def forget(world, *users):
    world.client.produce(TOPIC_ERASURES, [Record(user.encode(), None) for user in users])


def wait_forgotten(world, count):
    wait_until(lambda: (s := status(world, 0)) and s["events"]["erasures"] == count, 20, f"{count} forgotten")


def left(world, user):
    """Which of the user's keys are there."""
    with world.database(0) as client:
        keys = [stored.key(kind, user) for kind in ("seq", "user")]
        return [key for key, there in zip(keys, client.pipeline([["EXISTS", k] for k in keys]), strict=True) if there]


def examples_of(daemon, user):
    """How many examples of the user the newest checkpoint holds (none is removed while it is read)."""
    state = vectors.Weights(daemon.generations()[-1]).state
    hashes = [list(state[name][1]) for name in state if name.endswith(".user_hash")]
    assert len(hashes) >= 2
    return sum(found.count(xxh3_64(user.encode())) for found in hashes)


def busiest(world, count):
    """Users whose events have no bad record among them, those with most events first."""
    users = {}
    for record in world.client.read_all(TOPIC):
        if not is_bad(record):
            user = decode_interaction(record)["user_id"]
            users[user] = users.get(user, 0) + 1
    return sorted(users, key=users.get, reverse=True)[:count]


def is_gone(world, daemon, user):
    """Not only now: new epochs make all vectors again."""
    assert not left(world, user)
    time.sleep(2.5)
    assert not left(world, user)
    wait_until(lambda: examples_of(daemon, user) == 0, 30, "a checkpoint without the user")


def rolled_back(redis, files, copy):
    redis.kill()
    shutil.rmtree(files)
    shutil.copytree(copy, files)
    redis.start()


def fall_back(world, daemon, process, live_one, other):
    """Redis comes back with the data of before a user was forgotten: under a running daemon, and while it is away."""
    folder = world.redis.unix_socket.parent
    files, copy = folder / "appendonlydir", folder / "copy"
    wait_until(lambda: len(left(world, live_one)) == 2 and len(left(world, other)) == 2, 30, "their vectors")
    shutil.copytree(files, copy)
    forget(world, live_one)
    wait_until(lambda: not left(world, live_one), 20, "the fourth to be forgotten")
    time.sleep(1.5)  # the daemon has noted it in Redis
    rolled_back(world.redis, files, copy)
    assert len(left(world, other)) > 0
    wait_until(lambda: "Redis has lost sequences" in process.output(), 30, "the loss to be seen")
    wait_until(lambda: not left(world, live_one), 30, "the fourth to be gone again")
    is_gone(world, daemon, live_one)
    wait_taken(world, 0)
    wait_until(lambda: len(left(world, other)) == 2, 30, "the others to be there again")
    shutil.rmtree(copy)
    shutil.copytree(files, copy)
    forget(world, other)
    wait_until(lambda: not left(world, other), 20, "the fifth to be forgotten")
    assert process.stop() == 0
    rolled_back(world.redis, files, copy)
    assert len(left(world, other)) == 2
    process = daemon.start()
    wait_until(lambda: "Redis is of before what the checkpoint has" in process.output(), 30, "the loss to be seen")
    wait_until(lambda: not left(world, other), 30, "the fifth to be gone again")
    is_gone(world, daemon, other)
    assert not left(world, live_one)


def live(world, daemon):
    """Returns who asked."""
    process = daemon.start("--init-if-empty")
    world.produce(1200)
    wait_taken(world, 0)
    first, second, third = busiest(world, 3)
    wait_until(lambda: len(left(world, first)) == 2, 30, "the user's vector")
    wait_until(lambda: daemon.generations() and examples_of(daemon, first) > 0, 30, "a checkpoint with the user")
    forget(world, first, "y" * 129)  # and one who cannot exist
    wait_forgotten(world, 1)
    is_gone(world, daemon, first)
    ((_, letter),) = [(r.key, dict(r.headers)) for r in world.client.read_all(f"{TOPIC_ERASURES}.dlq")]
    assert letter["__connect.errors.topic"] == TOPIC_ERASURES.encode()
    # An event of before that comes late is not learned; one that comes later is.
    event = {"user_id": first, "item_id": "50", "event_time_ms": 880_000_000_000, "event_id": "late"}
    value = protobuf.encode("Interaction", event)
    world.client.produce(TOPIC, [Record(first.encode(), value, timestamp_ms=1_600_000_000_000)])
    wait_taken(world, 0)
    assert not left(world, first)
    world.produce(700)
    wait_taken(world, 0)
    assert left(world, first), "the stream has no more events of that user"
    with timed("kill -9 with a request under way"):
        world.produce(300)
        forget(world, second)
        process.kill()
        process = daemon.start()
        wait_taken(world, 0)
        wait_until(lambda: not left(world, second), 20, "the second to be forgotten")
    is_gone(world, daemon, second)
    assert left(world, first), "the first request was done twice"
    # Who asks while the daemon is away has asked before it reads anything else.
    assert process.stop() == 0
    forget(world, third)
    process = daemon.start()
    wait_taken(world, 0)
    wait_until(lambda: not left(world, third), 20, "the third to be forgotten")
    is_gone(world, daemon, third)
    fourth, fifth = [user for user in busiest(world, 5) if user not in (first, second, third)][:2]
    with timed("Redis falls back"):
        fall_back(world, daemon, process, fourth, fifth)
    world.produce(EVENTS)
    wait_taken(world, 0)
    assert daemon.process.stop() == 0
    return first, second, third, fourth, fifth


def check(world, daemon, users):
    """What is left is what came after the requests, by the times that Kafka's records have."""
    requests = {r.key.decode(): r.timestamp_ms for r in world.client.read_all(TOPIC_ERASURES)}
    until = {user: requests[user] for user in users}
    records, erased = [], 0
    for record in world.client.read_all(TOPIC):
        user = None if is_bad(record) else decode_interaction(record)["user_id"]
        if user in until and record.timestamp_ms <= until[user]:
            erased += 1
        else:
            records.append(dataclasses.replace(record))
    world.records = records
    expected = world.expect()
    with world.database(0) as client:
        check_sequences(client, expected)
    manifest = daemon.manifest()
    counts = {name: int(manifest[name]) for name in (*COUNTERS, "skipped_erased", "waiting", "parked")}
    print(f"{erased} events of those who asked; {counts}")
    assert sum(counts.values()) == len(records) + erased  # each has one outcome
    assert counts["skipped_erased"] >= 1
    assert all(examples_of(daemon, user) <= len(expected.sequences.get(user, ())) for user in until)


def main():
    with growing(EVENTS, PARTITIONS, ["appendonly yes", "appendfsync always"]) as world:
        world.client.create_topic(TOPIC_ERASURES, 1)
        world.client.create_topic(f"{TOPIC_ERASURES}.dlq", 1)
        daemon = world.daemon("forgets", 0)
        daemon.configure({"checkpoint": {"keep": 1000}})
        users = live(world, daemon)
        check(world, daemon, users)


main()
