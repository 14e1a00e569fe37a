"""Values that are no good: features that are not finite or far too large, floods of one item and of one user, learning rates
a thousand times too high, ids with everything in them that a key, a pattern or a line of a log could stumble over. Nothing
that is not finite gets into weights or Redis, the daemon goes on, and each id has its own key and one line."""

import json
import math
import re
import struct

import stored
import workload
from checks import check_sequences
from growing import growing, status, wait_taken
from harness import protobuf, safetensors
from harness.kafka import Record
from harness.process import wait_until
from world import TOPIC, timed

CHUNK = 300
# As shipped, and a thousand times as much where the settings allow it.
CALM = {"learning_rate": 0.003, "residual_learning_rate": 0.01, "bias_learning_rate": 0.01}
WILD = {"learning_rate": 3, "residual_learning_rate": 10, "bias_learning_rate": 10}
SETTINGS = {"train": {"batch": 32, "guard_rollback": 4, **CALM}, "serve": {"epoch_steps": 5}}
ODD = [
    "{a}",
    "{",
    "}",
    "%7B",
    "100%",
    "%s%n%x",
    "*",
    "[a-z]?",
    'say "hello"',
    "back\\slash",
    "a=b c=d",
    "level=error",
    " ",
    "'; FLUSHALL",
    "\u2028\u2029",
    "☃ käse 日本語",
    "$(reboot)",
    "a:b",
    "y" * 128,
]
# Refused: they hold control characters.
BAD = ["a\nb", "\r\n", "tab\there", "nul\0", "\x1b[31mred\x1b[0m", "\x7f", "c1\u0085"]


def event(user, item, number):
    values = {"user_id": user, "item_id": item, "event_time_ms": 900_000_000_000 + number}
    return Record(user.encode(), protobuf.encode("Interaction", values))


def rows(dim, value):
    return struct.pack(f"<{dim}f", *[value] * dim)


def all_finite(world, daemon):
    """Every vector in Redis, every weight and moment of the newest checkpoint. Returns how many numbers that are."""
    numbers = 0
    with world.database(0) as client:
        for kind in ("user", "item"):
            names = stored.keys(client, kind)
            for field in ("v", "v_prev"):
                for name, blob in zip(
                    names, client.pipeline([["HGET", n, field] for n in names]), strict=True
                ):
                    vector = stored.floats(blob or b"")
                    assert all(map(math.isfinite, vector)), (name, field)
                    numbers += len(vector)
    for path in daemon.generations()[-1].glob("*.safetensors"):
        for name, (_, data) in safetensors.load(path)[0].items():
            if data.typecode in "fd":
                assert all(map(math.isfinite, data)), (path, name)
                numbers += len(data)
    return numbers


def flow(world, daemon, records):
    """The daemon takes them and some of the ordinary stream behind them. Returns the last status."""
    world.client.produce(TOPIC, records)
    wait_taken(world, 0)
    world.produce(CHUNK)
    wait_taken(world, 0)
    newest = wait_until(lambda: (s := status(world, 0))["state"] == "STATE_RUNNING" and s, 30, "a daemon at work")
    print(
        f"{all_finite(world, daemon)} numbers are finite; {newest['training']['steps_refused']} steps refused"
    )
    return newest


