"""The trial: MovieLens-100K as a live stream into m2sed, watched, and what came of it. Called by ops/run."""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import signal
import sys
import time

import minilm
import movielens
from programs import Control, Daemon, Feeder, TrialError, View

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "movielens.yaml"
USERS_SHOWN, FILMS_SHOWN = 3, 6
MINILM_DIM = 384

# How far the stream may run ahead of m2sed. The embedded Kafka keeps 5 MiB a partition, then the oldest go: about
# 40,000 interactions. Less, where a speed is wanted, so that what is shown is fresh if the machine can't keep up.
AHEAD_MAX, AHEAD_SECONDS = 10000, 3
# Lines that a killed producer may have delivered in another order, where a topic has several partitions.
SENT_AGAIN = 5000


class Trial:
    def __init__(self, options, lock_descriptor):
        self.options, self.lock_descriptor = options, lock_descriptor
        self.embedded = options.brokers is None
        self.state = pathlib.Path(options.state).absolute()
        self.checkpoints = self.state / "checkpoints"
        self.session = self.state / "session"  # see open_session
        self.bin = pathlib.Path(options.bin)
        self.environment = dict(os.environ)
        self.environment |= {
            "M2SED_DAEMON_STATE_DIR": str(self.state),
            "M2SED_CHECKPOINT_DIR": str(self.checkpoints),
        }
        where = ["--embedded"]  # m2sectl finds its servers in the state folder
        if not self.embedded:
            where = []
            self.environment |= {"M2SED_KAFKA_BROKERS": options.brokers, "M2SED_REDIS_URI": options.redis}
        command = [self.bin / "m2sectl", "--config", CONFIG, *where]
        self.control = Control(command, self.environment)
        self.daemon = None
        self.titles = {}

    # ---- where things are ----

    def load(self):
        items, interactions = movielens.convert(self.options.cache, pathlib.Path(self.options.cache) / "movielens")
        with open(items, encoding="utf-8") as file:
            self.titles = {item["item_id"]: item["title"] for item in map(json.loads, file)}
        with open(interactions, "rb") as file:
            self.lines = file.readlines()
        self.items_file = items
        if self.choose_features() == "minilm":
            self.items_file = self.state / "items-texts.jsonl"
            strip_rows(items, self.items_file)
        self.goal = min(self.options.events or len(self.lines), len(self.lines))
        # A state that has learned one stream must not be continued with another.
        mark, digest = self.state / "stream.sha256", hashlib.sha256(b"".join(self.lines)).hexdigest()
        if mark.is_file() and mark.read_text() != digest:
            raise TrialError(f"{self.state} belongs to other interactions: choose another --state, or --fresh")
        mark.write_text(digest)

    def choose_features(self):
        """What makes rows of titles and genres; a state that has begun with one keeps to it."""
        mark, wanted = self.state / "features.txt", self.options.features
        begun = mark.read_text() if mark.is_file() else "hashing" if self.generations() else None
        kind = begun or wanted
        if kind == "minilm":
            try:
                model = minilm.fetch(self.options.cache)
                self.environment |= {
                    "M2SED_MODEL_FEATURE_DIM": str(MINILM_DIM),
                    "M2SED_FEATURES_TEXT_MODEL": str(model),
                    "M2SED_FEATURES_STORE": str(self.state / "features"),
                }
                print("titles and genres are read by all-MiniLM-L6-v2, inside m2sed")
            except minilm.FetchError as error:
                if begun:
                    raise TrialError(f"{self.state} has learned with all-MiniLM-L6-v2, which is missing: {error}") from None
                print(f"without all-MiniLM-L6-v2 ({error}): rows by feature hashing instead")
                kind = "hashing"
        mark.write_text(kind)
        return kind

    def generations(self):
        return sorted(self.checkpoints.glob("gen-" + "[0-9]" * 10))

    # ---- the session: a log of the embedded Kafka, from its first record to the end of its process ----

    def open_session(self):
        """Puts the state in order so that this run goes on where the last one was.

        The embedded Kafka forgets its log when m2sed ends; the next run produces again from where the newest
        checkpoint is. If m2sed ended in order, that checkpoint has everything. If it was killed, Redis has taken
        events that no checkpoint covers. Repeated at other offsets they would be taken for duplicates and never
        teach. So we go back to the checkpoint with which that session began: then the log is the same once
        more, record by record, and m2sed sees what it has taken already, with the contexts of that time.
        """
        if not self.embedded:
            return
        if self.session.is_dir() and not self.ended_in_order():
            for generation in self.generations():
                shutil.rmtree(generation)
            for generation in self.session.iterdir():
                shutil.copytree(generation, self.checkpoints / generation.name)
            print("the last run was killed: going back to the checkpoint with which it began, so that its")
            print("interactions come again in the same places (Redis recognises them, the weights learn them)")
            return
        shutil.rmtree(self.session, ignore_errors=True)
        aside = self.state / "session.part"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        for generation in self.generations()[-1:]:
            shutil.copytree(generation, aside / generation.name)
        aside.rename(self.session)

    def ended_in_order(self):
        log = self.state / "m2sed.log"
        return log.is_file() and "ended in order" in log.read_text(errors="replace")[-400:]

    # ---- starting ----

    def start(self):
        if not self.embedded:
            print(self.control.must("topics", "create"), end="", flush=True)
        options = ["--embedded"] if self.embedded else ["--init-if-empty"]
        brokers = self.state / "brokers"
        brokers.unlink(missing_ok=True)  # of a killed run
        command = [self.bin / "m2sed", "--config", CONFIG, *options]
        self.daemon = Daemon(command, self.environment, self.state / "m2sed.log", self.lock_descriptor)
        if self.embedded:
            self.wait(brokers.is_file, 30, "the embedded Kafka")
        self.control.must("produce", "items", str(self.items_file))
        self.wait(lambda: int(self.status()["catalogue"]["featurised"]) >= len(self.titles), 600, "the items")
        self.wait(lambda: self.partitions(self.status()), 60, "the interactions topic to be assigned")
        if page := self.daemon.page():
            print(f"to watch it in a browser: http://{page}/", flush=True)

    def wait(self, condition, seconds, what):
        deadline = time.monotonic() + seconds
        while not (result := condition()):
            self.daemon.check()
            if time.monotonic() > deadline:
                raise TrialError(f"waited {seconds} s for {what}:\n{self.daemon.end_of_log()}")
            time.sleep(0.1)
        return result

    def status(self):
        """A status of this m2sed; waits for its first one."""
        return self.wait(lambda: self.control.status(self.daemon.started), 60, "a status of m2sed")

    @staticmethod
    def partitions(status):
        return status.get("partitions", [])

    def done_before(self):
        """How many interactions of the stream need not be produced again."""
        status = self.status()
        if not self.embedded:  # Kafka keeps them: what its topic holds
            partitions = self.partitions(status)
            held = sum(int(partition["end_offset"]) for partition in partitions)
            return held if len(partitions) == 1 else max(0, held - SENT_AGAIN)
        generation = int(status["checkpoint"]["generation"])
        if generation == 0:
            return 0
        manifest = self.control.json("checkpoint", "show", str(generation))
        return taken(manifest) + int(manifest["waiting"])

    # ---- the stream ----

    def replay(self):
        first = self.done_before()
        if first > len(self.lines):
            raise TrialError(f"the topic holds {first} interactions, more than this stream: it is not ours")
        print(f"interactions 1 to {first:,} were there before" if first else "a fresh start", flush=True)
        self.first, begun = first, time.monotonic()
        if first < self.goal:
            print(f"streaming interactions {first + 1:,} to {self.goal:,}", flush=True)
        feeder = Feeder(self.control, self.lines[first : self.goal])
        view = None if self.options.headless else View(self.control)
        try:
            self.stream(feeder, begun)
        finally:
            if view:
                view.stop()
            status = feeder.finish()
        if status != 0:
            raise TrialError(f"m2sectl produce: {feeder.complaints.decode(errors='replace')}")
        self.seconds = time.monotonic() - begun

    def stream(self, feeder, begun):
        speed = self.options.speed or float("inf")
        ahead = min(AHEAD_MAX, max(1000, AHEAD_SECONDS * speed))
        allowed, last, looked, said = 0.0, begun, 0.0, begun
        status = self.status()
        ends = [int(partition["end_offset"]) for partition in self.partitions(status)]
        before = sum(ends)  # the embedded Kafka begins with nothing
        while True:
            self.daemon.check()
            now = time.monotonic()
            if now - looked >= 0.5:
                looked, status = now, self.control.status(self.daemon.started) or status
                sent = feeder.sent == len(feeder.lines) and not feeder.pending
                if sent and self.offset(status) >= before + feeder.sent and is_idle(status):
                    return
            if self.options.headless and now - said >= self.options.every:
                said = now
                print(line_of(status, now - begun, self.first + feeder.sent, self.goal), flush=True)
            limit = ahead + self.offset(status) - before
            allowed = min(allowed + speed * (now - last), feeder.sent + max(1, speed), limit)
            last = now
            feeder.feed(int(max(allowed, 0)))
            time.sleep(0.03)

    def offset(self, status):
        return sum(int(partition["next_offset"]) for partition in self.partitions(status))

    # ---- the end ----

    def report(self):
        status = self.status()
        events, total = status["events"], max(self.first, self.goal)
        print(f"\n{total:,} interactions of the stream are done: {int(events['trained']):,} learned, ", end="")
        print(f"{int(events['skipped_no_context']):,} first ones of their users, ", end="")
        print(f"{max(0, total - taken(events)):,} waiting for the next mini-batch")
        if self.goal > self.first:
            count = self.goal - self.first
            print(f"this run: {count:,} in {self.seconds:.0f} s, {count / self.seconds:,.0f} a second")
        print_quality(status["prequential"], len(self.titles))
        for user in self.newest_users():
            self.print_user(user)

    def newest_users(self):
        users = []
        for line in reversed(self.lines[: self.goal]):
            user = json.loads(line)["user_id"]
            if user not in users:
                users.append(user)
            if len(users) == USERS_SHOWN:
                break
        return users

    def print_user(self, user):
        what = ["sequence", user], ["recommend", user, "-k", str(FILMS_SHOWN)]
        # A vector may be on its way to the newest epoch.
        seen, found = (self.wait(lambda words=words: self.control.ask(*words), 20, " ".join(words)) for words in what)
        print(f"\nuser {user}")
        for head, films in (("saw lately", reversed(seen["items"][-FILMS_SHOWN:])), ("recommended", found["items"])):
            for film in films:
                print(f"  {head:12}{self.titles.get(film['item_id'], film['item_id'])}")
                head = ""

    def stay(self):
        if page := self.daemon.page():
            print(f"\nits page: http://{page}/", end="")
        print("\nm2sed goes on until Ctrl-C. Ask it in another terminal, for example:")
        for name in ("M2SED_DAEMON_STATE_DIR", "M2SED_CHECKPOINT_DIR", "M2SED_KAFKA_BROKERS", "M2SED_REDIS_URI"):
            if name in self.environment:
                print(f"  export {name}={self.environment[name]}")
        user, titles = self.newest_users()[0], f"--titles {self.items_file}"
        print(" ", *self.control.command("recommend", user, titles))
        print(" ", *self.control.command("status", "--watch"), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                self.daemon.check()
                time.sleep(0.2)

    def close(self):
        """Ends m2sed, which writes its last checkpoint."""
        if self.daemon is None:
            return True
        print("\nm2sed writes a last checkpoint and ends ...", flush=True)
        in_order = self.daemon.stop()
        if not in_order:
            print(f"it did not end in order (see {self.daemon.log})")
        return in_order


def strip_rows(items, texts):
    """The same items without their rows: those are m2sed's to make."""
    with open(items, encoding="utf-8") as file, open(texts, "w", encoding="utf-8") as out:
        for record in map(json.loads, file):
            del record["text_rows"]
            out.write(json.dumps(record, ensure_ascii=False) + "\n")


def taken(counters):
    """Interactions whose outcome is known: from a status' events, or a checkpoint's manifest."""
    names = ["skipped_no_context", "skipped_no_features", "skipped_duplicate", "skipped_guard", "dead_lettered"]
    trained = counters["trained_events"] if "trained_events" in counters else counters["trained"]
    return int(trained) + sum(int(counters[name]) for name in names)


def is_idle(status):
    """All that was taken has been learned, but for less than a mini-batch."""
    return int(status["events"]["in_flight"]) == 0 and int(status["process"]["trainer_ring"]) == 0


def line_of(status, seconds, sent, goal):
    """One plain line about now."""
    events, recent = status["events"], status["prequential"]
    vector = [stage for stage in status["freshness"] if stage["stage"] == "vector"]
    fresh = f"  vector after {vector[0]['p50_ms']:.0f} ms" if vector else ""
    return (
        f"{seconds:5.0f} s  {sent:7,} of {goal:,} sent  {float(events['per_second']):6.0f}/s"
        f"  loss {float(status['training']['loss_mean']):6.3f}"
        f"  HR@10 {float(recent['model_recent']['hr10']):.3f}"
        f" (popularity {float(recent['popularity_recent']['hr10']):.3f}){fresh}"
        f"  lag {sum(int(partition['lag']) for partition in Trial.partitions(status)):,}"
    )


def print_quality(quality, films):
    if not int(quality["events"]):
        return
    print(f"\neach of {int(quality['events']):,} interactions ranked among {films:,} films before it was learned")
    print("(what the user had seen left out; of this run):")
    print("               HR@10  NDCG@10")
    for name, key in (("m2sed", "model_unseen"), ("popularity", "popularity_unseen")):
        print(f"  {name:12} {float(quality[key]['hr10']):6.3f}   {float(quality[key]['ndcg10']):6.3f}")


class Parser(argparse.ArgumentParser):
    def error(self, message):
        print(f"ops/run: {message} (see --help)", file=sys.stderr)
        sys.exit(os.EX_USAGE)


def parse(arguments):
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--speed", type=float, default=800)
    parser.add_argument("--events", type=int, default=0)
    parser.add_argument("--state")
    parser.add_argument("--brokers")
    parser.add_argument("--redis")
    parser.add_argument("--headless", action="store_true", default=not sys.stdout.isatty())
    parser.add_argument("--features", choices=("minilm", "hashing"), default="minilm")
    parser.add_argument("--every", type=float, default=5)
    parser.add_argument("--stay", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    options = parser.parse_args(arguments)
    if (options.brokers is None) != (options.redis is None):
        parser.error("--brokers and --redis go together")
    if options.speed < 0 or options.events < 0 or options.every <= 0:
        parser.error("--speed and --events are not negative, --every is positive")
    if options.state is None:
        options.state = "state/movielens" if options.brokers is None else "state/movielens-servers"
    return options


def lock(state):
    """Held by us, m2sed and its Redis as long as one of them lives; a new run waits for the old one's end."""
    descriptor = os.open(state / "run.lock", os.O_RDWR | os.O_CREAT, 0o644)
    os.set_inheritable(descriptor, True)
    deadline = time.monotonic() + 30
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TrialError(f"{state} is in use by another run") from None
            time.sleep(0.2)


def run(options):
    state = pathlib.Path(options.state).absolute()
    state.mkdir(parents=True, exist_ok=True)
    held = lock(state)
    if options.fresh:
        for folder in ("checkpoints", "session", "redis"):
            shutil.rmtree(state / folder, ignore_errors=True)
        (state / "stream.sha256").unlink(missing_ok=True)
    trial = Trial(options, held)
    trial.load()
    trial.open_session()
    status = 0
    try:
        trial.start()
        trial.replay()
        trial.report()
        if options.stay:
            trial.stay()
    except KeyboardInterrupt:
        print("\ninterrupted")
        status = 130
    finally:
        in_order = trial.close()
    print(f"state: {state} (weights, sequences, vectors, m2sed.log)")
    print("the same command goes on from here" if status else "next: --stay to ask it more, --fresh to begin anew")
    return status if in_order else 1


def main(arguments):
    options = parse(arguments)

    def stop(*_):
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        return run(options)
    except (TrialError, movielens.FetchError, OSError) as error:
        print(f"ops/run: {error}", file=sys.stderr)
        return os.EX_UNAVAILABLE
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
