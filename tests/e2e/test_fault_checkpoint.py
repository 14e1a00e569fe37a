"""Checkpoints when the disk fails, is full, or the power goes at any step of writing one, and when bytes of a
generation change or go: there is always one to go on from, and every event counts once. M2SED_LONG=1: every step, every
byte of the manifest, more of the others. M2SED_SEED repeats a run's choices."""

import contextlib
import os
import pathlib
import random
import shutil
import signal
import subprocess

from checks import check_all, check_partial
from growing import LONG, growing, status, wait_taken
from harness.process import BIN, Process, may_trace, wait_until
from world import timed

EVENTS = 6000
CHUNK = 40
# What the thread that writes checkpoints calls, and how often in a checkpoint that also removes an older one.
STEPS = {"mkdir": 1, "fsync": 6, "rename": 2, "unlinkat": 4, "rmdir": 1}
SETTINGS = {"train": {"batch": 16}}
DISK_BYTES = 32 << 20
EX_DATAERR = 65


@contextlib.contextmanager
def wrapped(daemon, *words):
    """Runs of the daemon in here are `words` m2sed ...; one thread of libuv's pool writes all checkpoints."""
    plain = daemon.command
    daemon.command = [*words, *plain]
    daemon.process.env["UV_THREADPOOL_SIZE"] = "1"
    yield
    daemon.command = plain


def strace(daemon, *injections):
    """setpriv, for strace may be killed and leave the daemon."""
    calls = ",".join(injection.split(":")[0] for injection in injections)
    inject = [word for injection in injections for word in ("-e", f"inject={injection}")]
    command = ["strace", "-f", "-qq", "-e", f"trace={calls}", *inject]
    trace = daemon.folder / "strace.out"
    return wrapped(daemon, *command, "-o", trace, "--", "setpriv", "--pdeathsig", "KILL", "--")


def child(process):
    """The only child of a program, which is the daemon."""
    (pid,) = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(pid)


def verify(daemon, generation="all"):
    return subprocess.run(
        [BIN / "m2sectl", "checkpoint", "verify", generation, "--config", daemon.config],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=60,
    ).returncode


def is_whole(world, daemon):
    """Whatever stands under the name of a generation is good, and the newest is what its positions say."""
    assert verify(daemon) == 0
    check_partial(world, daemon)


# ---- a kill at each step ----


def killed_at(world, daemon, call, number):
    """False: there was no such step."""
    world.produce(CHUNK)
    world.settle()
    before = daemon.generations()
    with strace(daemon, f"{call}:signal=SIGKILL:when={number}"):
        process = daemon.start("--until-end")
        ended = process.wait(60)
    assert ended in (0, -signal.SIGKILL), (call, number, ended)
    after = daemon.generations()
    assert len(after) >= 2 and after[-1] >= before[-1], (before, after)
    is_whole(world, daemon)
    return ended != 0


def every_step(world, daemon, choose):
    for call, count in STEPS.items():
        numbers = range(1, count + 1)
        if not LONG:
            numbers = sorted(choose.sample(numbers, min(2, count)))
        kills = [number for number in numbers if killed_at(world, daemon, call, number)]
        print(f"killed at {call} number {kills}", flush=True)
        assert len(kills) == len(numbers), (call, numbers)


# ---- a disk that fails ----


def goes_on(world, daemon, database, process):
    """Checkpoints succeed and fail, in turn; the daemon learns on, and says what is the matter."""

    def both():
        newest = status(world, database)["checkpoint"]
        return newest["written"] and newest["failures"] and newest

    world.produce(CHUNK)
    wait_taken(world, database)
    newest = wait_until(both, 60, "checkpoints that failed and others that did not")
    assert process.running()
    assert "Input/output error" in newest["last_error"] or "Read-only file" in newest["last_error"], newest
    assert process.output().count("checkpoint failed, the one before stays") >= 1
    world.produce(CHUNK)
    wait_taken(world, database)
    return newest


def failing(world, daemon, database, *injections):
    # None is removed meanwhile: that renames too.
    daemon.configure({"checkpoint": {"every_seconds": 1, "keep": 100}})
    with strace(daemon, *injections):
        process = daemon.start()
        wait_until(lambda: "interactions begin" in process.output(), 60, "work")
        newest = goes_on(world, daemon, database, process)
        os.kill(child(process), signal.SIGTERM)
        ended = process.wait()
    daemon.configure({"checkpoint": {"every_seconds": 3600, "keep": 2}})
    print(f"{injections}: {newest['written']} written, {newest['failures']} failed, exit status {ended}")
    # The last checkpoint of all may have failed too: then it must say so.
    assert ended == 0 or (ended > 0 and "the last checkpoint: " in process.output()), ended
    world.settle()
    is_whole(world, daemon)


# ---- a disk that is full ----


