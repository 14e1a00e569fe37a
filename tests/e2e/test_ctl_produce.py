"""m2sectl produce into a real Kafka broker, every record read back; then a daemon that learned from them, and its
checkpoints; then one with --embedded."""

import base64
import json
import math
import os
import signal
import struct
import subprocess
import time

from daemon import Daemon
from harness import protobuf
from harness.kafka import Broker
from harness.process import BIN, Process, free_port, scratch, wait_until
from harness.redis import Server

OK, USAGE, DATA, NO_INPUT, UNAVAILABLE, TEMPORARY = 0, 64, 65, 66, 69, 75
PARTITIONS = 3
ITEMS = 30  # the last seven of them nobody looks at


def murmur2(data):
    """The hash by which Java's producer chooses the partition of a key."""
    mask, multiplier = 0xFFFFFFFF, 0x5BD1E995
    value = (0x9747B28C ^ len(data)) & mask
    whole = len(data) // 4 * 4
    for (word,) in struct.iter_unpack("<I", data[:whole]):
        word = word * multiplier & mask
        word = (word ^ word >> 24) * multiplier & mask
        value = (value * multiplier & mask) ^ word
    rest = data[whole:]
    if rest:
        value = (value ^ int.from_bytes(rest, "little")) * multiplier & mask
    value = (value ^ value >> 13) * multiplier & mask
    return value ^ value >> 15


def partition_of(key):
    return (murmur2(key) & 0x7FFFFFFF) % PARTITIONS


class Ctl:
    def __init__(self, config):
        self.config = config

    def command(self, *words):
        return [str(BIN / "m2sectl"), *map(str, words), "--config", str(self.config)]

    def run(self, *words, expect=OK, text=None, env=None):
        done = subprocess.run(
            self.command(*words),
            input=text or "",
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, **(env or {})},
        )
        assert done.returncode == expect, f"{words}: {done.returncode}: {done.stdout} {done.stderr}"
        return done

    def json(self, *words, **options):
        return json.loads(self.run(*words, "--json", **options).stdout)


