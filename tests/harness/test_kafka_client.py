"""Runs test_kafka_broker (ingest/kafka.h) with a real broker, and does to it what the program asks for."""

import os
import pathlib
import subprocess
import sys

from harness.kafka import Broker, Record
from harness.process import scratch, skip

RECORDS = [Record(b"k", b"%d" % i, timestamp_ms=1000 + i) for i in range(20)]


def fill(client, topic, count):
    client.create_topic(topic)
    client.produce(topic, RECORDS[:count])


def add_transactions(client):
    client.create_topic("gaps")
    transaction = client.transaction("writer")
    for commit in (True, False, True):
        client.produce("gaps", [Record(b"k", b"v")], transaction)
        transaction.end(commit)


def do(client, what):
    """False: not yet."""
    if what == "times":
        fill(client, "times", 10)
        client.add_partitions("times", 2)
    elif what == "gaps":
        add_transactions(client)
    elif what == "cut":
        fill(client, "cut", 20)
        client.delete_records("cut", 0, 5)
    elif what == "cut more":
        client.delete_records("cut", 0, 12)
    elif what == "anew again":
        client.delete_topic("anew")
        fill(client, "anew", 3)
    elif what == "steady":
        client.create_topic("steady", 2)
    elif what == "committed":
        return client.committed_offset("steady", "steady", 0) == 1000
    else:
        fill(client, what, 10)
    return True


def answer(broker, run):
    for line in run.stdout:
        print(line, end="", flush=True)
        if not line.startswith("do: "):
            continue
        what, done = line[4:].strip(), True
        if what == "kill":
            broker.kill()
        elif what == "start":
            broker.start()
        else:
            with broker.client() as client:
                done = do(client, what)
        print("done" if done else "not yet", file=run.stdin, flush=True)


def main():
    program = pathlib.Path(os.environ["M2SED_BIN"]) / "test_kafka_broker"
    if not program.exists():
        skip("test_kafka_broker was not built: it needs cmocka")
    with scratch() as folder, Broker(folder / "kafka").start() as broker:
        command = [program, broker.bootstrap]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
            answer(broker, run)
    return run.returncode


sys.exit(main())
