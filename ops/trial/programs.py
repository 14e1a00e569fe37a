"""The programs of the trial: m2sed as a child process, m2sectl for one command or as the stream's producer."""

import json
import os
import re
import signal
import subprocess
import time


class TrialError(Exception):
    """What stops the trial, in words for its user."""


class Control:
    """m2sectl with the settings of the trial."""

    def __init__(self, command, environment):
        self.words, self.environment = [str(word) for word in command], environment

    def command(self, *arguments):
        return [self.words[0], *arguments, *self.words[1:]]

    def run(self, *arguments):
        return subprocess.run(
            self.command(*arguments), env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )

    def must(self, *arguments):
        done = self.run(*arguments)
        if done.returncode != 0:
            raise TrialError(f"m2sectl {' '.join(arguments)}: exit {done.returncode}: {done.stderr.strip()[-600:]}")
        return done.stdout

    def json(self, *arguments):
        return json.loads(self.must(*arguments, "--json"))

    def ask(self, *arguments):
        """None: there is no answer now."""
        done = self.run(*arguments, "--json")
        return json.loads(done.stdout) if done.returncode == 0 else None

    def status(self, since):
        """The daemon's status if it is from after that Unix time, else None."""
        status = self.ask("status")
        return status if status and int(status["time_ms"]) >= since * 1000 else None


class Daemon:
    """m2sed. A process group of its own, so that Ctrl-C reaches only us; it is told to stop if we vanish."""

    def __init__(self, command, environment, log, inherited):
        self.log, self.started = log, time.time()
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "--", *map(str, command)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=[inherited],
            )

    def check(self):
        if self.process.poll() is not None:
            raise TrialError(f"m2sed ended by itself (exit {self.process.returncode}):\n{self.end_of_log()}")

    def page(self):
        """Where its HTTP server listens, HOST:PORT; None: nowhere."""
        found = re.findall(r'event="HTTP is there" address=(\S+)', self.log.read_text(errors="replace"))
        return found[-1] if found else None

    def end_of_log(self):
        return self.log.read_text(errors="replace")[-1500:]

    def stop(self):
        """SIGTERM and wait; Ctrl-C while waiting tells it a second time: at once. True: it ended in order."""
        if self.process.poll() is None:
            self.process.terminate()
        while True:
            try:
                return self.process.wait() == 0
            except KeyboardInterrupt:
                self.process.terminate()


class Feeder:
    """`m2sectl produce interactions -`, given lines at the pace of the stream.

    When its input ends it delivers what it has, and ends: so what was sent is known even after Ctrl-C.
    """

    PIPE_BYTES = 1 << 15  # written at once, so that little waits in the pipe

    def __init__(self, control, lines):
        self.lines, self.sent, self.pending = lines, 0, b""
        self.process = subprocess.Popen(
            control.command("produce", "interactions", "-", "--quiet"),
            env=control.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        os.set_blocking(self.process.stdin.fileno(), False)
        os.set_blocking(self.process.stderr.fileno(), False)
        self.complaints = b""

    def feed(self, count):
        """Hands over lines until `count` have been, or the pipe is full."""
        self.complaints = (self.complaints + (self.process.stderr.read() or b""))[-2000:]
        if self.process.poll() is not None:
            raise TrialError(f"m2sectl produce ended by itself:\n{self.complaints.decode(errors='replace')}")
        while self.pending or self.sent < min(count, len(self.lines)):
            while len(self.pending) < self.PIPE_BYTES and self.sent < min(count, len(self.lines)):
                self.pending += self.lines[self.sent]
                self.sent += 1
            try:
                written = os.write(self.process.stdin.fileno(), self.pending)
            except BlockingIOError:
                return
            self.pending = self.pending[written:]

    def finish(self):
        """All that was taken on goes out. Returns the exit status; None: it had to be ended."""
        os.set_blocking(self.process.stdin.fileno(), True)
        os.set_blocking(self.process.stderr.fileno(), True)
        try:
            _, said = self.process.communicate(self.pending, timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, said = self.process.communicate()
        self.complaints += said
        return self.process.returncode


class View:
    """The picture in the terminal: m2sectl redraws it until it is told to stop."""

    def __init__(self, control):
        command = control.command("status", "--watch")
        self.process = subprocess.Popen(command, env=control.environment, stdin=subprocess.DEVNULL)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
