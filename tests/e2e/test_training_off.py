"""train.enabled: false: sequences, positions and counts as ever, nothing learned, vectors only of weights that were."""

import stored
from checks import check_positions, check_sequences, check_vectors
from growing import growing
from harness import safetensors
from world import timed

EVENTS = 1200


def run(world, daemon, enabled, *options):
    daemon.configure({"train": {"enabled": enabled}})
    with timed(f"training {'on' if enabled else 'off'}"):
        daemon.run_to_the_end(*options)
    manifest = daemon.manifest()
    check_positions(manifest, world.records)
    assert int(manifest["waiting"]) == 0
    with world.database(0) as client:
        check_sequences(client, world.expected)
    return manifest


def weights(daemon):
    return safetensors.load(daemon.generations()[-1] / "model.safetensors")[0]


def contexts(world):
    return world.expected.counts["trained_events"] + world.expected.counts["skipped_no_features"]


def main():
    with growing(3 * EVENTS, 2) as world:
        world.produce(EVENTS)
        world.settle()
        daemon = world.daemon("off", 0)
        first = run(world, daemon, False, "--init-if-empty")
        skipped = contexts(world)
        assert int(first["skipped_training_off"]) == skipped > EVENTS / 2, first
        assert int(first["trained_events"]) == int(first["event_digest"]) == int(first["step"]) == 0
        for name in ("skipped_no_context", "skipped_duplicate", "dead_lettered"):
            assert int(first[name]) == world.expected.counts[name] > 0 or name != "skipped_no_context"
        with world.database(0) as client:  # nothing is served that was never trained
            assert not stored.keys(client, "user") and not stored.keys(client, "item")
            assert client.call("EXISTS", f"{stored.PREFIX}model") == 0

        old = set(world.expected.taught)
        world.produce(EVENTS)
        world.settle()
        second = run(world, daemon, True)
        assert int(second["skipped_training_off"]) == skipped
        assert int(second["trained_events"]) == len(set(world.expected.taught) - old) > 0
        check_vectors(world, daemon, 0)

        before, learned = contexts(world), weights(daemon)
        world.produce(EVENTS)
        world.settle()
        third = run(world, daemon, False)
        for name in ("trained_events", "event_digest", "step"):
            assert third[name] == second[name], (name, third, second)
        assert int(third["skipped_training_off"]) == skipped + contexts(world) - before
        assert weights(daemon) == learned
        check_vectors(world, daemon, 0)  # of all users, by the weights as they are


main()
