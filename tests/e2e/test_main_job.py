"""The main job on real input: interactions of MovieLens-100K in, and everything that comes out of them compared with a
reference computed from the log: sequences, counters, digest, dead letters, vectors; uninterrupted, after SIGTERM in
mid-stream, after kill -9 in mid-stream."""

import contextlib
import signal
import time

import stored
import vectors
import workload
from daemon import KEEP, LENGTH, Daemon
from expected import expect
from harness import protobuf
from harness.kafka import Broker
from harness.process import scratch, wait_until
from harness.redis import Server
from harness.xxh3 import event_digest, xxh3_64

EVENTS = 10_000
PARTITIONS = 4
TOPIC = "interactions"
COUNTERS = (
    "trained_events",
    "skipped_no_context",
    "skipped_no_features",
    "skipped_duplicate",
    "dead_lettered",
)
# Slows the first life of an interrupted daemon: each event brings more replay, and nothing else changes.
SLOW = {"train": {"replay_ratio": 31, "batch": 256}}


@contextlib.contextmanager
def timed(name):
    start = time.monotonic()
    yield
    print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)


class World:
    """The servers, the log, and what must come of it."""

    def __init__(self, folder, kafka, redis):
        self.folder, self.kafka, self.redis = folder, kafka, redis
        self.client = kafka.client()
        items, interactions = workload.movielens(folder)
        assert len(interactions) >= EVENTS
        for topic, partitions in ((TOPIC, PARTITIONS), ("items", 1)):
            self.client.create_topic(topic, partitions)
            self.client.create_topic(f"{topic}.dlq", 1)
        self.client.create_topic("m2se.status", 1)
        self.client.produce("items", workload.item_records(items))
        self.client.produce(TOPIC, workload.interaction_records(interactions[:EVENTS]))
        self.records = self.client.read_all(TOPIC)
        self.item_log = self.client.read_all("items")
        self.features = workload.read_items(self.item_log)
        self.expected = self.expect()
        counts = self.expected.counts
        print(f"expected: {dict(counts)}, {len(self.expected.sequences)} users, {len(self.features)} items")
        assert all(counts[name] > 10 for name in COUNTERS) and counts["trained_events"] > EVENTS / 2

    def expect(self, until=None):
        return expect(TOPIC, self.records, self.features, LENGTH, KEEP, until)

    def daemon(self, name, database, settings=None):
        return Daemon(self.folder / name, self.kafka, self.redis, database, settings)


# ---- what is compared ----


def check_manifest(manifest, expected):
    """After --until-end: nothing waits, and every record had one outcome."""
    for name in COUNTERS:
        assert int(manifest[name]) == expected.counts[name], (name, manifest[name], expected.counts[name])
    assert int(manifest["event_digest"]) == expected.digest
    assert int(manifest["skipped_guard"]) == 0 and int(manifest["waiting"]) == 0


def check_positions(manifest, records):
    ends = {}
    for record in records:
        ends[str(record.partition)] = str(record.offset + 1)
    assert manifest["positions"] == {TOPIC: ends}, manifest["positions"]


def check_sequences(client, expected):
    """Every sequence holds the newest entries of the reference; how many beyond KEEP is the daemon's affair."""
    users = {stored.key("seq", user): user for user in expected.sequences}
    assert stored.keys(client, "seq") == set(users)
    blobs = client.pipeline([["GET", name] for name in users])
    for user, blob in zip(users.values(), blobs, strict=True):
        entries = expected.sequences[user]
        next_positions, found = stored.decode_sequence(blob)
        assert next_positions == {entries[0].partition: expected.positions[user]}, user
        assert len(found) >= min(KEEP, len(entries)), (user, len(found))
        wanted = [
            (
                e.item_id,
                e.event_time_ms,
                e.partition,
                e.offset,
                xxh3_64(e.event_id.encode()) if e.event_id else None,
            )
            for e in entries[-len(found) :]
        ]
        assert found == wanted, user
    assert all(left > 0 for left in client.pipeline([["TTL", name] for name in users]))


def read_hashes(world, database, kind, names, fields):
    """{name: {field: bytes or None}}, by plain redis-cli."""
    commands = [["HGET", stored.key(kind, name), field] for name in names for field in fields]
    replies = iter(stored.redis_cli(world.redis.port, database, commands))
    return {name: {field: next(replies) for field in fields} for name in names}


def worst_difference(found, wanted):
    assert len(found) == len(wanted), (len(found), len(wanted))
    return max(abs(a - b) for a, b in zip(found, wanted, strict=True))


