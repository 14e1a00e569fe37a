"""Redis loses what it has acknowledged: all of it, or what came last. The daemon makes the sequences again from the log, and
trains nothing twice; while it runs, and when it was not there."""

import shutil

import stored
from checks import check_all, check_dead_letters
from growing import growing, status, wait_taken
from harness.process import wait_until
from world import TOPIC, timed

CHUNK = 400
SETTINGS = {"train": {"batch": 32}, "serve": {"epoch_steps": 10}}


class Loss:
    def __init__(self, world, daemon):
        self.world, self.daemon, self.process = world, daemon, daemon.process
        folder = world.redis.unix_socket.parent
        self.files, self.copy = folder / "appendonlydir", folder / "copy"

    def live(self, lose):
        """The daemon notices, and is where it was when it has read everything again."""
        self.world.produce(CHUNK // 2)
        before = self.process.output().count("Redis has lost sequences")
        lose()
        self.world.produce(CHUNK // 2)
        wait_until(
            lambda: self.process.output().count("Redis has lost sequences") > before, 30, "the loss is seen"
        )

        def well():
            newest = status(self.world, 0)
            return newest and newest["state"] == "STATE_RUNNING" and not newest["reasons"]

        wait_taken(self.world, 0)
        wait_until(well, 30, "nothing is the matter any more")
        wait_taken(self.world, 0)

    def emptied(self):
        with self.world.redis.client() as client:
            client.call("FLUSHALL")

    def idle(self):
        """Nothing comes and no step is made: vectors of items and the model are there again all the same."""
        with self.world.redis.client() as client:

            def served():
                """The epoch that readers see, if all its vectors are there."""
                epoch = client.call("HGET", "m2se:model", "epoch")
                there = [client.call("HMGET", key, "epoch", "v") for key in sorted(stored.keys(client, "item"))]
                good = epoch and len(there) == items and all(of == epoch and vector for of, vector in there)
                return int(epoch) if good else 0

            # What was taken may not be served yet, and an epoch may begin.
            wait_until(lambda: status(self.world, 0)["serving"]["users_waiting"] == 0, 30, "the vectors of all users")
            items = len(stored.keys(client, "item"))
            before, users = wait_until(served, 30, "an epoch as a whole"), stored.keys(client, "user")
            assert users and items > 1000, (len(users), items)
            self.emptied()
            after = wait_until(served, 30, "the vectors of all items")
            assert after > before
            wait_until(lambda: stored.keys(client, "user") == users, 30, "the vectors of all users")
        wait_taken(self.world, 0)

    def remember(self):
        """The state to come back to."""
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.files, self.copy)

    def rolled_back(self):
        self.world.redis.kill()
        shutil.rmtree(self.files)
        shutil.copytree(self.copy, self.files)
        self.world.redis.start()

    def while_it_is_away(self, lose, said):
        """The checkpoint is ahead of Redis."""
        assert self.process.stop() == 0
        lose()
        self.world.produce(CHUNK // 2)
        self.daemon.start()
        wait_taken(self.world, 0)
        assert said in self.process.output(), self.process.output()


def main():
    with growing(5 * CHUNK + 600, 2, ["appendonly yes", "appendfsync always"]) as world:
        daemon = world.daemon("live", 0, SETTINGS)
        loss = Loss(world, daemon)
        daemon.start("--init-if-empty")
        world.produce(CHUNK)
        wait_taken(world, 0)
        with timed("emptied"):
            loss.live(loss.emptied)
        with timed("emptied while nothing comes"):
            loss.idle()
        with timed("rolled back"):
            loss.remember()
            world.produce(CHUNK // 2)
            wait_taken(world, 0)
            loss.live(loss.rolled_back)
        with timed("emptied while the daemon was away"):
            loss.while_it_is_away(loss.emptied, "all are made from the log")
        with timed("rolled back while the daemon was away"):
            loss.remember()
            world.produce(CHUNK // 2)
            wait_taken(world, 0)
            loss.while_it_is_away(loss.rolled_back, "events are read again for their sequences")
        assert daemon.process.stop() == 0
        world.settle()
        daemon.run_to_the_end()
        check_all(world, daemon, 0)
        letters = check_dead_letters(world, TOPIC, world.expected.dead)
        assert letters == len(world.expected.dead), "a dead letter is there twice"
        print(dict(world.expected.counts))


main()