def lines(records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def interaction(number, **changes):
    values = {
        "user_id": f"user {number % 17} ☂",
        "item_id": f"item{number % (ITEMS - 7)}",
        "event_time_ms": 880_000_000_000 + number,
        "event_id": f"e{number}",
        "kind": "",
    }
    return {**values, **changes}


class Topic:
    def __init__(self, client, name):
        self.client, self.name, self.next = client, name, [0] * client.partitions(name)

    def new(self):
        """What has come since the last look, partition after partition."""
        records = []
        for partition, end in enumerate([self.client.offset(self.name, n) for n in range(len(self.next))]):
            while self.next[partition] < end:
                found, self.next[partition] = self.client.fetch(self.name, partition, self.next[partition])
                records += found
        return records

    def count(self):
        return sum(self.client.offset(self.name, n) for n in range(len(self.next)))


def decode(records):
    return [protobuf.decode("Interaction", record.value) for record in records]


def check_same(records, wanted):
    """Each user's events in their order, in the partition of the key."""
    assert len(records) == len(wanted)
    for record in records:
        values = protobuf.decode("Interaction", record.value)
        assert record.key == values["user_id"].encode()
        assert record.partition == partition_of(record.key)
    for user in {event["user_id"] for event in wanted}:
        ours = [values for values in decode(records) if values["user_id"] == user]
        assert ours == [event for event in wanted if event["user_id"] == user]


# ---- interactions ----


def check_formats(ctl, topic, folder):
    wanted = [interaction(number) for number in range(5000)]
    file = folder / "interactions.jsonl"
    file.write_text(lines(wanted))
    summary = ctl.json("produce", "interactions", file)
    assert (summary["lines"], summary["acknowledged"], summary["bad"], summary["failed"]) == (5000, 5000, 0, 0)
    check_same(topic.new(), wanted)

    names = ("user_id", "item_id", "event_time_ms", "event_id", "kind")
    wanted = [interaction(number, kind="view" if number % 2 else "") for number in range(100)]
    text = "".join("\t".join(str(event[name]) for name in names).rstrip("\t") + "\r\n" for event in wanted)
    ctl.run("produce", "interactions", "-", "--format", "tsv", text=text)
    check_same(topic.new(), wanted)

    done = ctl.run("produce", "interactions", file, "--skip", 10, "--limit", 5)
    assert "5 records acknowledged" in done.stdout
    check_same(topic.new(), [interaction(number) for number in range(10, 15)])

    ctl.run("produce", "interactions", file, "--limit", 20, "--partition", 2)
    assert [record.partition for record in topic.new()] == [2] * 20


def check_now(ctl, topic):
    before = time.time_ns() // 1_000_000
    events = [{"user_id": "u", "item_id": "i"}, interaction(1), interaction(2)]
    ctl.run("produce", "interactions", "-", "--now", text=lines(events))
    times = [values["event_time_ms"] for values in decode(topic.new())]
    assert len(times) == 3 and all(before <= time_ms <= before + 30_000 for time_ms in times)


def check_bad_lines(ctl, topic):
    bad = [
        (2, "format", '{"user_id": "1", '),
        (3, "id", json.dumps(interaction(1, user_id=""))),
        (5, "id", json.dumps(interaction(1, item_id="a\u0007"))),
        (6, "time", json.dumps(interaction(1, event_time_ms=-5))),
        (7, "format", "nonsense"),
    ]
    text = [json.dumps(interaction(0)), "", "", "", "", "", ""]
    for number, _, line in bad:
        text[number - 1] = line
    done = ctl.run("produce", "interactions", "-", "--json", expect=DATA, text="\n".join(text))  # no last end
    summary = json.loads(done.stdout)
    assert (summary["acknowledged"], summary["bad"]) == (1, len(bad))
    told = done.stderr.splitlines()
    assert [line.split(": ")[1] for line in told] == [f"-:{number}" for number, _, _ in bad], told
    check_same(topic.new(), [interaction(0)])
    many = "x\n" * 1000 + json.dumps(interaction(7))
    done = ctl.run("produce", "interactions", "-", expect=DATA, text=many)
    assert done.stderr.count("\n") < 30 and "1,000 bad lines" in done.stdout
    check_same(topic.new(), [interaction(7)])
    fields = ["u\ti", "u\ti\tsoon", "u\ti\t5\te\tk\tmore", "\ti\t5", "u\ti\t99999999999999999999"]
    done = ctl.run("produce", "interactions", "-", "--format", "tsv", expect=DATA, text="\n".join(fields))
    assert done.stderr.count("\n") == len(fields) and not topic.new()


def check_rate(ctl, topic, folder):
    file = folder / "interactions.jsonl"
    begun = time.monotonic()
    ctl.run("produce", "interactions", file, "--limit", 400, "--rate", 200)
    assert 1.9 < time.monotonic() - begun < 30
    stamps = [record.timestamp_ms for record in topic.new()]
    assert len(stamps) == 400 and 1.9 < (max(stamps) - min(stamps)) / 1000 < 30
    before = topic.count()
    with Process(ctl.command("produce", "interactions", file, "--rate", "50", "--json"), folder / "rate.log") as slow:
        slow.start()
        wait_until(lambda: topic.count() > before + 30, 30, "the first lines")
        slow.signal(signal.SIGINT)
        assert slow.wait(20) == TEMPORARY
    shown = [line for line in slow.output().splitlines() if line.startswith("{")]
    summary = json.loads(shown[0])
    sent = summary["acknowledged"]
    assert 30 < sent < 1000 and summary["lines"] == sent, "--skip would leave a line out"
    check_same(topic.new(), [interaction(number) for number in range(sent)])


def check_trouble(ctl, folder):
    file = folder / "interactions.jsonl"
    done = ctl.run(
        "produce", "interactions", file, expect=NO_INPUT, env={"M2SED_KAFKA_INTERACTIONS": "not-there"}
    )
    assert "not-there" in done.stderr
    ctl.run("produce", "interactions", folder / "none", expect=NO_INPUT)
    ctl.run("produce", "interactions", file, "--partition", PARTITIONS, expect=USAGE)
    nowhere = {"M2SED_KAFKA_BROKERS": f"127.0.0.1:{free_port()}"}
    ctl.run("produce", "interactions", file, expect=UNAVAILABLE, env=nowhere)


# ---- items ----


def item(number, dim=8):
    rows = struct.pack(f"<{dim}f", *[math.sin(number * dim + column) for column in range(dim)])
    return {"item_id": f"item{number}", "title": f"Title {number}", "text_rows": {"dim": dim, "data": rows}}


def check_items(ctl, topic):
    def line(values):
        rows = values["text_rows"]
        data = base64.b64encode(rows["data"]).decode()
        return json.dumps({**values, "text_rows": {"dim": rows["dim"], "data": data}}) + "\n"

    wanted = [item(number) for number in range(ITEMS)]
    text = "".join(map(line, wanted)) + line(item(99, dim=9)) + '{"title": "no id"}\n'
    done = ctl.run("produce", "items", "-", expect=DATA, text=text, env={"M2SED_MODEL_FEATURE_DIM": "8"})
    assert f"-:{ITEMS + 1}: " in done.stderr and f"-:{ITEMS + 2}: " in done.stderr
    records = topic.new()
    assert [record.key.decode() for record in records] == [values["item_id"] for values in wanted]
    for record, values in zip(records, wanted):
        found = protobuf.decode("Item", record.value)
        assert {name: found[name] for name in values} == values


# ---- checkpoints ----


def check_now_waits(ctl, daemon):
    """What has been taken before the call is in the checkpoint that it waits for."""
    before = int(ctl.json("checkpoint", "list")[-1]["generation"])
    shown = ctl.json("checkpoint", "now")
    assert int(shown["generation"]) > before
    manifest = ctl.json("checkpoint", "show")
    assert manifest["generation"] == shown["generation"]
    taken = int(ctl.json("status")["events"]["received"])
    assert sum(int(offset) for offset in manifest["positions"]["interactions"].values()) == taken
    assert "is written, after" in ctl.run("checkpoint", "now").stdout


def check_generations(ctl, daemon):
    listed = ctl.json("checkpoint", "list")
    numbers = [int(path.name[4:]) for path in daemon.generations()]
    assert [int(row["generation"]) for row in listed] == numbers, f"{listed} {numbers}"
    assert len(listed) >= 3
    last = listed[-1]
    manifest = ctl.json("checkpoint", "show", last["generation"])
    for name in ("generation", "step", "trained_events", "lineage", "created"):
        assert manifest[name] == last[name]
    files = [path for path in daemon.generations()[-1].iterdir() if path.name != "MANIFEST.json"]
    assert int(last["bytes"]) == sum(path.stat().st_size for path in files)
    assert ctl.json("checkpoint", "show", f"gen-{int(last['generation']):010}") == manifest
    table = ctl.run("checkpoint", "list").stdout.splitlines()
    assert len(table) == 1 + len(listed) and last["created"] in table[-1]
    text = ctl.run("checkpoint", "show").stdout
    assert f"trained_events          {manifest['trained_events']}\n" in text and "  interactions\n    0 " in text
    ctl.run("checkpoint", "show", "987654321", expect=NO_INPUT)
    ctl.run("checkpoint", "show", "all", expect=USAGE)
    assert "good" in ctl.run("checkpoint", "verify").stdout


def check_damage(ctl, daemon):
    assert ctl.run("checkpoint", "verify", "all").stdout.count("good") == len(daemon.generations())
    victim = daemon.generations()[-2]
    number = str(int(victim.name[4:]))
    with open(victim / "model.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    verified = ctl.json("checkpoint", "verify", "all", expect=DATA)
    assert [row["generation"] for row in verified if not row["good"]] == [number]
    done = ctl.run("checkpoint", "verify", number, expect=DATA)
    assert f"generation {number}: DAMAGED: " in done.stdout and "model.safetensors" in done.stdout
    ctl.run("checkpoint", "verify")
    (victim / "MANIFEST.json").write_text("{")
    row = next(row for row in ctl.json("checkpoint", "list") if row["generation"] == number)
    assert row["error"]
    assert len(ctl.run("checkpoint", "list").stdout.splitlines()) == 1 + len(daemon.generations())
    ctl.run("checkpoint", "show", number, expect=DATA)


def check_daemon(folder, kafka, redis, ctl, topic):
    daemon = Daemon(folder / "daemon", kafka, redis, 0)
    daemon.configure({"checkpoint": {"every_seconds": 100_000}})
    ctl = Ctl(daemon.config)
    assert ctl.json("checkpoint", "list") == []
    ctl.run("checkpoint", "show", expect=NO_INPUT)
    assert "no daemon" in ctl.run("checkpoint", "now", expect=UNAVAILABLE).stderr
    daemon.start("--init-if-empty")
    total = topic.count()

    def all_taken():
        status = json.loads(subprocess.run(ctl.command("status", "--json"), capture_output=True).stdout or "{}")
        events = status.get("events", {"received": "0", "in_flight": "1"})
        return int(events["received"]) == total and events["in_flight"] == "0"

    wait_until(all_taken, 60, "the daemon has taken all events")
    check_now_waits(ctl, daemon)
    assert daemon.process.stop() == OK
    assert "no daemon" in ctl.run("checkpoint", "now", expect=UNAVAILABLE).stderr
    check_generations(ctl, daemon)
    check_damage(ctl, daemon)
    user = interaction(3)["user_id"]
    assert len(ctl.json("sequence", user)["items"]) > 10
    best = {entry["item_id"] for entry in ctl.json("recommend", user)["items"]}
    assert best == {f"item{number}" for number in range(ITEMS - 7, ITEMS)}, best
    assert ctl.json("status")["instance"] == "daemon"


# ---- embedded ----


def check_embedded(folder):
    """m2sectl finds the servers that the daemon brought along, and says so when they are gone."""
    config = folder / "embedded.yaml"
    config.write_text(
        f"daemon: {{state_dir: '{folder / 'state'}', embedded_partitions: 2}}\n"
        f"checkpoint: {{dir: '{folder / 'state' / 'checkpoints'}'}}\n"
        "model: {hidden: 16, attention: 8, experts: 2, layers: 1, ffn: 32}\n"
    )
    ctl = Ctl(config)
    assert "no daemon with --embedded" in ctl.run("status", "--embedded", expect=NO_INPUT).stderr
    command = [BIN / "m2sed", "--config", config, "--embedded"]
    with Process(command, folder / "embedded.log").start() as daemon:
        daemon.wait_output("embedded Redis")
        ctl.run("produce", "interactions", "-", "--embedded", text=lines(map(interaction, range(200))))
        wait_until(
            lambda: subprocess.run(ctl.command("status", "--embedded"), capture_output=True).returncode == OK,
            20,
            "a status",
        )
        wait_until(
            lambda: ctl.json("status", "--embedded")["events"]["received"] in ("0", "200"), 20, "a status with events"
        )
        assert daemon.stop() == OK
    ctl.run("status", "--embedded", expect=NO_INPUT)
    ctl.run("checkpoint", "list", "--embedded")


def main():
    with scratch() as folder:
        check_embedded(folder)
        redis, kafka = Server(folder / "redis").start(), Broker(folder / "kafka").start()
        with redis, kafka, kafka.client() as client:
            for name in ("interactions", "items", "interactions.dlq", "items.dlq", "m2se.status"):
                client.create_topic(name, PARTITIONS if name == "interactions" else 1)
            config = folder / "m2sed.yaml"
            config.write_text(f"kafka: {{brokers: '{kafka.bootstrap}'}}\n")
            ctl, topic = Ctl(config), Topic(client, "interactions")
            check_formats(ctl, topic, folder)
            check_now(ctl, topic)
            check_bad_lines(ctl, topic)
            check_rate(ctl, topic, folder)
            check_trouble(ctl, folder)
            check_items(ctl, Topic(client, "items"))
            check_daemon(folder, kafka, redis, ctl, topic)


main()
