"""m2sectl on what Redis holds: status, sequence, recommend, and what it says when something is wrong. Redis is filled by
this test, in the documented formats."""

import contextlib
import fcntl
import json
import os
import pty
import random
import re
import select
import signal
import struct
import subprocess
import termios
import time

from harness import protobuf
from harness.process import BIN, Process, scratch, wait_until
from harness.redis import Server
from stored import key

OK, USAGE, DATA, NO_INPUT, UNAVAILABLE, IO, TEMPORARY, CONFIG = 0, 64, 65, 66, 69, 74, 75, 78
KEEP = 6


class Ctl:
    def __init__(self, folder, redis):
        self.config = folder / "m2sed.yaml"
        self.config.write_text(
            f"redis: {{uri: 'redis://127.0.0.1:{redis.port}/0', timeout_ms: 2000}}\n"
            f"sequence: {{length: 4, keep: {KEEP}}}\n"
        )

    def command(self, *words):
        return [str(BIN / "m2sectl"), *map(str, words), "--config", str(self.config)]

    def run(self, *words, expect=OK, env=None, stdout=subprocess.PIPE):
        done = subprocess.run(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            env={**os.environ, **(env or {})},
        )
        assert done.returncode == expect, f"{words}: {done.returncode}: {done.stdout} {done.stderr}"
        return done

    def text(self, *words):
        return self.run(*words).stdout

    def json(self, *words):
        return json.loads(self.text(*words, "--json"))

    def complaint(self, expect, *words, **options):
        done = self.run(*words, expect=expect, **options)
        assert done.stderr.startswith("m2sectl: ") and done.stderr.count("\n") == 1, done.stderr
        return done.stderr


# ---- what the daemon would have written ----


def now_ms():
    return time.time_ns() // 1_000_000


def status_values(**changes):
    values = {
        "instance": "trial\x1b[31m",
        "time_ms": now_ms(),
        "uptime_seconds": 3723.5,
        "version": "0.1.0",
        "state": 2,
        "reasons": ["Redis refuses commands"],
        "partitions": [
            {"topic": "interactions", "partition": 0, "next_offset": 2**40, "end_offset": 2**40 + 7, "lag": 7},
            {"topic": "interactions", "partition": 3, "lag": 1234},
        ],
        "events": {
            "received": 1234567,
            "trained": 1200000,
            "skipped_no_context": 943,
            "digest": 2**64 - 1,
            "per_second": 1003.4,
            "dead_lettered": 3,
            "refused": [{"rule": "time", "count": 3}],
        },
        "training": {"step": 4321, "loss": 3.25, "loss_mean": 3.5, "nip_text": 3.125, "cmcl_text": 0.0625},
        "prequential": {
            "events": 1000,
            "model_recent": {"hr10": 0.125, "ndcg10": 0.0625},
            "popularity_recent": {"hr10": 0.03125, "ndcg10": 0.015625},
            "model": {"hr10": 0.5},
            "model_unseen": {"hr10": 0.25},
        },
        "freshness": [
            {"stage": "consumed", "p50_ms": 3.0, "p99_ms": 9.0, "bound_ms": [1.0, 2.0], "count": [1, 2, 3]},
            {"stage": "vector", "p50_ms": 17.0, "p99_ms": 41.0},
        ],
        "serving": {"epoch": 12, "epoch_step": 4300},
        "checkpoint": {"generation": 9, "step": 4200, "bytes": 3 << 20},
    }
    return {**values, **changes}


def write_status(redis, **changes):
    redis.call("SET", "m2se:status", protobuf.encode("Status", status_values(**changes)))


def encode_sequence(entries):
    """entries: (item id, event time, partition, log epoch, offset), as ingest/sequence.h lays them out."""
    partitions = sorted({entry[2] for entry in entries})
    body = b"".join(struct.pack(">IQ", partition, 9 << 48) for partition in partitions)
    for item, time_ms, partition, epoch, offset in entries:
        body += struct.pack(">BBQ", 0, partitions.index(partition), epoch << 48 | offset)
        body += time_ms.to_bytes(6, "big") + bytes([len(item.encode())]) + item.encode()
    return struct.pack(">BBHI", 1, len(partitions), len(entries), 8 + len(body)) + body


def floats(values):
    return struct.pack(f"<{len(values)}f", *values)


# ---- status ----


