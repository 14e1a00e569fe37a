"""ops/run: a trial that is stopped by Ctrl-C, killed with kill -9, and started again learns each interaction once."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import urllib.request

from harness.kafka import Broker
from harness.process import BIN, CACHE, SOURCE, Process, need_program, scratch, skip, wait_until
from harness.redis import Server

STREAM = 4000
USERS_COMPARED = 40
COUNTERS = "trained_events skipped_no_context skipped_no_features skipped_duplicate skipped_guard dead_lettered".split()


class Trial:
    """ops/run on one state folder."""

    def __init__(self, folder, name, servers=()):
        self.state = folder / name
        self.folder, self.runs = folder, 0
        self.servers = list(servers)  # --brokers and --redis
        self.environment = {
            "M2SED_BIN": str(BIN),
            "M2SED_CACHE": str(CACHE),
            "M2SED_DAEMON_STATE_DIR": str(self.state),
            "M2SED_CHECKPOINT_DIR": str(self.state / "checkpoints"),
            "M2SED_HTTP_LISTEN": "127.0.0.1:0",
        }

    def start(self, events, speed, *options):
        self.runs += 1
        argv = [SOURCE / "ops" / "run", "--headless", "--every", 0.2, "--state", self.state]
        argv += ["--events", events, "--speed", speed, "--features", "hashing", *self.servers, *options]
        return Process(argv, self.folder / f"{self.state.name}-{self.runs}.log", env=self.environment).start()

    def finish(self, events, speed):
        run = self.start(events, speed)
        assert run.wait(120) == 0, run.output()
        return run.output()

    def ctl(self, *arguments):
        command = [
            BIN / "m2sectl",
            *arguments,
            "--json",
            "--embedded",
            "--config",
            SOURCE / "configs" / "movielens.yaml",
        ]
        environment = {**os.environ, **self.environment}
        return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)

    def manifest(self):
        return self.ctl("checkpoint", "show")

    def weights(self):
        newest = sorted((self.state / "checkpoints").glob("gen-" + "[0-9]" * 10))[-1]
        return (newest / "model.safetensors").read_bytes()

    def daemon_pid(self):
        return int((self.state / "checkpoints" / "lock").read_text())


def taken(manifest):
    return sum(int(manifest[name]) for name in COUNTERS) + manifest["waiting"]


def fetched(folder):
    """Lines of the stream; the test is skipped if it cannot be had."""
    converter = SOURCE / "ops" / "trial" / "movielens.py"
    done = subprocess.run([sys.executable, converter, CACHE, folder], capture_output=True, text=True)
    if done.returncode == os.EX_UNAVAILABLE:
        skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    with open(folder / "interactions.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def wait_sent(run, count):
    """Until so many interactions have been produced."""

    def reached():
        lines = re.findall(r"^ *\d+ s +([\d,]+) of", run.output(), re.MULTILINE)
        assert run.running(), run.output()
        return lines and int(lines[-1].replace(",", "")) >= count

    wait_until(reached, 60, f"{count} interactions sent")


def check_complete(trial, stream):
    """Every interaction took effect once; only the first of each user has nothing to teach."""
    manifest = trial.manifest()
    users = len({event["user_id"] for event in stream})
    assert taken(manifest) == len(stream), manifest
    assert int(manifest["skipped_no_context"]) == users, (manifest, users)
    assert int(manifest["trained_events"]) == len(stream) - users - manifest["waiting"], manifest


def check_sequences(trial, stream, run):
    """While that run stays up: each sequence holds the user's newest interactions, oldest first."""
    page = run.wait_output(r"its page: (http://\S+)\n.*goes on until Ctrl-C", 90).group(1)
    with urllib.request.urlopen(page, timeout=60) as answer:
        assert b"<title>m2sed" in answer.read()
    by_user = {}
    for event in stream:
        by_user.setdefault(event["user_id"], []).append(event)
    for user in sorted(by_user)[:USERS_COMPARED]:
        found = trial.ctl("sequence", user)["items"]
        expected = by_user[user][-len(found) :]
        assert len(found) == min(len(by_user[user]), 100), (user, len(found), len(by_user[user]))
        assert [item["item_id"] for item in found] == [event["item_id"] for event in expected], user
        assert [int(item["event_time_ms"]) for item in found] == [e["event_time_ms"] for e in expected], user


