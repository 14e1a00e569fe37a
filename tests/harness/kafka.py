"""A real Apache Kafka broker for tests, on the loopback address. `kafka.py --fetch` fills the cache."""

import base64
import fcntl
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import uuid

if __name__ == "__main__":  # run as a program, the folder above is not on the path
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness.kafka_client import Client, KafkaError, Record
from harness.process import CACHE, Process, free_port, need_program, port_is_taken, wait_until

POM = pathlib.Path(__file__).with_name("pom.xml")
# C1 alone and the serial collector: a broker of one test starts faster and takes less of the two processors.
JVM = [
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "-Xlog:cds=off",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
]

PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    # One node: its internal topics cannot have three replicas.
    "offsets.topic.num.partitions": 1,
    "offsets.topic.replication.factor": 1,
    "transaction.state.log.num.partitions": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 1,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    # Nothing may wait in a test.
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1000,
    "broker.session.timeout.ms": 1500,
    "broker.heartbeat.interval.ms": 250,
    # Records keep the timestamps they are given and stay, unless a topic's settings say otherwise.
    "log.retention.ms": -1,
    "log.message.timestamp.after.max.ms": 2**63 - 1,
    "log.retention.check.interval.ms": 1000,
    "log.initial.task.delay.ms": 500,
    "log.segment.delete.delay.ms": 500,
    "message.max.bytes": 16 << 20,
}


def prepare():
    """The folder with Kafka's `jars`, an empty formatted `data` folder and the archive of `classes` that lets a
    broker start in half the time: made once in the cache, by one process at a time."""
    folder = CACHE / "kafka"
    wanted = POM.read_text() + "".join(f"{word}\n" for word in JVM)
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "kafka.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = folder / "complete"
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            fetch_jars(folder / "jars")
            rehearse(folder)
            stamp.write_text(wanted)  # last: what was cut off is repeated
    return folder


def fetch_jars(folder):
    subprocess.run(
        [need_program("mvn"), "-q", "-B", "-f", POM, "dependency:copy-dependencies", f"-DoutputDirectory={folder}"],
        check=True,
        stdin=subprocess.DEVNULL,
        timeout=600,
    )


def rehearse(folder):
    """Formats a data folder, and lets a broker on a copy of it live once for the archive of its classes."""
    with tempfile.TemporaryDirectory() as trial:
        file = pathlib.Path(trial) / "server.properties"
        with open(folder / "rehearsal.log", "wb") as log:
            write_properties(file, folder / "data", free_port(), free_port())
            format_command = ["kafka.tools.StorageTool", "format", "--cluster-id=template", "-c", file]
            subprocess.run(
                [*java(folder), *format_command],
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        broker = Broker(pathlib.Path(trial), made=folder, archive="ArchiveClassesAtExit")
        with broker.start(), broker.client() as client:
            client.create_topic("rehearsal", 1)
            client.produce("rehearsal", [Record(b"key", b"value")])
            client.read_all("rehearsal")
            broker.stop()


def java(folder, *flags):
    """A JVM with Kafka's classes. In a fixed order, which the archive of them is bound to."""
    return [need_program("java"), *JVM, *flags, "-cp", ":".join(str(jar) for jar in sorted((folder / "jars").iterdir()))]


def write_properties(file, data, port, controller_port, properties=None):
    settings = {
        **PROPERTIES,
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "log.dirs": data,
        **(properties or {}),
    }
    file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))


class Broker(Process):
    """One node in `folder`. A restart keeps its port, its data and its cluster id; another folder is another
    cluster. `properties` are added to PROPERTIES; `made` and `archive` are for prepare()."""

    def __init__(self, folder, properties=None, made=None, archive="SharedArchiveFile"):
        made = made or prepare()
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.controller_port = free_port(), free_port()
        file, data = folder / "server.properties", folder / "data"
        write_properties(file, data, self.port, self.controller_port, properties)
        shutil.copytree(made / "data", data)
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[:22]
        meta = data / "meta.properties"
        meta.write_text(meta.read_text().replace("cluster.id=template", f"cluster.id={cluster_id}"))
        command = java(made, f"-XX:{archive}={made / 'classes.jsa'}")
        super().__init__([*command, "kafka.Kafka", file], folder / "kafka.log")

    @property
    def bootstrap(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        for port in (self.port, self.controller_port):
            # A dying JVM keeps its ports for a moment.
            wait_until(lambda port=port: not port_is_taken(port), 30, f"port {port} is free")
        super().start()
        wait_until(self._answers, 90, "Kafka answers")
        return self

    def _answers(self):
        if not self.running():
            raise RuntimeError(f"Kafka ended: {self.output()[-2000:]}")
        try:
            with self.client(timeout=5) as client:
                return client.metadata()["brokers"] == 1
        except OSError:
            return False

    def client(self, timeout=30):
        return Client(self.port, timeout)


def main(arguments):
    if arguments != ["--fetch"]:
        print("usage: kafka.py --fetch", file=sys.stderr)
        return os.EX_USAGE
    print(prepare())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

__all__ = ["Broker", "Client", "KafkaError", "Record"]