def check_status_json(ctl, redis):
    write_status(redis)
    shown = ctl.json("status")
    assert not shown["stale"] and 0 <= shown["age_seconds"] < 5
    assert shown["state"] == "running" and shown["instance"] == "trial\x1b[31m"
    assert shown["partitions"][0]["next_offset"] == str(2**40) and shown["partitions"][1]["lag"] == "1234"
    assert shown["events"]["digest"] == str(2**64 - 1)
    assert shown["events"]["refused"] == [{"rule": "time", "count": "3"}]
    assert shown["training"]["loss"] == 3.25 and shown["prequential"]["model_unseen"]["hr10"] == 0.25
    stage = shown["freshness"][0]
    assert stage["bound_ms"] == [1.0, 2.0] and stage["count"] == ["1", "2", "3"] and stage["p99_ms"] == 9
    # Every field of proto/ is there, by its name.
    for number in protobuf.MESSAGES["Status"]:
        name = protobuf.MESSAGES["Status"][number][0]
        assert name in shown, name


def check_status_table(ctl, redis):
    write_status(redis)
    shown = ctl.text("status")
    for wanted in (
        "m2sed trial?[31m   running   up 1h 02m",
        "! Redis refuses commands",
        "1,003/s   1,234,567 received   1,200,000 trained",
        "left out: 943 without context, 3 bad (3 time)",
        "1,241 records in 2 partitions",
        "step 4,321   loss 3.2500",
        "0.1250 (popularity 0.0312)    0.2500 (popularity 0.0000)",
        "consumed 3/9, vector 17/41",
        "epoch 12 of step 4300",
        "generation 9 of step 4200",
        "3.0 MiB",
    ):
        assert wanted in shown, f"{wanted!r} is not in\n{shown}"
    assert "STALE" not in shown and "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 100
    write_status(redis, time_ms=now_ms() - 120_000)
    assert "! STALE: this was written 2m" in ctl.text("status")
    assert ctl.json("status")["stale"]
    # With the items of the sequence left in, the other column of the same metric counts.
    done = ctl.run("status", env={"M2SED_SERVE_EXCLUDE_SEEN": "false"})
    assert "0.5000 (popularity 0.0000)" in done.stdout


def check_status_trouble(ctl, redis):
    redis.call("DEL", "m2se:status")
    assert "no daemon has run" in ctl.complaint(NO_INPUT, "status")
    redis.call("SET", "m2se:status", b"\xff\xff\xff")
    assert "not a Status" in ctl.complaint(DATA, "status")
    redis.call("DEL", "m2se:status")
    redis.call("LPUSH", "m2se:status", "x")
    assert "WRONGTYPE" in ctl.complaint(DATA, "status")
    redis.call("DEL", "m2se:status")


def check_watch_lines(ctl, server, redis, folder):
    """Without a terminal: a line a second, through an outage of Redis, until Ctrl-C."""
    write_status(redis)
    with Process(ctl.command("status", "--watch"), folder / "watch.log").start() as watch:
        line = watch.wait_output(r"^\S+Z running events=1234567 .*$").group()
        for wanted in (
            " events_per_second=1003 ",
            " lag=1241 ",
            " step=4321 loss=3.2500 nip=3.1250 cmcl=0.0625 ",
            " hr10=0.1250 popularity_hr10=0.0312 ",
            " fresh_p50_ms=17 fresh_p99_ms=41 epoch=12 checkpoint=9",
        ):
            assert wanted in line, f"{wanted!r} is not in {line!r}"
        wait_until(lambda: watch.output().count("events=1234567") >= 3, 10, "three lines")
        server.kill()
        watch.wait_output("Redis: ", 10)
        server.start()
        with server.client() as again:
            write_status(again, events={"received": 7654321})
        watch.wait_output("events=7654321", 20)
        watch.signal(signal.SIGINT)
        assert watch.wait(5) == OK
    assert "\x1b" not in watch.output()
    with Process(ctl.command("status", "--watch", "--json"), folder / "json.log").start() as watch:
        wait_until(lambda: watch.output().count("\n") >= 2, 10, "two lines")
        watch.signal(signal.SIGTERM)
        assert watch.wait(5) == OK
    for line in watch.output().splitlines():
        assert json.loads(line)["events"]["received"] == "7654321"


