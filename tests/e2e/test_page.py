"""The page at / in a real browser: it fetches the status and shows it."""

import os
import re
import shutil
import subprocess
import urllib.request

from harness.process import BIN, Process, scratch, skip, wait_until

# What a browser would look up in the network has no place in a test.
BROWSER = """chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run
    --disable-background-networking --disable-component-update --disable-sync --virtual-time-budget=4000""".split()


def address_of(daemon):
    wait_until(lambda: re.search(r'"HTTP is there" address=(\S+)', daemon.output()), 30, "HTTP is there")
    return re.search(r'"HTTP is there" address=(\S+)', daemon.output())[1]


def running(address):
    try:
        with urllib.request.urlopen(f"http://{address}/status", timeout=30) as answer:
            return b"\"running\"" in answer.read()
    except OSError:  # 503 until the first status
        return False


def main():
    if not shutil.which(BROWSER[0]):
        skip("chromium is not installed")
    with scratch() as folder:
        config = folder / "m2sed.yaml"
        config.write_text(
            f"daemon: {{instance: shown, state_dir: {folder}/state}}\n"
            f"checkpoint: {{dir: {folder}/state/checkpoints}}\n"
            "model: {feature_dim: 8, items_max: 100}\nhttp: {listen: 127.0.0.1:0}\n"
        )
        with Process([BIN / "m2sed", "--config", config, "--embedded"], folder / "m2sed.log") as daemon:
            daemon.start()
            address = address_of(daemon)
            wait_until(lambda: running(address), 30, "a status that says running")
            command = [*BROWSER, f"--user-data-dir={folder / 'browser'}", "--dump-dom", f"http://{address}/"]
            home = {**os.environ, "HOME": str(folder)}
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=home)
            text = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", done.stdout, flags=re.S)
            for wanted in (
                r"\bshown\b",
                r"\brunning\b",
                r"received\s+0\b",
                r"connected",
                r"reachable",
                r"at rest",
                r"parked now, features awaited\s+0\b",
                r"\b0 of at most [1-9]",
                r"left out for lack of time\s+0\b",
            ):
                assert re.search(wanted, text), f"{wanted} is not on the page: {text[-1500:]!r} {done.stderr[-500:]}"


if __name__ == "__main__":
    main()
