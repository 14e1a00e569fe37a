"""Two daemons on one checkpoint folder, standby.lease_seconds set. The active one is killed, then one is stopped and
goes on later, then Redis loses everything, then one is told to end: each time the other one goes on, and what comes of
all of it is that of a daemon that nobody disturbed. A daemon that was replaced ends with 75 and writes nothing more.
"""

import json
import os
import re
import signal
import socket
import threading
import time
import urllib.error
import urllib.request

from checks import check_all
from daemon import Daemon
from harness.process import wait_until
from world import timed, world

LEASE_SECONDS = 5
LONG = bool(os.environ.get("M2SED_LONG"))
EVENTS, PORTIONS = 8_000 if LONG else 3_500, 6
# Training slow enough that there is something left to take over.
SETTINGS = {"standby": {"lease_seconds": LEASE_SECONDS}, "train": {"replay_ratio": 31, "batch": 256}}
TEMPFAIL = 75
# The promise is the lease; a busy machine has its time on top of that. The exact time is printed.
BUSY_SECONDS = 10


class Watch(threading.Thread):
    """What Redis is asked, as MONITOR tells it: [(address, words)]."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(b"MONITOR\r\n")
        self.lines = []
        self.start()

    def run(self):
        for line in self.socket.makefile("rb"):
            found = re.match(rb'\+[\d.]+ \[\d+ ([\d.]+:\d+)\] "(\w+)"(.*)', line)
            if found:
                self.lines.append((found[1], found[2].upper(), found[3]))

    def by_fence(self):
        """[(fence, command)] in order, of the guarded connections from their first real command on."""
        names, found = {}, []
        for address, command, rest in self.lines:
            name = re.match(rb' "SETNAME" "m2sed-[0-9a-f]{16}-(\d+)"', rest)
            if command == b"CLIENT" and name:
                names[address] = int(name[1])
            elif address in names and command in (b"HSET", b"EVALSHA", b"SET", b"UNLINK", b"EXPIRE", b"SETEX"):
                found.append((names[address], command))
        return found


def get(daemon, path):
    address = re.search(r"HTTP is there\S* .*?address=\"?([\d.:]+)", daemon.process.output())[1]
    try:
        with urllib.request.urlopen(f"http://{address}/{path}", timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def wait_for(daemon, text, seconds=30):
    def there():
        assert daemon.process.running(), f"ended with {daemon.process.popen.returncode}"
        return text in daemon.process.output()

    wait_until(there, seconds, f"{daemon.folder.name}: {text}")


class Pair:
    def __init__(self, made):
        self.made = made
        self.active = made.daemon("one", 0, SETTINGS)
        self.other = Daemon(made.folder / "two", made.kafka, made.redis, 0, SETTINGS)
        self.other.checkpoints = self.active.checkpoints
        self.other.configure({"checkpoint": {"dir": str(self.active.checkpoints)}, "kafka": {"group": "one"}})

    def start_standby(self):
        self.other.start()
        wait_for(self.other, "standby: another daemon is active")
        assert get(self.other, "livez") == (200, "alive\n")
        wait_until(lambda: get(self.other, "readyz") == (503, "standby\nanother daemon is active\n"), 5, "status")
        assert get(self.other, "recommend/1") == (503, "standby\n")
        lease = json.loads(get(self.other, "status")[1])["lease"]
        assert (lease["role"], lease["fence"], lease["seconds"]) == ("standby", "0", LEASE_SECONDS), lease
        assert "\nm2sed_lease_fence 0\n" in get(self.other, "metrics")[1]
        assert "partition starts" not in self.other.process.output()

    def trained(self):
        return int(self.active.manifest()["trained_events"]) if self.active.generations() else 0

    def let_learn(self):
        """Until there is a checkpoint of some of the events that come now."""
        wait_for(self.active, "interactions begin")
        before = self.trained()
        self.made.add_events()
        wait_until(lambda: self.trained() > before, 30, "a checkpoint")
        left = self.made.expected.counts["trained_events"] - self.trained()
        print(f"fence {self.active.manifest().get('fence')}: {left} events are not in the checkpoint", flush=True)

    def wait_taken_over(self, since):
        wait_for(self.other, "the lease is ours", LEASE_SECONDS + 10)
        took = time.monotonic() - since
        self.active, self.other = self.other, self.active
        wait_for(self.active, "active: interactions are read", 15)
        seconds = time.monotonic() - since
        wait_until(lambda: self.lease()["takeover_ms"] > 0, 5, "status")
        lease = self.lease()
        assert lease["role"] == "active" and lease["age_seconds"] < LEASE_SECONDS, lease
        assert f"\nm2sed_lease_fence {lease['fence']}\n" in get(self.active, "metrics")[1]
        said = lease["takeover_ms"] / 1000
        print(f"lease after {took:.2f} s, events after {seconds:.2f} s, the status says {said:.2f} s", flush=True)
        # It counts from the last renewal, which is up to a third of the lease before the end.
        assert seconds - BUSY_SECONDS < said < seconds + LEASE_SECONDS / 3 + BUSY_SECONDS
        return took

    def lease(self):
        return json.loads(get(self.active, "status")[1])["lease"]


def check_without_lease(pair):
    """Who does not share the lease does not get the folder."""
    other = Daemon(pair.made.folder / "three", pair.made.kafka, pair.made.redis, 0)
    other.configure({"checkpoint": {"dir": str(pair.active.checkpoints)}})
    other.start()
    assert other.process.wait(20) not in (0, -signal.SIGKILL) and "lock" in other.process.output()


def check_kill(pair):
    pair.let_learn()
    pair.active.process.kill()
    assert pair.wait_taken_over(time.monotonic()) < LEASE_SECONDS + BUSY_SECONDS
    assert "going on from a checkpoint" in pair.active.process.output()


def check_stopped(pair, watch):
    pair.start_standby()
    pair.let_learn()
    old = pair.active.process
    old.signal(signal.SIGSTOP)
    assert pair.wait_taken_over(time.monotonic()) < LEASE_SECONDS + BUSY_SECONDS
    pair.let_learn()
    old.signal(signal.SIGCONT)
    assert old.wait(20) == TEMPFAIL
    assert "not the active daemon any more" in old.output()
    time.sleep(0.3)
    commands = watch.by_fence()
    fences = [fence for fence, _ in commands]
    newest = max(fences)
    first = fences.index(newest)
    assert newest - 1 in fences[:first], "the watch has not seen the old one at work"
    assert set(fences[first:]) == {newest}, "the old one has written after the take-over"
    print(f"{first} commands of the old one, {len(fences) - first} of the new one, then none of the old")


def check_redis_lost(pair):
    """Nothing is kept: the lease has gone too, so its owner ends, and whoever asks first goes on."""
    pair.start_standby()
    pair.let_learn()
    pair.made.redis.kill()
    pair.made.redis.start()
    since = time.monotonic()
    assert pair.active.process.wait(20) == TEMPFAIL
    pair.wait_taken_over(since)
    pair.start_standby()
    assert pair.active.process.running()


def check_cut_off(pair):
    """Redis hangs for longer than the active one waits: it ends, and whoever hears of Redis first goes on."""
    since = time.monotonic()
    pair.made.redis.signal(signal.SIGSTOP)
    assert pair.active.process.wait(3 * LEASE_SECONDS + 5) == TEMPFAIL
    assert get(pair.other, "readyz") == (503, "standby\nRedis does not answer\n")
    pair.made.redis.signal(signal.SIGCONT)
    pair.wait_taken_over(since)
    pair.start_standby()


def check_told_to_end(pair):
    """The lease is given back: nobody waits until it runs out."""
    pair.let_learn()
    old, fence = pair.active.process, int(pair.lease()["fence"])
    old.signal(signal.SIGTERM)
    assert old.wait(60) == 0
    since, client = time.monotonic(), pair.made.database(0)
    with client:
        held, expires_ms = client.call("HMGET", "m2se:lease", "fence", "expires_ms")
    assert int(held) > fence or int(expires_ms) <= time.time() * 1000, "the lease was not given back"
    pair.wait_taken_over(since)
    pair.start_standby()
    pair.other.process.signal(signal.SIGTERM)
    assert pair.other.process.wait(5) == 0 and "the lease is ours" not in pair.other.process.output()
    pair.active.process.signal(signal.SIGTERM)
    assert pair.active.process.wait(60) == 0


def main():
    with world(EVENTS, 2, portions=PORTIONS) as made:
        pair, watch = Pair(made), Watch(made.redis.port)
        pair.active.start("--init-if-empty")
        wait_for(pair.active, "interactions begin")
        pair.start_standby()
        check_without_lease(pair)
        with timed("kill -9"):
            check_kill(pair)
        with timed("SIGSTOP, later SIGCONT"):
            check_stopped(pair, watch)
        with timed("Redis restarted, empty"):
            check_redis_lost(pair)
        if LONG:
            with timed("Redis hangs"):
                check_cut_off(pair)
        with timed("SIGTERM"):
            check_told_to_end(pair)
        with timed("the rest"):
            assert not made.later
            pair.active.run_to_the_end()
        check_all(made, pair.active, 0)


main()