def check_vectors(world, daemon, database):
    """Vectors of users and items are those of the newest checkpoint's weights, and of one epoch."""
    weights = vectors.Weights(daemon.generations()[-1])
    sequences = {}
    for user, entries in world.expected.sequences.items():
        known = [entry.item_id for entry in entries[-LENGTH:] if entry.item_id in world.features]
        if known:
            sequences[user] = known
    user_vectors, item_vectors = vectors.compute(daemon.folder, weights, world.features, sequences)
    with world.redis.client() as client:
        client.call("SELECT", database)
        assert stored.keys(client, "user") == {stored.key("user", user) for user in sequences}
        assert stored.keys(client, "item") == {stored.key("item", item) for item in world.features}
        names = [name.decode() for name in client.call("HGETALL", f"{stored.PREFIX}model")]
    model = dict(zip(names[::2], names[1::2], strict=True))
    assert model["step"] == daemon.manifest()["step"] == weights.metadata["step"], model
    assert model["metric"] == "ip" and int(model["dim"]) == 2 * weights.width + 1
    users = read_hashes(world, database, "user", sequences, ("v", "epoch", "step", "n", "event_ms"))
    items = read_hashes(world, database, "item", world.features, ("v", "epoch"))
    worst = {}
    for kind, found, wanted in (("user", users, user_vectors), ("item", items, item_vectors)):
        for name, fields in found.items():
            assert fields["epoch"].decode() == model["epoch"], (kind, name, fields["epoch"], model)
            difference = worst_difference(stored.floats(fields["v"]), wanted[name])
            assert difference < 1e-4, (kind, name, difference)
            worst[kind] = max(worst.get(kind, 0), difference)
    for user, fields in users.items():
        entries = world.expected.sequences[user]
        assert fields["step"].decode() == model["step"]
        assert (
            int(fields["n"]) == min(KEEP, len(entries))
            and int(fields["event_ms"]) == entries[-1].event_time_ms
        )
    # The comparison means something: the vectors differ from each other, and biases and residuals were learned.
    for found in (user_vectors, item_vectors):
        first = next(iter(found.values()))
        assert max(worst_difference(first, other) for other in found.values()) > 0.1
    assert max(abs(vector[-1]) for vector in item_vectors.values()) > 1e-3
    print(f"vectors of step {model['step']}: worst difference {worst}")


def check_dead_letters(world, topic, bad):
    """Each as it came, with its own headers and those that say why. Returns how many there are."""
    letters = world.client.read_all(f"{topic}.dlq")
    found = {}
    for letter in letters:
        headers = dict(letter.headers)
        place = int(headers["__connect.errors.partition"]), int(headers["__connect.errors.offset"])
        assert headers["__connect.errors.topic"] == topic.encode() and headers["__connect.errors.reason"]
        assert headers["__connect.errors.stage"] == b"decode"
        found[place] = letter
    assert set(found) == {(record.partition, record.offset) for record in bad}
    for record in bad:
        letter = found[record.partition, record.offset]
        assert (letter.key, letter.value) == (record.key, record.value)
        assert letter.timestamp_ms == record.timestamp_ms
        assert letter.headers[: len(record.headers)] == record.headers
        headers = dict(letter.headers)
        rule, wanted = headers["__connect.errors.exception.class.name"], headers[workload.EXPECT]
        assert rule == wanted, (
            record.partition,
            record.offset,
            rule,
            wanted,
            headers["__connect.errors.reason"],
        )
    return len(letters)


def bad_items(world):
    return [record for record in world.item_log if dict(record.headers).get(workload.EXPECT)]


def check_status(world, daemon, database):
    """The status topic has messages of this daemon that can be read, and Redis the newest."""
    with world.redis.client() as client:
        client.call("SELECT", database)
        newest = protobuf.decode("Status", client.call("GET", f"{stored.PREFIX}status"))
    name = daemon.folder.name
    statuses = [
        protobuf.decode("Status", record.value)
        for record in world.client.read_all("m2se.status")
        if record.key == name.encode()
    ]
    assert statuses and statuses[-1] == newest
    assert all(status["instance"] == name for status in statuses)
    manifest = daemon.manifest()
    events = newest["events"]
    assert (
        str(events["digest"]) == manifest["event_digest"]
        and str(events["trained"]) == manifest["trained_events"]
    )
    assert newest["lineage"] == manifest["lineage"] and str(newest["training"]["step"]) == manifest["step"]
    return newest


def check_all(world, daemon, database):
    with world.redis.client() as client:
        client.call("SELECT", database)
        check_sequences(client, world.expected)
    manifest = daemon.manifest()
    check_manifest(manifest, world.expected)
    check_positions(manifest, world.records)
    check_vectors(world, daemon, database)


# ---- the lives of a daemon ----


def uninterrupted(world):
    daemon = world.daemon("calm", 0)
    with timed("uninterrupted"):
        daemon.run_to_the_end("--init-if-empty")
    check_all(world, daemon, 0)
    assert check_dead_letters(world, TOPIC, world.expected.dead) == len(world.expected.dead)
    assert check_dead_letters(world, "items", bad_items(world)) == len(bad_items(world))
    status = check_status(world, daemon, 0)
    assert status["events"]["received"] == len(world.records) and status["events"]["replayed"] == 0
    assert {part["partition"]: part["lag"] for part in status["partitions"]} in (
        {},
        dict.fromkeys(range(PARTITIONS), 0),
    )
    check_m2sectl(world, daemon)
    # Nothing new: nothing changes, and that takes no step.
    before = daemon.manifest()
    daemon.run_to_the_end()
    after = daemon.manifest()
    assert all(
        before[name] == after[name] for name in (*COUNTERS, "event_digest", "step", "positions", "lineage")
    )
    assert int(after["generation"]) > int(before["generation"])
    check_all(world, daemon, 0)


