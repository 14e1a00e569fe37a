"""The load of a shop, against a real broker and a real Redis: one JSON line for each of live, burst, backfill, sequences.

100,000 users (Zipf), 10,000 items with feature rows of 384 numbers, the settings as shipped but for `train.overload: shrink`
and more frequent checkpoints. Beside what the daemon says of itself, a reader of its own polls Redis for a sample of users:
an event's time is that of its sending, so the time in a user's hash says how old what a reader sees is.
"""

import argparse
import array
import base64
import bisect
import itertools
import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness import protobuf
from harness.kafka import Broker
from harness.process import BIN, SOURCE, Process, scratch, wait_until
from harness.redis import Server

USERS, ITEMS, DIM, PARTITIONS = 100_000, 10_000, 384, 4
WARM_UP = 3000
SAMPLE = 64
PAUSE_SECONDS = 0.003
RING = 8192  # M2SED_TRAINER_RING: while the backlog has less than twice that left, consumption slows down
EVALUATIONS = (("made", "events"), ("left_out", "skipped"))


# ---- what is sent ----


def write_items(path, rng):
    with open(path, "w") as out:
        for number in range(ITEMS):
            steps = array.array("h")
            steps.frombytes(rng.randbytes(2 * DIM))
            row = array.array("f", (step * 5e-5 for step in steps))
            data = base64.b64encode(row.tobytes()).decode()
            print(json.dumps({"item_id": f"i{number:06}", "text_rows": {"dim": DIM, "data": data}}), file=out)


def write_events(path, rng, count):
    """Returns the users, one an event."""
    sums = list(itertools.accumulate(1 / rank for rank in range(1, USERS + 1)))
    items = list(itertools.accumulate(1 / (rank + 10) for rank in range(ITEMS)))
    users = []
    with open(path, "w") as out:
        for _ in range(count):
            user = f"u{bisect.bisect(sums, rng.random() * sums[-1]):07}"
            item = min(bisect.bisect(items, rng.random() * items[-1]), ITEMS - 1)
            users.append(user)
            out.write(f'{{"user_id": "{user}", "item_id": "i{item:06}", "event_time_ms": 1700000000000}}\n')
    return users


# ---- figures ----


def quantile(values, share):
    values = sorted(values)
    return round(values[min(len(values) - 1, int(share * len(values)))], 1) if values else None


def histogram(status, name):
    return next(one for one in status["freshness"] if one["stage"] == name)


def histogram_quantile(before, after, share):
    """The upper bound of the bucket in which it lies; None: beyond the last."""
    old = before["count"] or [0] * len(after["count"])
    counts = [new - then for new, then in zip(after["count"], old, strict=True)]
    wanted, seen = share * sum(counts), 0
    for bound, count in zip(after["bound_ms"], counts, strict=False):
        seen += count
        if seen >= wanted:
            return bound
    return None


# ---- the servers and the daemon ----


class Shop:
    def __init__(self, folder, kafka, redis):
        self.folder, self.kafka, self.redis = folder, kafka, redis
        self.rng = random.Random(1)
        with kafka.client() as client:
            for topic, partitions in (("interactions", PARTITIONS), ("items", 1), ("m2se.status", 1)):
                client.create_topic(topic, partitions)
            for topic in ("interactions.dlq", "items.dlq", "erasures"):
                client.create_topic(topic, 1)
        self.config("live", 0)
        write_items(folder / "items.jsonl", self.rng)
        self.ctl("produce", "items", folder / "items.jsonl")
        self.in_log = 0

    def config(self, name, database, train=None):
        self.path = self.folder / f"{name}.yaml"
        settings = {
            "daemon": {"instance": name},
            "kafka": {"brokers": self.kafka.bootstrap, "group": name},
            "redis": {"uri": f"redis://127.0.0.1:{self.redis.port}/{database}"},
            "train": {"overload": "shrink", **(train or {})},
            "checkpoint": {"dir": str(self.folder / name), "every_seconds": 5},
            "http": {"listen": ""},
        }
        lines = []
        for section, values in settings.items():
            lines += [f"{section}:", *(f"  {key}: {json.dumps(value)}" for key, value in values.items())]
        self.path.write_text("\n".join(lines) + "\n")
        return Process([BIN / "m2sed", "--config", self.path], self.folder / f"{name}.log")

    def ctl_command(self, *words):
        return [str(word) for word in (BIN / "m2sectl", *words, "--config", self.path)]

    def ctl(self, *words):
        done = subprocess.run(
            self.ctl_command(*words), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900
        )
        if done.returncode:
            raise RuntimeError(f"m2sectl {words[0]}: {done.stderr[-500:]}")
        return done.stdout

    def events(self, count):
        path = self.folder / f"events-{self.in_log}.jsonl"
        self.in_log += count
        return path, write_events(path, self.rng, count)

    def status(self, client):
        blob = client.call("GET", "m2se:status")
        return protobuf.decode("Status", blob) if blob else None