def test_interrupted(folder, stream):
    """Ctrl-C, then on to the end: the weights are those of a run that nobody interrupted."""
    trial, other = Trial(folder, "interrupted"), Trial(folder, "straight")
    run = trial.start(STREAM, 500)
    wait_sent(run, 700)
    run.signal(signal.SIGINT)
    assert run.wait(60) == 130, run.output()
    before = taken(trial.manifest())
    assert 0 < before < STREAM, before
    output = trial.finish(STREAM, 2000)
    assert f"interactions 1 to {before:,} were there before" in output, output
    assert "recommended" in output and "popularity" in output, output
    check_complete(trial, stream[:STREAM])

    output = other.finish(STREAM, 2000)
    assert "a fresh start" in output, output
    check_complete(other, stream[:STREAM])
    if trial.weights() != other.weights():
        pair = {name: (value, other.manifest()[name]) for name, value in trial.manifest().items()}
        differing = {name: both for name, both in pair.items() if both[0] != both[1]}
        raise AssertionError(f"an interrupted trial learned something else: {differing}")
    return trial


def test_killed(trial, stream):
    """kill -9 of m2sed in mid-stream, between checkpoints: nothing is lost, nothing is learned twice."""
    total = STREAM + 3000
    before = taken(trial.manifest())
    run = trial.start(total, 500)
    wait_sent(run, before + 800)
    os.kill(trial.daemon_pid(), signal.SIGKILL)
    assert run.wait(60) == os.EX_UNAVAILABLE and "ended by itself" in run.output(), run.output()
    run = trial.start(total, 2000, "--stay")
    check_sequences(trial, stream[:total], run)
    run.signal(signal.SIGINT)
    assert run.wait(60) == 0, run.output()
    assert "going back to the checkpoint" in run.output(), run.output()
    check_complete(trial, stream[:total])


def test_servers(folder, stream):
    """With a real Kafka and Redis: the interactions are in the topic once, whatever was interrupted."""
    with Broker(folder / "kafka").start() as kafka, Server(folder / "redis").start() as redis:
        addresses = ["--brokers", kafka.bootstrap, "--redis", f"redis://127.0.0.1:{redis.port}"]
        trial = Trial(folder, "servers", addresses)
        run = trial.start(STREAM, 500)
        wait_sent(run, 700)
        run.signal(signal.SIGINT)
        assert run.wait(60) == 130, run.output()
        with kafka.client() as client:
            held = client.offset("interactions")
            assert 0 < held < STREAM, held
            output = trial.finish(STREAM, 2000)
            assert f"interactions 1 to {held:,} were there before" in output, output
            assert client.offset("interactions") == STREAM
        check_complete(trial, stream[:STREAM])


def test_usage(folder):
    """Wrong arguments are told; what belongs to another stream is left alone."""
    for arguments in (["--speed", "-1"], ["--brokers", "localhost:1"], ["--nonsense"]):
        run = Process(
            [SOURCE / "ops" / "run", *arguments], folder / "usage.log", env={"M2SED_BIN": str(BIN)}
        ).start()
        assert run.wait(30) == os.EX_USAGE, (arguments, run.output())
    trial = Trial(folder, "foreign")
    trial.state.mkdir()
    (trial.state / "stream.sha256").write_text("0" * 64)
    run = trial.start(10, 10)
    assert run.wait(30) == os.EX_UNAVAILABLE and "other interactions" in run.output(), run.output()


def main():
    need_program("redis-server")
    with scratch() as folder:
        stream = fetched(pathlib.Path(folder) / "data")
        test_usage(folder)
        trial = test_interrupted(folder, stream)
        test_killed(trial, stream)
        test_servers(folder, stream)
    print("ops/run: passed")


if __name__ == "__main__":
    main()
