"""Redis is killed, silent, refuses, forgets its scripts, drops connections, in turn, while events come in: sequences,
digest and vectors are those of the log, nothing is trained twice. M2SED_LONG=1: silent for a minute."""

import time

from checks import check_all
from growing import LONG, growing, status, wait_taken
from harness import protobuf
from harness.process import free_port, wait_until
from world import timed

PAUSE_SECONDS = 60 if LONG else 3
CHUNK = 250
SETTINGS = {"redis": {"timeout_ms": 1000}, "train": {"batch": 32}, "serve": {"epoch_steps": 10}}


def meanwhile(world):
    """Events come whatever is the matter."""
    world.produce(CHUNK)
    time.sleep(1)


def troubles(newest):
    """What the daemon has noticed of Redis."""
    return {name: n for name, n in newest["redis"].items() if name.startswith("errors_") or name == "reconnects"}


def refused(world):
    """Events come until the daemon has been told off, by its status in Kafka."""
    before = troubles(status(world, 0))
    meanwhile(world)

    def noticed():
        return troubles(protobuf.decode("Status", world.client.read_all("m2se.status")[-1].value)) != before

    wait_until(noticed, 30, "a refusal")


def killed(world):
    world.redis.kill()
    meanwhile(world)
    world.redis.start()


def silent(world):
    """Longer than redis.timeout_ms: connections are given up and made again."""
    with world.redis.client() as client:
        client.call("CLIENT", "PAUSE", PAUSE_SECONDS * 1000, "ALL")
    world.produce(CHUNK)
    time.sleep(PAUSE_SECONDS)


def stopped(world):
    world.redis.pause()
    meanwhile(world)
    time.sleep(1.5)
    world.redis.resume()


def scripts_flushed(world):
    with world.redis.client() as client:
        for _ in range(5):
            world.produce(CHUNK // 5)
            client.call("SCRIPT", "FLUSH")


def connections_reset(world):
    with world.redis.client() as client:
        for _ in range(10):
            world.produce(CHUNK // 10)
            client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            time.sleep(0.1)


def read_only(world):
    """As after a failover: this server is a replica now, of a master that is not there, and then no more."""
    with world.redis.client() as client:
        client.call("REPLICAOF", "127.0.0.1", free_port())
        refused(world)
        client.call("REPLICAOF", "NO", "ONE")


def out_of_memory(world):
    with world.redis.client() as client:
        client.call("CONFIG", "SET", "maxmemory", 1)
        refused(world)
        client.call("CONFIG", "SET", "maxmemory", 0)


FAULTS = [killed, silent, stopped, scripts_flushed, connections_reset, read_only, out_of_memory]


def main():
    # Every write is on the disk before it is acknowledged: what a server that writes later has lost in a crash is
    # another matter.
    config = ["appendonly yes", "appendfsync always"]
    with growing(2 * CHUNK * (len(FAULTS) + 1), 2, config) as world:
        daemon = world.daemon("live", 0, SETTINGS)
        process = daemon.start("--init-if-empty")
        world.produce(CHUNK)
        wait_taken(world, 0)
        for fault in FAULTS:
            with timed(fault.__name__):
                before = troubles(status(world, 0))
                world.produce(CHUNK)
                fault(world)
                after = troubles(wait_taken(world, 0))
            print({name: after[name] - before[name] for name in before if after[name] != before[name]})
            assert after != before, "the daemon has noticed nothing"
        assert process.stop() == 0
        world.settle()
        daemon.run_to_the_end()
        check_all(world, daemon, 0)


main()
