"""kill -9 again and again, at random moments of a daemon that has work: loading, reading, learning, writing a
checkpoint. What it leaves in the end is that of a daemon that nobody disturbed; with one partition the same weights,
bit for bit. M2SED_LONG=1: ten times as many; M2SED_SEED repeats a run's moments as far as time can be repeated.
"""

import os
import random
import signal
import time

from checks import check_all, check_same
from harness.process import wait_until
from world import timed, world

LONG = bool(os.environ.get("M2SED_LONG"))
KILLS, EVENTS = (200, 3_500) if LONG else (20, 2_000)
# Alike for all daemons, since a mini-batch's make-up decides about the weights. A restart takes its place in the
# group at once.
SETTINGS = {"train": {"replay_ratio": 7, "batch": 128, "backlog": 1000}}
SECONDS_MAX = 1.5  # of a life; checkpoints come every second
WRITING_SECONDS = 0.03  # about as long as a checkpoint takes


class Lives:
    """One daemon after the other, each killed until it comes to its end."""

    def __init__(self, made, calm, seed):
        self.made, self.calm, self.random = made, calm, random.Random(seed)
        self.kills = self.in_checkpoint = self.daemons = 0

    def live_to_the_end(self):
        self.daemons += 1
        daemon = self.made.daemon(f"killed{self.daemons}", self.daemons, SETTINGS)
        daemon.settings["kafka"]["properties"]["group.instance.id"] = "restarts"
        daemon.configure({})
        lives = 1
        while not self.live(daemon):
            lives += 1
        print(f"{lives} lives, generation {daemon.generations()[-1].name}", flush=True)
        check_all(self.made, daemon, self.daemons)
        if self.made.partitions == 1:
            check_same(self.calm, daemon)

    def live(self, daemon):
        """False: it was killed. True: it came to its end first, or there were kills enough."""
        if self.kills >= KILLS:
            daemon.run_to_the_end("--init-if-empty")
            return True
        process = daemon.start("--until-end", "--init-if-empty")
        if self.random.random() < 0.3:
            self.wait_checkpoint(process)
        else:
            self.wait(process, self.random.uniform(0, SECONDS_MAX))
        process.kill()
        # It may have come to its end by itself, up to the very moment of the signal.
        if process.popen.returncode != -signal.SIGKILL:
            assert process.popen.returncode == 0, f"it ended with {process.popen.returncode}"
            return True
        self.kills += 1
        return False

    def wait(self, process, seconds):
        end = time.monotonic() + seconds
        while process.running() and time.monotonic() < end:
            time.sleep(min(0.005, max(0, end - time.monotonic())))

    def wait_checkpoint(self, process):
        """Until some moment of a checkpoint that was asked for."""
        wait_until(lambda: "interactions begin" in process.output() or not process.running(), 60, "work")
        self.wait(process, self.random.uniform(0.1, 1))
        if process.running():
            process.signal(signal.SIGUSR1)
            self.wait(process, self.random.uniform(0, WRITING_SECONDS))
            self.in_checkpoint += 1


def run(partitions, seed):
    with world(EVENTS, partitions) as made:
        calm = made.daemon("calm", 0, SETTINGS)
        with timed("uninterrupted"):
            calm.run_to_the_end("--init-if-empty")
        check_all(made, calm, 0)
        lives = Lives(made, calm, seed)
        with timed("killed again and again"):
            while lives.kills < KILLS:
                lives.live_to_the_end()
        print(
            f"{partitions} partitions: {lives.kills} kills, {lives.in_checkpoint} near a checkpoint,", end=" "
        )
        print(f"{lives.daemons} daemons that came to their end")


def main():
    seed = int(os.environ.get("M2SED_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"M2SED_SEED={seed}", flush=True)
    for partitions in (1, 4) if LONG else (1,):
        run(partitions, seed)


main()
