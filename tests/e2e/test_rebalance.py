"""Another member of the group joins and leaves every few seconds, and takes partitions away from a daemon that works on
them: what was under way is done, nothing that follows is left out or taken twice once they are back."""

import signal
import time

from checks import check_all
from growing import LONG, growing, wait_taken
from harness.member import Member
from world import TOPIC, timed

EVENTS, PARTITIONS, ROUNDS = (12_000, 4, 40) if LONG else (3000, 4, 4)


def produce_for(world, process, seconds, share, until=lambda: False):
    """The stream goes on, with a checkpoint, and so a commit, for each part of it; what is left in the end comes at
    once."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not until():
        world.produce(share)
        process.signal(signal.SIGUSR1)
        time.sleep(0.1)


def main():
    with growing(EVENTS, PARTITIONS) as world:
        daemon = world.daemon("shares", 0)
        # A member like others, and heartbeats, which bring the news of a rebalance, more often.
        del daemon.settings["kafka"]["properties"]["group.instance.id"]
        daemon.settings["kafka"]["properties"]["heartbeat.interval.ms"] = "300"
        process = daemon.start("--init-if-empty")
        world.produce(200)
        wait_taken(world, 0)
        share = EVENTS // (ROUNDS * 45)
        taken = []
        with timed("with the other member"):
            for _ in range(ROUNDS):
                with Member(world.kafka.bootstrap, "shares", TOPIC) as member:
                    # Joining takes seconds, more of them if the one before left in the middle of it.
                    produce_for(world, process, 90, share, until=lambda member=member: member.most)
                    produce_for(world, process, 1, share)
                taken.append(member.most)
                produce_for(world, process, 1.5, share)
        lines = process.output().splitlines()
        went, lost = ([line for line in lines if f"partition {how}" in line] for how in ("goes", "lost"))
        print(f"partitions taken away, each time: {taken}")
        assert all(taken)
        # A commit in the middle of a rebalance makes librdkafka give up all its partitions, and begin again.
        assert went and not lost, lost
        world.produce(EVENTS)
        wait_taken(world, 0)
        assert process.stop() == 0
        world.settle()
        daemon.run_to_the_end()
        check_all(world, daemon, 0)


main()