def wait_for(shop, client, condition, seconds, what):
    return wait_until(lambda: (status := shop.status(client)) and condition(status) and status, seconds, what)


# ---- an independent reader ----


class Reader:
    """Asks for the newest event's time of a few users, again and again."""

    def __init__(self, client, users):
        self.client, self.users = client, users
        self.commands = [("HGET", f"m2se:user:{user}", "event_ms") for user in users]
        self.seen = client.pipeline(self.commands)
        self.ages_ms, self.polls_ms = [], []

    def poll(self):
        begin = time.monotonic()
        found = self.client.pipeline(self.commands)
        now_ms = 1000 * time.time()
        self.polls_ms.append(1000 * (time.monotonic() - begin))
        self.ages_ms += [now_ms - int(new) for new, old in zip(found, self.seen, strict=True) if new != old]
        self.seen = found
        time.sleep(PAUSE_SECONDS)


# ---- scenarios ----


def vectors(status):
    """Those that an event asked for: the sweep's have no time of production and are in no histogram."""
    return sum(histogram(status, "vector")["count"])


def follow(shop, daemon, client, name, rate, seconds, catch_up):
    """A running daemon takes `rate` events a second, and each has its vector; then it works off what has waited."""
    path, users = shop.events(rate * seconds)
    before = shop.status(client)
    reader = Reader(client, sorted(set(shop.rng.sample(users, min(SAMPLE, len(users))))))
    producing = Process(
        shop.ctl_command("produce", "interactions", path, "--rate", rate, "--now", "--quiet"),
        shop.folder / "produce.log",
    )
    begin = time.monotonic()
    producing.start()
    most_rss = most_waiting = most_delay = most_stall = 0
    while producing.running() or reader.polls_ms == []:
        for _ in range(50):
            reader.poll()
        status = shop.status(client)
        most_rss = max(most_rss, daemon.rss_bytes())
        most_waiting = max(most_waiting, status["training"]["waiting"])
        most_delay = max(most_delay, status["process"]["loop_delay_ms"])
        most_stall = max(most_stall, status["checkpoint"]["stall_ms"])
    assert producing.wait() == 0
    sent = time.monotonic() - begin
    wanted = vectors(before) + len(users)
    while vectors(after := shop.status(client)) < wanted:
        assert time.monotonic() < begin + sent + 120, "no vector for some events"
        for _ in range(50):
            reader.poll()
    wait_for(
        shop, client, lambda s: outcomes(s) >= shop.in_log - s["training"]["waiting"], 60, "all events at the trainer"
    )
    behind = time.monotonic()
    stages = {}
    for stage in ("consumed", "sequence", "vector"):
        old, new = histogram(before, stage), histogram(after, stage)
        stages[f"{stage}_p50_p99_ms_below"] = [histogram_quantile(old, new, share) for share in (0.5, 0.99)]
    figures = {
        "scenario": name,
        "rate": rate,
        "seconds": seconds,
        "sent_per_second": round(len(users) / sent),
        **stages,
        "reader_p50_ms": quantile(reader.ages_ms, 0.5),
        "reader_p99_ms": quantile(reader.ages_ms, 0.99),
        "reader_events": len(reader.ages_ms),
        "plain_poll_p50_ms": quantile(reader.polls_ms, 0.5),
        "plain_poll_p99_ms": quantile(reader.polls_ms, 0.99),
        **{f"evaluations_{key}": after["prequential"][name] - before["prequential"][name] for key, name in EVALUATIONS},
        "waiting_most": most_waiting,
        "loop_delay_ms_most": round(most_delay, 1),
        "checkpoint_stall_ms_most": round(most_stall, 1),
        "rss_mib_most": round(most_rss / 2**20),
    }
    tell(figures)  # what follows may take minutes
    if not catch_up:
        return
    done = wait_for(shop, client, lambda s: s["training"]["waiting"] < 128, 300, "training has caught up")
    tell({
        "scenario": f"{name}: training has caught up",
        "seconds_to_catch_up": round(time.monotonic() - behind, 1),
        "trained": done["events"]["trained"] - before["events"]["trained"],
        "replay_taken_away": done["training"]["replay_taken_away"] - before["training"]["replay_taken_away"],
    })


def outcomes(status):
    events = status["events"]
    return sum(events[key] for key in ("trained", "skipped_no_context", "skipped_no_features", "skipped_duplicate"))


