"""More events than training can follow, and events whose items get their features late: vectors wait for nobody, nothing
is left out, each event is trained once in the end. And steps that the guard leaves out."""

import signal

import vectors
import workload
from checks import check_positions, check_sequences, check_vectors
from daemon import KEEP, LENGTH
from expected import expect
from growing import growing, status
from harness import protobuf
from harness.process import wait_until
from world import TOPIC, timed

EVENTS = 5000
OFFSET_MASK, SKIPPED_MAX = (1 << 48) - 1, 4096  # of a position; events that the guard remembers
# A step is slow, and most of it is replay.
SLOW = {
    "model": {"hidden": 64, "experts": 8, "layers": 2, "ffn": 256},
    "train": {"batch": 128, "replay_ratio": 7, "threads": 1},
    "serve": {"epoch_steps": 20},
}


def statuses(world, daemon):
    found = [protobuf.decode("Status", record.value) for record in world.client.read_all("m2se.status")]
    return [one for one in found if one["instance"] == daemon.folder.name]


def check_manifest(world, daemon, skipped="skipped_no_features"):
    manifest, counts = daemon.manifest(), world.expected.counts
    assert int(manifest["trained_events"]) == counts["trained_events"], manifest
    assert int(manifest["event_digest"]) == world.expected.digest
    assert int(manifest[skipped]) == counts["skipped_no_features"], manifest
    assert int(manifest["waiting"]) == int(manifest["skipped_guard"]) == 0
    check_positions(manifest, world.records)
    return manifest


def behind(world, database, overload, backlog, enough):
    """A log that is full at the start, until there is enough to be seen; then the rest, in haste."""
    name = f"{overload}-{backlog}"
    daemon = world.daemon(name, database, SLOW)
    daemon.configure({"train": {"overload": overload, "backlog": backlog}})
    process = daemon.start("--init-if-empty")
    seen = wait_until(lambda: (s := status(world, database)) and enough(s) and s, 30, "training that is behind")
    process.signal(signal.SIGTERM)
    with timed(f"{name}: from SIGTERM to the end"):
        assert process.wait(20) == 0
    waiting, most = int(daemon.manifest()["waiting"]), max(s["training"]["waiting"] for s in statuses(world, daemon))
    print(f"{name}: {waiting} wait in the checkpoint, at most {most} did")
    assert most <= backlog
    daemon.configure({"train": {"batch": 64, "replay_ratio": 1, "threads": 2}})
    with timed(f"{name}: the rest"):
        daemon.run_to_the_end()
    manifest = check_manifest(world, daemon)
    assert (int(manifest["replay_taken_away"]) > 0) == (overload == "shrink")
    with world.database(database) as client:
        check_sequences(client, world.expected)
    check_vectors(world, daemon, database)
    return seen, waiting


def overload(world):
    # Room for all: vectors (one for all events of a user that wait for it) do not wait for training, nor does the end.
    def ahead(newest):
        return newest["training"]["waiting"] > EVENTS / 2 and newest["serving"]["users_waiting"] == 0

    seen, waiting = behind(world, 0, "pause", 2 * EVENTS, ahead)
    print(f"{seen['serving']['users_published']} vectors, {seen['events']['trained']} events trained")
    assert waiting > EVENTS / 3
    # Hardly any: the log waits.
    seen, waiting = behind(world, 1, "pause", 200, lambda s: s["events"]["trained"] > 300)
    assert seen["events"]["received"] < EVENTS and waiting <= 200
    behind(world, 2, "shrink", 120, lambda s: s["training"]["replay_taken_away"] > 0)


def guard(world, database):
    """A limit that no step keeps: nothing is learned, nothing is lost sight of, and the daemon says why."""
    daemon = world.daemon("guarded", database)
    daemon.configure({"train": {"loss_max": 0.5, "guard_rollback": 5}})
    daemon.run_to_the_end("--init-if-empty")
    manifest, newest, taught = daemon.manifest(), statuses(world, daemon)[-1], world.expected.taught
    steps = int(manifest["step"])
    assert int(manifest["skipped_guard"]) == len(taught) == world.expected.counts["trained_events"]
    assert int(manifest["trained_events"]) == int(manifest["event_digest"]) == 0
    assert int(manifest["rollbacks"]) == steps // 5 > 10 and int(manifest["refused_in_a_row"]) == steps
    assert newest["training"]["steps_refused"] == steps and newest["training"]["loss"] > 0.5
    assert any("training steps are left out" in reason for reason in newest["reasons"]), newest["reasons"]
    state = vectors.Weights(daemon.generations()[-1]).state
    skipped = [position & OFFSET_MASK for position in state["skipped.position"][1]]
    assert skipped == [offset for _, offset in taught[-SKIPPED_MAX:]]
    with world.database(database) as client:
        check_sequences(client, world.expected)


def features_come_late(world, database):
    daemon = world.daemon("parked", database)
    daemon.configure({"train": {"parking": EVENTS, "batch_seconds": 3600}})
    daemon.run_to_the_end("--init-if-empty")
    before = check_manifest(world, daemon, "parked")
    assert int(before["parked"]) > 50 and int(before["skipped_no_features"]) == 0
    world.client.produce("items", workload.more_item_records(world.features))
    world.read_items()
    world.expected = expect(TOPIC, world.records, lambda _: world.features, LENGTH, KEEP)
    daemon.run_to_the_end()
    after = check_manifest(world, daemon, "parked")
    came = int(after["trained_events"]) - int(before["trained_events"])
    print(f"parked: {before['parked']}, then {came} of them were trained")
    assert came == int(after["unparked"]) == int(before["parked"]) - int(after["parked"]) > 0
    check_vectors(world, daemon, database)


def main():
    with growing(EVENTS, 1) as world:
        world.produce(EVENTS * 2)
        world.settle()
        overload(world)
        guard(world, 3)
        features_come_late(world, 4)


main()
