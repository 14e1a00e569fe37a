"""With one partition, a daemon that was interrupted ends with the same weights as one that was not, bit for bit."""

import lives
from checks import check_all, check_same
from world import timed, world

EVENTS = 3_500
# Slow enough to be interrupted; all daemons alike, since a mini-batch's make-up decides about the weights.
SETTINGS = {"train": {"replay_ratio": 7, "batch": 128}}
INTERRUPTIONS = (lives.killed, lives.terminated)


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