@contextlib.contextmanager
def terminal(command, rows, columns):
    """A program on a terminal of that size: (its process, a function that gives what it has drawn so far)."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    os.close(theirs)
    drawn = bytearray()

    def read():
        while select.select([ours], [], [], 0)[0]:
            try:
                drawn.extend(os.read(ours, 65536))
            except OSError:  # the program has ended
                break
        return bytes(drawn)

    try:
        yield program, read
    finally:
        program.kill()
        program.wait()
        os.close(ours)


def screen(data, rows, columns):
    """What a terminal shows in the end: just the codes that m2sectl uses."""
    lines, row = [""] * 500, 0
    for code, text in re.findall(r"\x1b\[(\d*[A-Z])|([^\x1b]+)", data.decode()):
        if code.endswith("F"):
            row -= int(code[:-1])
        elif code == "J":
            lines[row:] = [""] * (500 - row)
        for number, part in enumerate(text.split("\r\n")):
            if number:
                row += 1
            if part:
                lines[row] = part
        assert row >= 0 and all(len(line) <= columns for line in lines)
    assert row < rows, "the picture scrolls"
    return [line for line in lines if line]


def check_watch_terminal(ctl, redis):
    for rows, columns in ((40, 100), (8, 30)):
        write_status(redis, events={"received": 1})
        with terminal(ctl.command("status", "--watch"), rows, columns) as (program, read):
            wait_until(lambda: b"1 received" in read(), 10, "the first picture")
            write_status(redis, events={"received": 77, "per_second": 5.0})
            wait_until(lambda: b"77 received" in read(), 10, "the second picture")
            program.send_signal(signal.SIGINT)
            assert program.wait(5) == OK
            lines = screen(read(), rows, columns)
        text = "\n".join(lines)
        assert "77 received" in text and len(re.findall(r"\d received", text)) == 1, text
        if rows == 40:
            assert "▁" in text and "█" in text and "checkpoint" in text, text


# ---- sequence ----


def check_sequence(ctl, redis, folder):
    entries = [(f"i{n}", 1_000_000_000_000 + n, n % 2, 3, 100 + n) for n in range(9)]
    entries.append(("{odd}%☂", 883_612_800_123, 7, 0, 0))
    for user in ("42", "{a}%7D", "käuferin ☂"):
        redis.call("SET", key("seq", user), encode_sequence(entries))
        shown = ctl.json("sequence", user)
        assert shown["user"] == user
        wanted = [
            {"item_id": i, "event_time_ms": t, "partition": p, "log_epoch": e, "offset": o}
            for i, t, p, e, o in entries[-KEEP:]
        ]
        assert shown["items"] == wanted, shown
    table = ctl.text("sequence", "42")
    assert table.startswith(f"{KEEP} items of user 42") and "1998-01-01T00:00:00Z" in table
    titles = folder / "items.jsonl"
    titles.write_text(
        json.dumps({"item_id": "i8", "title": "old"})
        + "\n\n"
        + json.dumps({"item_id": "i8", "title": "Eight\x1b[2J\x9b é"}, ensure_ascii=False)
        + '\n{"item_id": "i7"}\n'
    )
    assert "i8  Eight?[2J? é\n" in ctl.text("sequence", "42", "--titles", titles)
    assert ctl.json("sequence", "42", "--titles", titles)["items"][-2]["title"] == "Eight\x1b[2J\x9b é"
    titles.write_text('{"item_id": "i8", "title": "x"}\n{"item_id": \n')
    assert f"{titles}:2: " in ctl.complaint(DATA, "sequence", "42", "--titles", titles)
    ctl.complaint(IO, "sequence", "42", "--titles", folder / "none")
    assert ctl.json("sequence", "nobody") == {"user": "nobody", "items": []}
    redis.call("SET", key("seq", "broken"), encode_sequence(entries)[:-1])
    assert key("seq", "broken") in ctl.complaint(DATA, "sequence", "broken")
    ctl.complaint(USAGE, "sequence", "")
    ctl.complaint(USAGE, "sequence", "x" * 129)


# ---- recommend ----


def dot(a, b):
    return sum(x * y for x, y in zip(struct.unpack(f"<{len(a) // 4}f", a), struct.unpack(f"<{len(b) // 4}f", b)))


def write_user(redis, user, vector, epoch):
    redis.call("HSET", key("user", user), "v", vector, "epoch", epoch, "step", 10 * epoch, "n", 1, "event_ms", 1)


def check_recommend(ctl, redis):
    draw = random.Random(7)
    dim, epoch, wanted = 9, 5, {}
    user = floats([draw.gauss(0, 1) for _ in range(dim)])
    write_user(redis, "42", user, epoch)
    assert "the model says 0 numbers" in ctl.complaint(DATA, "recommend", "42")
    redis.call("HSET", "m2se:model", "dim", dim)
    for number in range(3000):
        item = f"{{item}} {number}"
        good, bad = (floats([draw.gauss(0, 1) for _ in range(dim)]) for _ in range(2))
        current, before = (good, bad) if number % 3 else (bad, good)
        names = ("v", current, "epoch", epoch if number % 3 else epoch + 1)
        redis.call("HSET", key("item", item), *names, "v_prev", before, "epoch_prev", epoch + (number % 3 == 1) * -1)
        if number % 3 == 2:  # two epochs of which none is the user's
            redis.call("HSET", key("item", item), "epoch", epoch - 2, "epoch_prev", epoch - 3)
        else:
            wanted[item] = dot(user, good)
    best = sorted(wanted, key=lambda item: (-wanted[item], item))
    seen = best[1:9:2]
    redis.call("SET", key("seq", "42"), encode_sequence([(item, 5, 0, 0, n) for n, item in enumerate(seen)]))

    def check(shown, items):
        assert [entry["item_id"] for entry in shown["items"]] == items, shown
        for entry in shown["items"]:
            assert abs(entry["score"] - wanted[entry["item_id"]]) < 1e-5
        assert shown["epoch"] == str(epoch) and shown["step"] == str(10 * epoch) and shown["user"] == "42"

    unseen = [item for item in best if item not in seen]
    check(ctl.json("recommend", "42"), unseen[:10])
    check(ctl.json("recommend", "42", "-k", 1000), unseen[:1000])
    check(ctl.json("recommend", "42", "-k", 3, "--include-seen"), best[:3])
    done = ctl.run("recommend", "42", "-k", 2, "--json", env={"M2SED_SERVE_EXCLUDE_SEEN": "false"})
    check(json.loads(done.stdout), best[:2])
    table = ctl.text("recommend", "42", "-k", 1).splitlines()
    assert re.fullmatch(rf"   1 +{wanted[unseen[0]]:.4f}  {re.escape(unseen[0])}", table[2]), table
    for words in (("-k", 0), ("-k", 1001), ("-k", "x"), ("-k", -1)):
        ctl.complaint(USAGE, "recommend", "42", *words)
    # Equal scores: by id.
    write_user(redis, "zero", floats([0.0] * dim), epoch)
    assert [e["item_id"] for e in ctl.json("recommend", "zero", "-k", 3)["items"]] == sorted(wanted)[:3]
    check_explain(ctl, redis, dim, best, seen)
    check_recommend_trouble(ctl, redis, dim, epoch, wanted, best)


def check_explain(ctl, redis, dim, best, seen):
    shown = ctl.json("explain", "42", "-k", 9)
    assert [entry["item_id"] for entry in shown["items"]] == best[:9], shown
    assert (shown["epoch"], shown["step"], shown["sequence_count"], shown["event_time_ms"]) == ("5", "50", 1, 1)
    assert [entry["item_id"] for entry in shown["sequence"]] == seen[-4:]  # sequence.length
    user = redis.call("HGET", key("user", "42"), "v")
    half = 4 * (dim // 2)
    for entry in shown["items"]:
        name = key("item", entry["item_id"])
        field = "v" if redis.call("HGET", name, "epoch") == b"5" else "v_prev"
        vector = redis.call("HGET", name, field)
        for part, first, end in (("text", 0, half), ("image", half, 2 * half), ("bias", 2 * half, 4 * dim)):
            assert abs(entry[part] - dot(user[first:end], vector[first:end])) < 1e-5, (part, entry)
        assert abs(entry["score"] - entry["text"] - entry["image"] - entry["bias"]) < 1e-5
        assert entry["seen"] == (entry["item_id"] in seen)
    lines = ctl.text("explain", "42", "-k", 2).splitlines()
    assert lines[0].startswith("user 42: vector of epoch 5 (step 50), from 1 items"), lines
    assert lines[-1].endswith(f"  seen  {best[1]}") and "seen" not in lines[-2], lines
    redis.call("SET", key("seq", "waiting"), encode_sequence([("x", 5, 0, 0, 0)]))
    assert "none of its items has features" in ctl.complaint(NO_INPUT, "explain", "waiting")


def check_recommend_trouble(ctl, redis, dim, epoch, wanted, best):
    assert "nothing is known" in ctl.complaint(NO_INPUT, "recommend", "nobody")
    redis.call("SET", key("seq", "early"), encode_sequence([("x", 5, 0, 0, 0)]))
    assert "no vector yet" in ctl.complaint(NO_INPUT, "recommend", "early")
    # An item without a number, or of another width, is left out and told.
    redis.call("HSET", key("item", best[0]), "v", floats([float("nan")] * dim), "v_prev", floats([float("nan")] * dim))
    redis.call("HSET", key("item", best[2]), "v", floats([9.0] * (dim + 1)), "v_prev", floats([9.0] * (dim + 1)))
    done = ctl.run("recommend", "42", "-k", 1, "--include-seen", "--json")
    assert json.loads(done.stdout)["items"][0]["item_id"] == best[1] and done.stderr.startswith("m2sectl: 2 of 3000")
    # All items are of later epochs.
    write_user(redis, "late", floats([1.0] * dim), 1)
    for item in redis.call("KEYS", "m2se:item:*"):
        redis.call("HSET", item, "epoch", epoch + 1, "epoch_prev", epoch)
    assert "epoch 1, all items are ahead" in ctl.complaint(TEMPORARY, "recommend", "late")
    redis.call("HSET", key("user", "late"), "v", b"123")
    ctl.complaint(DATA, "recommend", "late")


# ---- everything else ----


def check_command_line(ctl, folder):
    for words in (
        [],
        ["nothing"],
        ["checkpoint"],
        ["checkpoint", "nothing"],
        ["status", "too", "much"],
        ["sequence"],
        ["status", "-k", "3"],
        ["sequence", "42", "--watch"],
        ["produce", "interactions"],
        ["produce", "items", "-", "--format", "tsv"],
        ["produce", "interactions", "-", "--format", "csv"],
        ["produce", "interactions", "-", "--rate", "0"],
        ["produce", "interactions", "-", "--rate", "nan"],
        ["produce", "interactions", "-", "--skip", "-3"],
    ):
        ctl.complaint(USAGE, *words)
    ctl.run("status", "--nothing", expect=USAGE)
    overview = ctl.text("--help")
    commands = re.findall(r"^  ([a-z-]+(?: [a-z]+)?)(?: .*)?\n      ", overview, re.MULTILINE)
    assert len(commands) >= 9, commands
    for command in commands:
        text = ctl.text(*command.split(), "--help")
        assert text.startswith(f"m2sectl {command}") and "--config FILE" in text
    assert max(len(line) for line in overview.splitlines()) <= 100
    with open("/dev/full", "w") as full:
        done = ctl.run("--help", expect=IO, stdout=full)
    assert "No space left" in done.stderr
    bad = folder / "bad.yaml"
    bad.write_text("redis: {uri: 'http://x'}\n")
    assert "redis://" in ctl.complaint(CONFIG, "status", env={"M2SED_REDIS_URI": "http://x"})
    ctl.complaint(CONFIG, "status", env={"M2SED_REDIS_TIMEOUT_MS": "soon"})
    ctl.config = folder / "missing.yaml"
    ctl.complaint(NO_INPUT, "status")


def check_without_server(ctl, server):
    server.kill()
    for words in (["status"], ["sequence", "42"], ["recommend", "42"]):
        assert "Redis: " in ctl.complaint(UNAVAILABLE, *words)
    server.start()
    server.pause()
    begun = time.monotonic()
    assert "Redis: " in ctl.complaint(UNAVAILABLE, "status")
    assert 1 < time.monotonic() - begun < 10
    server.resume()


def main():
    with scratch() as folder, Server(folder / "redis").start() as server, server.client() as redis:
        ctl = Ctl(folder, server)
        check_status_json(ctl, redis)
        check_status_table(ctl, redis)
        check_status_trouble(ctl, redis)
        check_sequence(ctl, redis, folder)
        check_recommend(ctl, redis)
        check_watch_terminal(ctl, redis)
        check_watch_lines(ctl, server, redis, folder)
        check_without_server(ctl, server)
        check_command_line(ctl, folder)


main()
