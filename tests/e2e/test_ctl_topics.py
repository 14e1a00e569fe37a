"""m2sectl topics create, against a real broker."""

import json
import os
import subprocess

from harness.kafka import Broker, Record
from harness.kafka_client import KafkaError
from harness.process import BIN, free_port, scratch

NAMES = ["clicks", "clicks.dlq", "things", "things.dlq", "erasures", "erasures.dlq", "m2se.status"]
INVALID_RECORD = 87


def ctl(bootstrap, *arguments, **settings):
    environment = {"M2SED_KAFKA_BROKERS": bootstrap, "M2SED_KAFKA_ITEMS": "things", **settings}
    environment.setdefault("M2SED_KAFKA_INTERACTIONS", "clicks")
    command = [BIN / "m2sectl", "topics", "create", *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)


def outcome(done):
    assert done.returncode == 0, done.stderr
    return {topic["topic"]: topic["made"] for topic in json.loads(done.stdout)["topics"]}


def is_compacted(client, topic):
    """A compacted topic refuses a record without a key."""
    try:
        client.produce(topic, [Record(None, b"value")])
    except KafkaError as error:
        assert error.code == INVALID_RECORD, error
        return True
    return False


def test_create(kafka, client):
    assert outcome(ctl(kafka.bootstrap, "--partitions", "3", "--json")) == dict.fromkeys(NAMES, True)
    found = client.metadata()["topics"]
    assert {name: found[name] for name in NAMES} == {name: 3 if name == "clicks" else 1 for name in NAMES}
    assert [name for name in NAMES if is_compacted(client, name)] == ["things"]


def test_again(kafka, client):
    """What is there stays as it is; what is missing is made."""
    assert outcome(ctl(kafka.bootstrap, "--partitions", "5", "--json")) == dict.fromkeys(NAMES, False)
    assert client.metadata()["topics"]["clicks"] == 3
    client.delete_topic("things")
    done = ctl(kafka.bootstrap)
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines == {name: "made" if name == "things" else "was there, left as it is" for name in NAMES}


def test_refused(kafka, client):
    done = ctl(kafka.bootstrap, "--replication", "3", M2SED_KAFKA_INTERACTIONS="other")
    assert done.returncode == os.EX_CANTCREAT and "topic other:" in done.stderr, done
    assert "other" not in client.metadata()["topics"]
    for arguments in (["--partitions", "x"], ["--partitions", "99999999"], ["more"]):
        assert ctl(kafka.bootstrap, *arguments).returncode == os.EX_USAGE, arguments


def test_no_broker():
    done = ctl(f"127.0.0.1:{free_port()}")
    assert done.returncode == os.EX_UNAVAILABLE and "topic clicks:" in done.stderr, done


def main():
    with scratch() as folder, Broker(folder / "kafka").start() as kafka, kafka.client() as client:
        test_create(kafka, client)
        test_again(kafka, client)
        test_refused(kafka, client)
        test_no_broker()
    print("m2sectl topics create: passed")


if __name__ == "__main__":
    main()
