"""With one partition, a daemon that was interrupted ends with the same weights as one that was not, bit for bit."""

import lives
from checks import check_all
from harness import safetensors
from world import timed, world

EVENTS = 3_500
# Slow enough to be interrupted; all daemons alike, since a mini-batch's make-up decides about the weights.
SETTINGS = {"train": {"replay_ratio": 7, "batch": 128}}
INTERRUPTIONS = (lives.killed, lives.terminated)


def check_same(one, other):
    for name in ("model.safetensors", "optimizer.safetensors"):
        first, second = [safetensors.load(daemon.generations()[-1] / name) for daemon in (one, other)]
        assert first[1] == second[1], (name, first[1], second[1])
        assert set(first[0]) == set(second[0])
        different = [tensor for tensor in first[0] if first[0][tensor] != second[0][tensor]]
        assert not different, f"{name}: {len(different)} of {len(first[0])} tensors differ: {different[:5]}"


def main():
    with world(EVENTS, 1) as made:
        calm = made.daemon("calm", 0, SETTINGS)
        with timed("uninterrupted"):
            calm.run_to_the_end("--init-if-empty")
        check_all(made, calm, 0)
        for database, interrupt in enumerate(INTERRUPTIONS, 1):
            daemon = made.daemon(interrupt.__name__, database, SETTINGS)
            interrupt(made, daemon, database)
            with timed("the rest"):
                daemon.run_to_the_end()
            check_all(made, daemon, database)
            check_same(calm, daemon)


main()
