"""Kafka is killed and comes back, transactions are aborted, one record in a hundred is garbage, nothing comes for long, and
retention removes what was not read: what is in the log counts once, what is gone is reported."""

import random
import time

import workload
from checks import check_all, check_dead_letters, positions
from growing import growing, status, wait_taken
from harness import protobuf
from harness.kafka import Record
from world import TOPIC, timed

CHUNK, LOST = 200, 7
MAX_POLL_MS = 4000
SETTINGS = {"train": {"batch": 32}}


def killed(world):
    world.produce(CHUNK)
    world.kafka.kill()
    time.sleep(1)
    world.kafka.start()
    world.client = world.kafka.client()
    world.produce(CHUNK)


def transactions(world):
    """What was aborted is not there, though it takes offsets."""
    for number in range(6):
        transaction = world.client.transaction("a producer")
        if number % 2:
            world.client.produce(TOPIC, world.coming[: CHUNK // 6], transaction)
        else:
            records = [Record(r.key, r.value) for r in reversed(world.coming[CHUNK : 2 * CHUNK])]
            world.client.produce(TOPIC, records, transaction)
        transaction.end(commit=number % 2 == 1)
        if number % 2:
            del world.coming[: CHUNK // 6]
    world.produce(CHUNK)


def late_events(world):
    """Events of years ago, and of the far future, between the others: the order of the log is what counts."""
    records = []
    for number, record in enumerate(world.coming[:CHUNK]):
        records.append(record)
        if number % 10 == 0 and not workload.is_bad(record):
            event = {
                "user_id": record.key.decode(),
                "item_id": str(1 + number),
                "event_time_ms": 1000 + number if number % 20 else 4_000_000_000_000 + number,
                "event_id": f"late {number}",
            }
            records.append(Record(record.key, protobuf.encode("Interaction", event)))
    del world.coming[:CHUNK]
    world.client.produce(TOPIC, records)


def garbage(world):
    """One in a hundred, of every kind."""
    bad = workload.bad_interactions()
    records = [record for record in world.coming[:1000] if not workload.is_bad(record)]
    del world.coming[:1000]
    for number in range(len(records) // 99):
        rule, value = bad[number % len(bad)]
        records.insert(
            random.Random(number).randrange(len(records)),
            Record(f"garbage {number}".encode(), value, [(workload.EXPECT, rule.encode())]),
        )
    world.client.produce(TOPIC, records)


def idle(world):
    """The daemon stays a member of its group, and takes the burst."""
    before = status(world, 0)["kafka"]["rebalances"]
    time.sleep(1.5 * MAX_POLL_MS / 1000)
    world.produce(2 * CHUNK)
    newest = wait_taken(world, 0)
    assert newest["kafka"]["rebalances"] == before, newest["kafka"]


FAULTS = [killed, transactions, late_events, garbage, idle]


def follow(world, daemon):
    process = daemon.start("--init-if-empty")
    world.produce(CHUNK)
    wait_taken(world, 0)
    for fault in FAULTS:
        with timed(fault.__name__):
            fault(world)
            wait_taken(world, 0)
    assert process.stop() == 0


def retention(world, daemon):
    """Records that were not read are gone: the daemon says how many, and stops, or goes on if that is its setting."""
    at = positions(world, daemon.manifest())
    world.produce(CHUNK)
    records = world.client.read_all(TOPIC)
    lost = [r for r in records if r.partition == 0 and at[0] <= r.offset < at[0] + LOST]
    assert len(lost) == LOST
    world.client.delete_records(TOPIC, 0, at[0] + LOST)
    for _ in range(2):  # it does not come to terms with it the second time
        process = daemon.start()
        assert process.wait(60) > 0
        assert f"partition 0 of {TOPIC}: {LOST} events were removed" in process.output()
        assert positions(world, daemon.manifest())[0] == at[0]
    daemon.configure({"kafka": {"on_lost": "continue"}})
    daemon.run_to_the_end()
    newest = wait_taken(world, 0)
    assert newest["events"]["lost"] == LOST, newest["events"]
    world.records = [record for record in records if record not in lost]
    world.expected = world.expect()


def main():
    with growing(6000, 2) as world:
        daemon = world.daemon("live", 0, SETTINGS)
        properties = {"session.timeout.ms": str(MAX_POLL_MS), "max.poll.interval.ms": str(MAX_POLL_MS)}
        daemon.settings["kafka"]["properties"].update(properties)
        daemon.configure({})
        follow(world, daemon)
        with timed("retention"):
            retention(world, daemon)
        check_all(world, daemon, 0)
        letters = check_dead_letters(world, TOPIC, world.expected.dead)
        assert letters == len(world.expected.dead), "a dead letter is there twice"
        print(f"{dict(world.expected.counts)}, {letters} dead letters")
        assert world.expected.counts["skipped_duplicate"] > 10 and letters > 10


main()
