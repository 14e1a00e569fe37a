"""One m2sed of a test: its settings, its runs, its checkpoints."""

import json
import subprocess

from harness.process import BIN, Process

LENGTH, KEEP = 20, 45

# A small network: these tests are about the way of the events, not about what is learned.
SETTINGS = {
    "sequence": {"length": LENGTH, "keep": KEEP},
    "model": {"hidden": 32, "attention": 16, "experts": 4, "layers": 1, "ffn": 64},
    # No parking: what is expected is computed from the log alone. No backlog: where training is slow, so is reading, and
    # a daemon can be interrupted in mid-stream.
    "train": {"batch": 64, "replay_ratio": 1, "threads": 2, "parking": 0, "backlog": 0},
    "serve": {"epoch_steps": 40},
    "checkpoint": {"every_seconds": 1, "keep": 5},
    "http": {"listen": "127.0.0.1:0"},
    "log": {"level": "debug"},
}


class Daemon:
    def __init__(self, folder, kafka, redis, database, settings=None):
        """settings: {section: {name: value}}, over SETTINGS. Each database of the Redis server is a world of its
        own, and so is each folder's name as a consumer group."""
        folder.mkdir()
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.config = folder / "m2sed.yaml"
        self.settings = {
            **SETTINGS,
            "daemon": {"instance": folder.name},
            "kafka": {
                "brokers": kafka.bootstrap,
                "group": folder.name,
                # A member that was killed keeps its partitions for that long.
                "properties": {"session.timeout.ms": "5000", "heartbeat.interval.ms": "1000"},
            },
            "redis": {"uri": f"redis://127.0.0.1:{redis.port}/{database}"},
        }
        self.configure({"checkpoint": {"dir": str(self.checkpoints)}, **(settings or {})})
        self.command = [str(BIN / "m2sed"), "--config", str(self.config)]
        self.process = Process(self.command, folder / "m2sed.log")

    def configure(self, settings):
        for section, values in settings.items():
            self.settings[section] = {**self.settings.get(section, {}), **values}
        lines = []
        for section, values in self.settings.items():
            lines.append(f"{section}:")
            lines += [f"  {name}: {json.dumps(value)}" for name, value in values.items()]
        self.config.write_text("\n".join(lines) + "\n")

    def start(self, *options):
        self.process.argv = [*self.command, *options]
        self.process.start()
        return self.process

    def run_to_the_end(self, *options, seconds=120):
        """--until-end, and that it ends in order."""
        self.start("--until-end", *options)
        status = self.process.wait(seconds)
        assert status == 0, f"exit status {status}"

    def generations(self):
        if not self.checkpoints.exists():
            return []
        return sorted(path for path in self.checkpoints.glob("gen-*") if path.name.count(".") == 0)

    def ctl(self, *words):
        """What m2sectl prints, as JSON."""
        done = subprocess.run(
            [BIN / "m2sectl", *words, "--json", "--config", self.config],
            capture_output=True,
            check=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
        return json.loads(done.stdout)

    def manifest(self):
        return self.ctl("checkpoint", "show")