def check_m2sectl(world, daemon):
    """The command that the documentation names shows the same sequences."""
    for user in list(world.expected.sequences)[:5]:
        answer = daemon.ctl("sequence", user)
        wanted = [
            {
                "item_id": e.item_id,
                "event_time_ms": e.event_time_ms,
                "partition": e.partition,
                "offset": e.offset,
            }
            for e in world.expected.sequences[user][-KEEP:]
        ]
        assert answer["user"] == user and answer["items"] == wanted


def wait_mid_stream(world, database, users):
    """Until that many users have a sequence."""
    with world.redis.client() as client:
        client.call("SELECT", database)
        wait_until(lambda: len(stored.keys(client, "seq")) >= users, 60, f"{users} users")


def check_partial(world, manifest, weights):
    """A checkpoint in mid-stream is exactly the prefix that its positions say. Returns how many records that is."""
    until = {
        int(partition): int(offset) for partition, offset in manifest["positions"].get(TOPIC, {}).items()
    }
    prefix = world.expect({partition: until.get(partition, 0) for partition in range(PARTITIONS)})
    waiting = list(weights.state["waiting.digest"][1])
    assert len(waiting) == int(manifest["waiting"])
    assert int(manifest["trained_events"]) + len(waiting) == prefix.counts["trained_events"]
    assert (int(manifest["event_digest"]) + sum(waiting)) % 2**64 == event_digest(TOPIC, prefix.taught)
    for name in COUNTERS[1:]:
        assert int(manifest[name]) == prefix.counts[name], name
    return prefix.counts["taken"]


def terminated(world):
    """SIGTERM in mid-stream loses nothing, and the restart repeats nothing."""
    daemon = world.daemon("terminated", 1, SLOW)
    letters = len(world.client.read_all(f"{TOPIC}.dlq"))
    with timed("until SIGTERM"):
        process = daemon.start("--init-if-empty")
        wait_mid_stream(world, 1, len(world.expected.sequences) // 3)
        status = process.stop()
    assert status == 0, f"exit status {status}"
    taken = check_partial(world, daemon.manifest(), vectors.Weights(daemon.generations()[-1]))
    print(f"SIGTERM after {taken} of {len(world.records)} records")
    assert 0 < taken < len(world.records), "SIGTERM did not come in mid-stream"
    daemon.configure({"train": {"replay_ratio": 1, "batch": 64}})
    with timed("after SIGTERM"):
        daemon.run_to_the_end()
    check_all(world, daemon, 1)
    events = check_status(world, daemon, 1)["events"]
    assert events["replayed"] == 0 and events["received"] == len(world.records) - taken
    assert len(world.client.read_all(f"{TOPIC}.dlq")) == letters + len(world.expected.dead)


def killed(world):
    """After kill -9 in mid-stream Redis is ahead of the checkpoint; every event counts once all the same."""
    daemon = world.daemon("killed", 2, SLOW)
    letters = len(world.client.read_all(f"{TOPIC}.dlq"))
    with timed("until kill -9"):
        process = daemon.start("--init-if-empty")
        daemon.wait_generation(2)
        wait_mid_stream(world, 2, len(world.expected.sequences) // 3)
        process.kill()
    assert process.popen.returncode == -signal.SIGKILL
    taken = check_partial(world, daemon.manifest(), vectors.Weights(daemon.generations()[-1]))
    print(f"kill -9: the checkpoint has {taken} of {len(world.records)} records")
    assert 0 < taken < len(world.records), "kill -9 did not come in mid-stream"
    daemon.configure({"train": {"replay_ratio": 1, "batch": 64}})
    with timed("after kill -9"):
        daemon.run_to_the_end()
    check_all(world, daemon, 2)
    events = check_status(world, daemon, 2)["events"]
    assert events["replayed"] > 0, "Redis was not ahead of the checkpoint: nothing was tested"
    assert events["received"] == len(world.records) - taken
    # Of what was read twice, a dead letter may be there twice; none is missing.
    assert len(world.client.read_all(f"{TOPIC}.dlq")) >= letters + len(world.expected.dead)


def main():
    with (
        scratch() as folder,
        Broker(folder / "kafka") as kafka,
        Server(folder / "redis") as redis,
    ):
        kafka.start()
        redis.start()
        with timed("log"):
            world = World(folder, kafka, redis)
        uninterrupted(world)
        terminated(world)
        killed(world)
        assert {len(world.client.read_all(t)) > 0 for t in (TOPIC, "items", "m2se.status")} == {True}


main()
