"""Dead letters when their topic is not there: what cannot be confirmed does not count, in no checkpoint, and nothing is
lost when the daemon is killed meanwhile; once the topic is there all goes on. A record too large for it; and a stream of
nothing but garbage."""

import signal
import time

import stored
import workload
from checks import check_all, check_dead_letters, positions
from growing import growing, status, wait_taken
from harness.kafka import Record
from harness.process import wait_until
from world import TOPIC, timed

EVENTS, PARTITIONS = 2500, 2
DLQ = f"{TOPIC}.dlq"


def wait_stuck(world):
    """Until consumption is paused, and the status says that it is for the dead letters."""

    def stuck():
        newest = status(world, 0)
        return (
            newest
            and newest["state"] == "STATE_PAUSED"
            and any("dead letters cannot be delivered" in reason for reason in newest["reasons"])
            and newest
        )

    newest = wait_until(stuck, 30, "a status that says what is wrong")
    print(f"after {newest['events']['received']} records: {newest['reasons']}")
    assert newest["events"]["received"] < len(world.records)
    return newest


def check_behind_letters(world, daemon):
    """No checkpoint is beyond a dead letter that is nowhere yet; the sequences and vectors are."""
    first = {}
    for record in world.expected.dead:
        first.setdefault(record.partition, record.offset)
    time.sleep(1.5)  # a checkpoint that would be wrong
    wait_until(daemon.generations, 30, "a checkpoint")
    manifest = daemon.manifest()
    reached = positions(world, manifest)
    assert all(reached[partition] <= offset for partition, offset in first.items()), (reached, first)
    assert manifest["dead_lettered"] == "0"
    with world.database(0) as client:
        blobs = client.pipeline([["GET", key] for key in stored.keys(client, "seq")])
    ahead = [entry for blob in blobs for entry in stored.decode_sequence(blob)[1] if entry[3] > first[entry[2]]]
    assert ahead


def no_topic(world, daemon):
    process = daemon.start("--init-if-empty")
    wait_stuck(world)
    check_behind_letters(world, daemon)
    process.kill()
    with world.database(0) as client:
        client.call("DEL", f"{stored.PREFIX}status")
    with timed("stuck again"):
        process = daemon.start()
        wait_stuck(world)
    world.client.create_topic(DLQ, 1)
    with timed("from the topic to the end of the log"):
        newest = wait_taken(world, 0)
    assert newest["events"]["dead_lettered"] == len(world.expected.dead)
    assert check_dead_letters(world, TOPIC, world.expected.dead) == len(world.expected.dead)
    return process


def too_large(world):
    """More than the producer may send: it goes without its value, and says so."""
    value = b"?" * 1_500_000
    ((partition, offset),) = world.client.produce(
        TOPIC, [Record(b"somebody", value, [(workload.EXPECT, b"size")])]
    )
    count = len(world.expected.dead)
    letters = wait_until(
        lambda: len(found := world.client.read_all(DLQ)) > count and found, 30, "the letter"
    )
    headers = dict(letters[-1].headers)
    assert len(letters) == count + 1 and letters[-1].key == b"somebody" and letters[-1].value is None
    assert headers["m2sed.value_bytes_left_out"] == b"1500000"
    assert headers["__connect.errors.partition"] == str(partition).encode()
    assert headers["__connect.errors.offset"] == str(offset).encode()
    wait_taken(world, 0)


def garbage(world):
    """A producer writes nonsense: consumption pauses with the record that was one too many, until it is told to go on."""
    daemon = world.daemon("garbage", 1, {"kafka": {"garbage_window": 100}})
    process = daemon.start("--init-if-empty")
    wait_taken(world, 1)
    before = len(world.client.read_all(TOPIC))
    nonsense = Record(b"somebody", b"<xml/>", [(workload.EXPECT, b"format")])
    world.client.produce(TOPIC, [nonsense] * 140)

    def paused():
        newest = status(world, 1)
        return newest["state"] == "STATE_PAUSED" and newest

    newest = wait_until(paused, 20, "a pause")
    assert any("garbage" in reason for reason in newest["reasons"]), newest["reasons"]
    # At least half of the last hundred, and some of those before may have been bad as well.
    assert 40 < newest["events"]["received"] - before <= 51, (newest["events"], before)
    time.sleep(1.5)
    assert status(world, 1)["events"]["received"] == newest["events"]["received"]
    process.signal(signal.SIGHUP)
    wait_taken(world, 1)
    assert process.stop() == 0
    assert process.output().count("most of what comes is garbage") == 1
    # Nobody would tell a backfill to go on.
    strict = world.daemon("strict", 2, {"kafka": {"garbage_window": 50, "garbage_share": 0.2}})
    process = strict.start("--until-end", "--init-if-empty")
    assert process.wait(60) not in (0, -signal.SIGABRT) and "kafka.garbage_share" in process.output()


def main():
    with growing(EVENTS, PARTITIONS) as world:
        world.client.delete_topic(DLQ)
        world.produce(EVENTS)
        world.settle()
        assert world.expected.dead
        daemon = world.daemon("letters", 0)
        process = no_topic(world, daemon)
        too_large(world)
        assert process.stop() == 0
        world.settle()
        daemon.run_to_the_end()
        check_all(world, daemon, 0)
        with timed("garbage"):
            garbage(world)


main()