def not_finite(world, daemon):
    """Such items are dead letters, whatever form they come in."""
    dim = len(next(rows.text for rows in world.features.values() if rows.text)) // 4
    dim = min(dim, *(len(r.text or r.image) // 4 for r in world.features.values()))
    bad = [rows(dim, value) for value in (math.nan, math.inf, -math.inf)]
    bad += [rows(dim - 1, 0.5) + rows(1, math.nan), struct.pack("<I", 0x7FA00000) * dim]
    records = [workload.item_record(f"nan {i}", row, b"", dim) for i, row in enumerate(bad)]
    records += [workload.item_record(f"nan image {i}", b"", row, dim) for i, row in enumerate(bad)]
    before = len(world.client.read_all("items.dlq"))
    world.client.produce("items", records)
    flow(world, daemon, [event(f"reader {i}", f"nan {i % 5}", i) for i in range(50)])
    letters = wait_until(
        lambda: len(found := world.client.read_all("items.dlq")[before:]) >= len(records) and found, 30, "the letters"
    )
    rules = {dict(letter.headers)["__connect.errors.exception.class.name"] for letter in letters}
    assert len(letters) == len(records) and rules == {b"finite"}, (len(letters), rules)
    with world.database(0) as client:
        assert not any("nan " in name for name in stored.keys(client, "item"))
    return dim


def far_too_large(world, daemon, dim):
    """Features that are finite and whose sums are not: the steps that meet them are left out."""
    names = [f"huge {i}" for i in range(4)]
    values = [3e38, -3e38, 1e30, 1e20]
    records = [
        workload.item_record(n, rows(dim, value), b"", dim) for n, value in zip(names, values, strict=True)
    ]
    world.client.produce("items", records)
    known = list(world.features)[:50]
    records = [event(f"poisoned {i % 5}", (names + known)[i % 54], i) for i in range(200)]
    flow(world, daemon, records)
    world.produce(CHUNK)
    wait_taken(world, 0)


def floods(world, daemon):
    """One item by everybody, one user with everything, one user with one item."""
    known = list(world.features)
    flood = [event(f"follower {i % 150}", known[0], i) for i in range(600)]
    flood += [event("insatiable", known[i % len(known)], i) for i in range(600)]
    flood += [event("monotonous", known[1], i) for i in range(300)]
    flow(world, daemon, flood)


def learning_rates(world, daemon):
    """As before, then wild, then as before: the guard goes back to good weights, no event is left out for it, and the
    loss is where it was."""
    seen = {}
    for name, rates in (("calm", CALM), ("wild", WILD), ("calm again", CALM)):
        assert daemon.process.stop() == 0
        daemon.configure({"train": rates})
        daemon.start()
        seen[name] = flow(world, daemon, [])["training"]
        wanted = ("loss_mean", "steps_applied", "steps_refused", "rollbacks")
        print(name, {key: seen[name][key] for key in wanted}, flush=True)
        assert math.isfinite(seen[name]["loss_mean"])
    calm, wild, again = seen.values()
    assert calm["steps_refused"] == 0, calm
    assert wild["rollbacks"] > calm["rollbacks"] and wild["steps_refused"] == 0, wild
    assert again["steps_refused"] == 0 and again["steps_applied"] > 5, again
    assert again["loss_mean"] < 1.35 * calm["loss_mean"], (calm, again)


def odd_ids(world, daemon):
    """Each user has a sequence under its own key, and m2sectl finds it."""
    assert daemon.process.stop() == 0
    daemon.configure({"log": {"level": "debug", "format": "json"}})
    daemon.start()
    known = list(world.features)[:5]
    records = [event(user, item, i) for i in range(3) for user in ODD for item in (known[i], user)]
    bad = [
        ("id", protobuf.encode("Interaction", {"user_id": i, "item_id": "1", "event_time_ms": 1}))
        for i in BAD
    ]
    bad += [
        ("id", protobuf.encode("Interaction", {"user_id": "1", "item_id": i, "event_time_ms": 1}))
        for i in BAD
    ]
    bad += [("format", b'{"user_id": "1\nlevel=info event=\x1b[2J", "a": }')]
    records += [Record(b"bad\nkey", value, [(workload.EXPECT, rule.encode())]) for rule, value in bad]
    world.client.produce(TOPIC, records)
    wait_taken(world, 0)
    for user in ODD:
        answer = daemon.ctl("sequence", user)
        assert answer["user"] == user
        wanted = [name for i in range(3) for name in (known[i], user)]
        assert [item["item_id"] for item in answer["items"]] == wanted, (user, answer)
    with world.database(0) as client:

        def served():  # an event is taken before its user's vector is there
            return all(client.call("HGET", stored.key("user", user), "v") for user in ODD)

        wait_until(served, 30, "the vectors of the users with odd ids")


def check_log(daemon):
    """A line a line: in logfmt, then in JSON."""
    lines = daemon.process.log.read_bytes().decode().split("\n")
    assert lines.pop() == ""
    plain = [line for line in lines if not line.startswith("{")]
    for line in plain:
        assert re.match(r'time=\S+Z level=\w+ instance=live event=("[^"]*"|\w+)', line), line
    structured = [json.loads(line) for line in lines if line.startswith("{")]
    assert any(entry["event"] == "dead letter" for entry in structured) and len(plain) > 20
    assert all(char.isprintable() for line in lines for char in line if char not in "\u2028\u2029")


def check_end(world, daemon):
    """Every event had one outcome: learned, waiting, or left out by the guard."""
    world.records = world.client.read_all(TOPIC)
    counts = daemon.manifest()
    wanted = {"skipped_no_context", "skipped_duplicate", "dead_lettered"}
    world.expected = world.expect()
    for name in wanted:
        assert int(counts[name]) == world.expected.counts[name], name
    taught = ("trained_events", "skipped_no_features", "skipped_guard", "waiting")
    outcomes = {name: int(counts[name]) for name in taught}
    print(outcomes)
    expected = sum(world.expected.counts[name] for name in taught)
    # Parked ones, where an item has no features yet, are among those without.
    assert sum(outcomes.values()) + int(counts.get("parked", 0)) == expected, (outcomes, expected)
    with world.database(0) as client:
        check_sequences(client, world.expected)


def main():
    with growing(6000, 2) as world:
        daemon = world.daemon("live", 0, SETTINGS)
        daemon.configure({"checkpoint": {"keep": 1000}})  # none goes while we read it
        daemon.start("--init-if-empty")
        world.produce(CHUNK)
        wait_taken(world, 0)
        with timed("not finite"):
            dim = not_finite(world, daemon)
        with timed("far too large"):
            far_too_large(world, daemon, dim)
        with timed("floods"):
            floods(world, daemon)
        with timed("learning rates"):
            learning_rates(world, daemon)
        with timed("odd ids"):
            odd_ids(world, daemon)
        assert daemon.process.stop() == 0
        print(f"{all_finite(world, daemon)} numbers are finite")
        check_log(daemon)
        check_end(world, daemon)


main()