def live(shop, wanted, arguments):
    # What a burst brings waits in the backlog, so that it must hold all of it.
    waiting = max(50_000, 2 * RING + arguments.burst * arguments.seconds) if "burst" in wanted else 50_000
    daemon = shop.config("live", 0, {"backlog": waiting})
    path, _ = shop.events(WARM_UP)
    shop.ctl("produce", "interactions", path, "--now", "--quiet")
    daemon.argv.append("--init-if-empty")
    daemon.start()
    with shop.redis.client() as client:
        wait_for(shop, client, lambda s: s["serving"]["epoch"] > 0 and outcomes(s) > WARM_UP - 256, 120, "the warm-up")
        for name, rate in (("live", arguments.rate), ("burst", arguments.burst)):
            if name in wanted:
                follow(shop, daemon, client, name, rate, arguments.seconds, arguments.catch_up)
    assert daemon.stop(120) == 0


def backfill(shop, arguments):
    """The whole log from its beginning, every event trained once; beside it, what the model alone can do."""
    count = arguments.events
    path, _ = shop.events(count)
    # Every event once, and all processors: nobody reads meanwhile.
    daemon = shop.config("backfill", 1, {"threads": 2, "nice": 0, "replay_ratio": 0})
    shop.ctl("produce", "interactions", path, "--quiet")
    daemon.argv += ["--until-end", "--init-if-empty"]
    begin, most_rss = time.monotonic(), 0
    daemon.start()
    while daemon.running():
        time.sleep(0.1)
        try:
            most_rss = max(most_rss, daemon.rss_bytes())
        except (OSError, AttributeError):
            pass  # it has just ended
    seconds = time.monotonic() - begin
    assert daemon.wait() == 0
    manifest = json.loads(shop.ctl("checkpoint", "show", "--json"))
    counters = ("trained_events", "skipped_no_context", "skipped_no_features", "skipped_duplicate")
    outcome = {name: int(manifest[name]) for name in counters}
    assert sum(outcome.values()) == shop.in_log, (outcome, shop.in_log)
    words = "train --batch 128 --len-max 50 --items 10000 --text-rows 1 --image-rows 0 --dim 384 --threads 1 --steps 10"
    bench = json.loads(subprocess.check_output([BIN / "m2se_bench", *words.split(), "--targets", "all"]))
    trained = outcome["trained_events"]
    return {
        "scenario": "backfill",
        "events": shop.in_log,
        **outcome,
        "events_per_second": round(shop.in_log / seconds),
        "trained_per_second": round(trained / seconds),
        "plain_bench_examples_per_second": bench["examples_per_second"],
        "plain_bench_peak_share": bench["peak_share"],
        "sgemm_peak_gflops": bench["sgemm_peak_gflops"],
        "rss_mib_most": round(most_rss / 2**20),
    }


def sequences(shop, arguments):
    """A backfill with training off: what the way into Redis can do. The speed is what the daemon says of itself."""
    path, _ = shop.events(arguments.sequences)
    shop.ctl("produce", "interactions", path, "--quiet")
    daemon = shop.config("sequences", 2, {"enabled": False})
    daemon.argv += ["--until-end", "--init-if-empty"]
    begin = time.monotonic()
    daemon.start()
    assert daemon.wait(600) == 0
    seconds = time.monotonic() - begin
    said = re.search(r'no more interactions are taken" events=(\d+) .*per_second=([\d.]+)', daemon.log.read_text())
    assert int(said[1]) == shop.in_log
    return {
        "scenario": "sequences",
        "events": shop.in_log,
        "events_per_second": round(float(said[2])),
        "seconds_from_start_to_end": round(seconds, 1),
    }


def tell(figures):
    load = Path("/proc/loadavg").read_text().split()[0]
    print(json.dumps({**figures, "load_average": float(load)}), flush=True)


def redis_lines():
    """The settings as shipped, but for where it listens."""
    lines = (SOURCE / "configs" / "redis.conf").read_text().splitlines()
    return [line for line in lines if not re.match(r"#|port |unixsocket|\s*$", line)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("scenarios", nargs="*", default=[])
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--burst", type=int, default=5000)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument(
        "--no-catch-up", dest="catch_up", action="store_false", help="do not wait until what has waited is trained"
    )
    parser.add_argument("--sequences", type=int, default=300000, help="events of the scenario sequences")
    parser.add_argument("--events", type=int, default=20000, help="more of them, for the backfill")
    arguments = parser.parse_args()
    wanted = arguments.scenarios or ["live", "burst", "backfill"]
    with (
        scratch() as folder,
        Broker(folder / "kafka").start() as kafka,
        Server(folder / "redis", redis_lines()).start() as redis,
    ):
        shop = Shop(folder, kafka, redis)
        if "live" in wanted or "burst" in wanted:
            live(shop, wanted, arguments)
        if "sequences" in wanted:
            tell(sequences(shop, arguments))
        if "backfill" in wanted:
            tell(backfill(shop, arguments))


main()
