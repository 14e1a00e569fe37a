"""The topic is deleted and made again: its log is another one, and its events are not taken for those that were there
before; while the daemon runs, and while it does not and one partition has already grown beyond where it was."""

import zlib

from checks import check_sequences
from growing import growing, status, wait_taken
from world import COUNTERS, TOPIC, timed

EVENTS, PARTITIONS = 2400, 2
EPOCH = 1 << 48  # of the positions in a sequence


class Logs:
    """All logs of that topic, one after the other."""

    def __init__(self, world):
        self.world, self.records, self.number = world, [], 0

    def anew(self):
        """Keeps what the log of now holds, and makes the next."""
        found = self.world.client.read_all(TOPIC)
        for record in found:
            record.offset += self.number * EPOCH
        self.records += found
        self.world.client.delete_topic(TOPIC)
        self.world.client.create_topic(TOPIC, PARTITIONS)
        self.number += 1

    def produce(self, counts):
        """So many of the next records for each partition."""
        chosen, rest = [], []
        counts = list(counts)
        for record in self.world.coming:
            partition = zlib.crc32(record.key) % PARTITIONS if record.key else 0
            chosen_now = counts[partition] > 0
            counts[partition] -= chosen_now
            (chosen if chosen_now else rest).append(record)
        assert not any(counts), "the stream is too short"
        self.world.coming = rest
        self.world.client.produce(TOPIC, chosen)

    def check(self, daemon):
        """Every event of every log counts once: in its sequence, and in what was learned (digests know no epoch)."""
        self.anew()
        self.world.records = self.records
        expected = self.world.expect()
        with self.world.database(0) as client:
            check_sequences(client, expected)
        manifest = daemon.manifest()
        for name in COUNTERS:
            assert int(manifest[name]) == expected.counts[name], (name, manifest[name], expected.counts)
        expected.taught = [(partition, offset % EPOCH) for partition, offset in expected.taught]
        assert int(manifest["event_digest"]) == expected.digest
        print(f"{self.number} logs: {dict(expected.counts)}")


def epochs(world):
    return {p["partition"]: p["log_epoch"] for p in status(world, 0)["partitions"]}


def main():
    with growing(EVENTS, PARTITIONS) as world:
        logs = Logs(world)
        daemon = world.daemon("anew", 0)
        process = daemon.start("--init-if-empty")
        logs.produce((400, 300))
        wait_taken(world, 0)
        logs.anew()
        logs.produce((100, 50))
        with timed("made anew while it runs"):
            wait_taken(world, 0)
        assert epochs(world) == {0: 1, 1: 1}
        assert process.stop() == 0
        logs.anew()
        logs.produce((200, 20))
        process = daemon.start()
        with timed("made anew while it does not"):
            wait_taken(world, 0)
        assert epochs(world) == {0: 2, 1: 2}
        assert process.stop() == 0
        daemon.run_to_the_end()
        logs.check(daemon)


main()
