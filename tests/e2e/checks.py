"""What a daemon left behind against the reference."""

import stored
import vectors
import workload
from daemon import KEEP, LENGTH
from harness import protobuf, safetensors
from harness.xxh3 import event_digest, xxh3_64
from world import COUNTERS, TOPIC


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


def check_vectors(world, daemon, database, vector_type="float32"):
    """Vectors of users and items are those of the newest checkpoint's weights, and of one epoch."""
    weights = vectors.Weights(daemon.generations()[-1])
    sequences = {}
    for user, entries in world.expected.sequences.items():
        known = [entry.item_id for entry in entries[-LENGTH:] if entry.item_id in world.features]
        if known:
            sequences[user] = known
    user_vectors, item_vectors = vectors.compute(daemon.folder, weights, world.features, sequences)
    with world.database(database) as client:
        assert stored.keys(client, "user") == {stored.key("user", user) for user in sequences}
        assert stored.keys(client, "item") == {stored.key("item", item) for item in world.features}
        names = [name.decode() for name in client.call("HGETALL", f"{stored.PREFIX}model")]
    model = dict(zip(names[::2], names[1::2], strict=True))
    assert model["step"] == daemon.manifest()["step"] == weights.metadata["step"], model
    dim = 2 * weights.width + 1
    assert model["metric"] == "ip" and int(model["dim"]) == dim and model["type"] == vector_type
    bytes_each, rounding = {"float32": (4, 0), "float16": (2, 2**-11)}[vector_type]
    users = read_hashes(world, database, "user", sequences, ("v", "epoch", "step", "n", "event_ms"))
    items = read_hashes(world, database, "item", world.features, ("v", "epoch"))
    worst = {}
    for kind, found, wanted in (("user", users, user_vectors), ("item", items, item_vectors)):
        for name, fields in found.items():
            assert fields["epoch"].decode() == model["epoch"], (kind, name, fields["epoch"], model)
            assert len(fields["v"]) == bytes_each * dim
            difference = worst_difference(stored.vector(fields["v"], dim), wanted[name])
            assert difference < 1e-4 + rounding * max(map(abs, wanted[name])), (kind, name, difference)
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


def check_status(world, daemon, database):
    """The status topic has messages of this daemon that can be read, and Redis the newest."""
    with world.database(database) as client:
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
    manifest = daemon.manifest()
    check_manifest(manifest, world.expected)
    check_positions(manifest, world.records)
    with world.database(database) as client:
        check_sequences(client, world.expected)
    check_vectors(world, daemon, database)


def check_m2sectl(world, daemon):
    """The command that the documentation names shows the same sequences; it may say more of an entry."""
    fields = ("item_id", "event_time_ms", "partition", "offset")
    for user in list(world.expected.sequences)[:5]:
        answer = daemon.ctl("sequence", user)
        wanted = [
            [getattr(entry, field) for field in fields] for entry in world.expected.sequences[user][-KEEP:]
        ]
        assert answer["user"] == user
        assert [[item[field] for field in fields] for item in answer["items"]] == wanted, user


def positions(world, manifest):
    """{partition: next offset}"""
    known = manifest["positions"].get(TOPIC, {})
    return {partition: int(known.get(str(partition), 0)) for partition in range(world.partitions)}


def check_partial(world, daemon):
    """A checkpoint in mid-stream is exactly the prefix that its positions say. Returns how many records that is."""
    manifest, weights = daemon.manifest(), vectors.Weights(daemon.generations()[-1])
    prefix = world.expect(until=positions(world, manifest))
    waiting = list(weights.state["waiting.digest"][1])
    assert len(waiting) == int(manifest["waiting"])
    assert int(manifest["trained_events"]) + len(waiting) == prefix.counts["trained_events"]
    assert (int(manifest["event_digest"]) + sum(waiting)) % 2**64 == event_digest(TOPIC, prefix.taught)
    for name in COUNTERS[1:]:
        assert int(manifest[name]) == prefix.counts[name], name
    return prefix.counts["taken"]


def check_same(one, other):
    """Two daemons have the same weights and moments, bit for bit."""
    for name in ("model.safetensors", "optimizer.safetensors"):
        first, second = [safetensors.load(daemon.generations()[-1] / name) for daemon in (one, other)]
        assert first[1] == second[1], (name, first[1], second[1])
        assert set(first[0]) == set(second[0])
        different = [tensor for tensor in first[0] if first[0][tensor] != second[0][tensor]]
        assert not different, f"{name}: {len(different)} of {len(first[0])} tensors differ: {different[:5]}"
