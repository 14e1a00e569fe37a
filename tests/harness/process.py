"""Programs under test: started with a log file, watched, stopped or killed, never left behind."""

import atexit
import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(os.environ.get("M2SED_SOURCE") or pathlib.Path(__file__).resolve().parents[2])
BIN = pathlib.Path(os.environ.get("M2SED_BIN") or SOURCE / "build" / "bin")
CACHE = pathlib.Path(os.environ.get("M2SED_CACHE") or SOURCE / ".cache")


def skip(reason):
    """Ends the test as skipped."""
    print(f"skipped: {reason}")
    sys.exit(77)


def need_program(name):
    """The path of a program of Debian's; the test is skipped without it."""
    return shutil.which(name) or skip(f"{name} is not installed (see ops/packages/test.txt)")


def may_trace():
    """Whether strace is there and the kernel lets it trace."""
    probe = ["strace", "-qq", "-o", "/dev/null", "-e", "trace=none", "true"]
    quiet = subprocess.DEVNULL
    return bool(shutil.which("strace")) and subprocess.run(probe, stdin=quiet, stderr=quiet, timeout=60).returncode == 0


def free_port():
    """A TCP port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def port_is_taken(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def patient(seconds):
    """A limit says when a test gives up, not how fast something must be: a machine that is busy with other things gets
    a minute. (Parts of a second are for those who expect nothing.)"""
    return seconds if seconds < 1 else max(seconds, 60)


def wait_until(condition, seconds, what):
    """Calls `condition` until it returns something true, and returns that; TimeoutError names `what`."""
    seconds = patient(seconds)
    deadline = time.monotonic() + seconds
    pause = 0.01
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)
    return result


@contextlib.contextmanager
def scratch():
    """A folder that vanishes with the test (with M2SED_KEEP set it stays); after a failure it shows the ends
    of the logs in it."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="m2sed-test-"))
    try:
        yield folder
    except BaseException as error:
        if not isinstance(error, SystemExit):
            # Kafka's segments, 00000000000000000000.log, are none for people.
            for log in sorted(log for log in folder.rglob("*.log") if not log.stem.isdigit()):
                print(f"--- the end of {log.relative_to(folder)}", file=sys.stderr)
                print(log.read_text(errors="replace")[-4000:], file=sys.stderr)
        raise
    finally:
        if os.environ.get("M2SED_KEEP"):
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


class Process:
    """One run after the other of one program; output is appended to `log`.

    The kernel kills the program when the thread that started it ends, so start it from the test's main
    thread: then nothing is left behind even after kill -9 of the test itself.
    """

    def __init__(self, argv, log, env=None, cwd=None):
        self.argv = [str(a) for a in argv]
        self.log = pathlib.Path(log)
        self.env = {**os.environ, **(env or {})}
        self.cwd = cwd
        self.popen = None
        self.log_start = 0  # where the present run's output begins
        atexit.register(self.kill)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def start(self):
        assert not self.running(), "already running"
        with open(self.log, "ab") as log:
            self.log_start = log.tell()
            self.popen = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.env,
                cwd=self.cwd,
            )
        return self

    @property
    def pid(self):
        return self.popen.pid

    def running(self):
        return self.popen is not None and self.popen.poll() is None

    def signal(self, number):
        self.popen.send_signal(number)

    def wait(self, seconds=60):
        """The exit status (negative: the signal that ended it)."""
        seconds = patient(seconds)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.argv[0]}: still running after {seconds} s") from None

    def stop(self, seconds=60):
        """SIGTERM; returns the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(seconds)

    def kill(self):
        """SIGKILL, also of a paused program; harmless if it does not run."""
        if self.running():
            self.signal(signal.SIGKILL)
            self.popen.wait()

    def pause(self):
        """The program stops answering, its connections stay open."""
        self.signal(signal.SIGSTOP)

    def resume(self):
        self.signal(signal.SIGCONT)

    def output(self):
        """What the present run has written so far."""
        with open(self.log, "rb") as log:
            log.seek(self.log_start)
            return log.read().decode(errors="replace")

    def wait_output(self, pattern, seconds=30):
        """Waits for a line that matches; the program must not end before. Returns the match."""

        def found():
            ended = not self.running()
            match = re.search(pattern, self.output(), re.MULTILINE)
            if ended and not match:
                raise RuntimeError(
                    f"{self.argv[0]} ended ({self.popen.returncode}) without writing {pattern!r}"
                )
            return match

        return wait_until(found, seconds, f"{self.argv[0]}: output {pattern!r}")

    def rss_bytes(self):
        """Resident memory of the present run."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE).group(1)) * 1024
