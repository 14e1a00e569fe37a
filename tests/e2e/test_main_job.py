"""The main job on real input: interactions of MovieLens-100K in, and everything that comes out of them compared with a
reference computed from the log: sequences, counters, digest, dead letters, vectors; uninterrupted, after kill -9 in
mid-stream, after SIGTERM in mid-stream."""

import lives
from checks import check_all, check_dead_letters, check_m2sectl, check_status, positions
from world import COUNTERS, TOPIC, timed, world

EVENTS, PARTITIONS = 10_000, 4
# Slows the first life of an interrupted daemon: each event brings more replay, and nothing else changes.
SLOW = {"train": {"replay_ratio": 7, "batch": 128}}
FAST = {"train": {"replay_ratio": 1, "batch": 64}}


def uninterrupted(world):
    daemon = world.daemon("calm", 0)
    with timed("uninterrupted"):
        daemon.run_to_the_end("--init-if-empty")
    check_all(world, daemon, 0)
    assert check_dead_letters(world, TOPIC, world.expected.dead) == len(world.expected.dead)
    assert check_dead_letters(world, "items", world.bad_items) == len(world.bad_items)
    events = check_status(world, daemon, 0)["events"]
    assert events["received"] == len(world.records) and events["replayed"] == 0
    check_m2sectl(world, daemon)
    # Nothing new: nothing changes, and that takes no step.
    before = daemon.manifest()
    with timed("again"):
        daemon.run_to_the_end()
    after = daemon.manifest()
    assert all(
        before[name] == after[name] for name in (*COUNTERS, "event_digest", "step", "positions", "lineage")
    )
    assert int(after["generation"]) > int(before["generation"])
    check_all(world, daemon, 0)


def dead_letters(world):
    return len(world.client.read_all(f"{TOPIC}.dlq"))


def killed(world):
    """After kill -9 Redis is ahead of the checkpoint; every event counts once all the same."""
    daemon = world.daemon("killed", 1, SLOW)
    letters = dead_letters(world)
    taken = lives.killed(world, daemon, 1)
    daemon.configure(FAST)
    with timed("after kill -9"):
        daemon.run_to_the_end()
    check_all(world, daemon, 1)
    events = check_status(world, daemon, 1)["events"]
    assert events["replayed"] > 0, "Redis was not ahead of the checkpoint: nothing was tested"
    assert events["received"] == len(world.records) - taken
    # Of what was read twice, a dead letter may be there twice; none is missing.
    assert dead_letters(world) >= letters + len(world.expected.dead)


def terminated(world):
    """SIGTERM loses nothing, and the restart repeats nothing. Meanwhile more items come."""
    daemon = world.daemon("terminated", 2, SLOW)
    letters = dead_letters(world)
    taken = lives.terminated(world, daemon, 2)
    world.add_items(since=positions(world, daemon.manifest()))
    daemon.configure(FAST)
    with timed("after SIGTERM"):
        daemon.run_to_the_end()
    check_all(world, daemon, 2)
    events = check_status(world, daemon, 2)["events"]
    assert events["replayed"] == 0 and events["received"] == len(world.records) - taken
    assert dead_letters(world) == letters + len(world.expected.dead)


def main():
    with world(EVENTS, PARTITIONS) as made:
        uninterrupted(made)
        killed(made)
        terminated(made)


main()