def full(world, daemon, database):
    """Its folder is a small file system of its own, which a file of ours fills."""
    inside = 'mount -t tmpfs -o size="$0" none "$1" && shift && exec "$@"'
    folder = str(daemon.checkpoints)
    probe = ["unshare", "-rm", "sh", "-c", inside, str(DISK_BYTES), folder, "true"]
    if subprocess.run(probe, stdin=subprocess.DEVNULL, check=False, timeout=10).returncode:
        print("a full disk: not tested, a namespace of its own is not allowed here")
        return
    saved = daemon.folder / "saved"
    shutil.copytree(folder, saved)
    for older in sorted(saved.glob("gen-*"))[:-2]:
        shutil.rmtree(older)
    inside = inside.replace("shift", f'cp -r "{saved}"/gen-* "$1" && shift')
    daemon.configure({"checkpoint": {"every_seconds": 1}})
    with wrapped(daemon, "unshare", "-rm", "sh", "-c", inside, str(DISK_BYTES), folder):
        process = daemon.start()
        wait_until(lambda: "interactions begin" in process.output(), 60, "work")
        there = pathlib.Path(f"/proc/{process.pid}/root{folder}")

        def checkpoint():
            return status(world, database)["checkpoint"]

        before = checkpoint()["failures"]
        with open(there / ".filler", "wb", buffering=0) as filler:
            with contextlib.suppress(OSError):
                while filler.write(bytes(1 << 16)):
                    pass
            world.produce(CHUNK)
            wait_until(lambda: checkpoint()["failures"] > before + 1, 30, "failed checkpoints")
            error = checkpoint()["last_error"]
            assert "No space left" in error, error
            world.produce(CHUNK)
            wait_taken(world, database)
            written = checkpoint()["written"]
            filler.truncate(0)
        wait_until(lambda: checkpoint()["written"] > written + 1, 30, "checkpoints again")
        daemon.configure({"checkpoint": {"every_seconds": 3600}})
        process.pause()  # between two steps of a checkpoint, perhaps
        for generation in daemon.generations():
            shutil.rmtree(generation)
        ignore = shutil.ignore_patterns(".filler", "*.tmp.*")
        shutil.copytree(there, folder, ignore=ignore, dirs_exist_ok=True)
        process.kill()
    shutil.rmtree(saved)
    world.settle()
    is_whole(world, daemon)


# ---- bytes that change or go ----


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x20]))


def cut(path, at):
    os.truncate(path, at)


def places(path, choose):
    size = path.stat().st_size
    if LONG and path.name == "MANIFEST.json":
        return range(size)
    count = 300 if LONG else 8
    return sorted({0, 7, size // 2, size - 1, *(choose.randrange(size) for _ in range(count))})


def noticed(daemon, choose):
    """Every damage to the newest generation is seen."""
    newest, tries = daemon.generations()[-1], 0
    for path in sorted(newest.iterdir()):
        whole = path.read_bytes()
        for at in places(path, choose):
            for damage in (flip, cut):
                damage(path, at)
                assert verify(daemon) == EX_DATAERR, (damage.__name__, path, at)
                path.write_bytes(whole)
                tries += 1
        path.unlink()
        assert verify(daemon) == EX_DATAERR, path
        path.write_bytes(whole)
    assert verify(daemon) == 0
    print(f"{tries} damages noticed")


def damaged(world, daemon, choose):
    """The daemon goes on from the generation before."""
    daemon.configure({"checkpoint": {"keep": 5}})
    daemon.run_to_the_end()
    names = sorted(path.name for path in daemon.generations()[-1].iterdir())
    for name in names if LONG else choose.sample(names, 2):
        world.produce(CHUNK)
        before, newest = daemon.generations()[-2:]
        path = newest / name
        damage = choose.choice((flip, cut))
        damage(path, choose.randrange(path.stat().st_size))
        daemon.run_to_the_end()
        output = daemon.process.output()
        assert f'checkpoint cannot be used" generation={int(newest.name[4:])} ' in output, output[:3000]
        assert f'going on from a checkpoint" generation={int(before.name[4:])} ' in output, output[:3000]
        world.settle()
        shutil.rmtree(newest, ignore_errors=True)  # the daemon may have removed it, as the oldest
        is_whole(world, daemon)


def all_bad(daemon, forget):
    """It refuses them, and with --init-if-empty sets them aside; then it is a beginning like the first one."""
    bad = daemon.generations()
    for generation in bad:
        cut(generation / "model.safetensors", 100)
    process = Process(daemon.command, daemon.folder / "refused.log").start()
    assert process.wait() > 0 and "generations can be used" in process.output(), process.output()
    assert "--init-if-empty" in process.output() and daemon.generations() == bad
    # Who begins anew with the weights does so with the sequences, of which Redis has only the newest entries.
    forget()
    daemon.run_to_the_end("--init-if-empty")
    assert "all checkpoints are damaged" in daemon.process.output()
    for generation in bad:
        assert (generation.parent / f"bad-{generation.name}" / "MANIFEST.json").exists(), generation
    assert verify(daemon) == 0


def none_there(daemon):
    for generation in daemon.generations():
        shutil.rmtree(generation)
    process = Process(daemon.command, daemon.folder / "refused.log").start()
    assert process.wait() > 0 and "--init-if-empty" in process.output(), process.output()


def main():
    seed = int(os.environ.get("M2SED_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"M2SED_SEED={seed}", flush=True)
    choose = random.Random(seed)
    with growing(EVENTS, 2) as world:
        daemon = world.daemon("disk", 0, SETTINGS)
        daemon.configure({"checkpoint": {"every_seconds": 3600, "keep": 2}})
        for _ in range(3):
            world.produce(CHUNK)
            daemon.run_to_the_end("--init-if-empty")
        if may_trace():
            with timed("killed at each step"):
                every_step(world, daemon, choose)
            with timed("a failing disk"):
                for first in range(1, 7) if LONG else [choose.randrange(2, 6)]:
                    failing(world, daemon, 0, f"fsync:error=EIO:when={first}+7")
                failing(world, daemon, 0, "rename:error=EROFS:when=1+2")
        else:
            print("killed at each step, a failing disk: not tested, strace is not installed or may not trace here")
        with timed("a full disk"):
            full(world, daemon, 0)
        with timed("damaged generations"):
            noticed(daemon, choose)
            damaged(world, daemon, choose)
        with world.database(0) as client:
            all_bad(daemon, lambda: client.call("FLUSHDB"))
        check_all(world, daemon, 0)
        none_there(daemon)


main()
