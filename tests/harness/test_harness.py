"""The harness itself: broker, Redis and programs, with what tests do to them."""

import signal
import struct
import sys
import time

from harness.kafka import Broker, KafkaError, Record
from harness.kafka_records import crc32c, varint, Reader
from harness.process import Process, scratch, wait_until
from harness.redis import RedisError, Server


def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def test_encodings():
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C
    for number in (0, -1, 1, 63, -64, 64, 300, -(2**40), 2**62):
        assert Reader(varint(number)).varint() == number


def test_processes(folder):
    program = Process(
        [sys.executable, "-uc", "import time\nprint('ready 7')\ntime.sleep(60)"], folder / "a.log"
    )
    with program.start():
        assert program.wait_output(r"^ready (\d+)$").group(1) == "7"
        assert program.rss_bytes() > 1 << 20
        assert program.stop() == -signal.SIGTERM
        assert "ended" in str(raises(RuntimeError, lambda: program.wait_output("never", 5)))
        raises(TimeoutError, lambda: wait_until(lambda: False, 0.05, "never"))
    # The program of a test that is killed ends too.
    inner = (
        "import sys\nfrom harness.process import Process\nimport pathlib, time\n"
        "p = Process(['sleep', '60'], pathlib.Path(sys.argv[1])).start()\nprint('pid', p.pid)\ntime.sleep(60)"
    )
    outer = Process([sys.executable, "-uc", inner, folder / "c.log"], folder / "b.log").start()
    pid = outer.wait_output(r"^pid (\d+)$").group(1)
    outer.kill()

    def gone():
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
                return stat.read().rsplit(")", 1)[1].split()[0] == "Z"
        except FileNotFoundError:
            return True

    wait_until(gone, 5, "the inner program has ended")


def test_redis(folder):
    with Server(folder / "redis", ["appendonly yes", "appendfsync always"]).start() as server:
        with server.client() as client:
            assert client.call("SET", b"\0\r\n\xff", bytes(range(256))) == b"OK"
            assert client.pipeline([["GET", b"\0\r\n\xff"], ["INCRBY", "n", 5], ["GET", "none"], ["KEYS"]])[
                :3
            ] == [bytes(range(256)), 5, None]
            raises(RedisError, lambda: client.call("LPUSH", "n", 1))
            assert client.call("EVAL", "return {1, 'a', {}}", 0) == [1, b"a", []]
        server.pause()
        with server.client() as client:
            client.socket.settimeout(0.2)
            raises(TimeoutError, lambda: client.call("PING"))
        server.resume()
        server.kill()
        server.start()
        with server.client() as client:
            assert client.call("GET", "n") == b"5"
        assert server.stop() == 0


def check_topics(client):
    client.create_topic("a", 3, {"max.message.bytes": 2_000_000})
    assert raises(KafkaError, lambda: client.create_topic("a")).code == 36
    records = [
        Record(f"user{i}".encode(), b"\0\xff" * i, [("h", b"v"), ("none", None)], 1_000 + i)
        for i in range(200)
    ]
    records.append(Record(None, None))
    places = client.produce("a", records)
    back = {(r.partition, r.offset): r for r in client.read_all("a")}
    assert len(back) == 201 and len({p for p, _ in places}) == 3
    for place, record in zip(places[:200], records[:200], strict=True):
        got = back[place]
        assert (got.key, got.value, got.headers, got.timestamp_ms) == (
            record.key,
            record.value,
            record.headers,
            record.timestamp_ms,
        )
    got = back[places[200]]
    assert got.key is None and got.value is None and abs(got.timestamp_ms / 1000 - time.time()) < 60
    client.create_topic("big")
    big = [Record(b"k", struct.pack(">i", i) * 50_000) for i in range(20)]
    client.produce("big", big)
    assert [r.value for r in client.read_all("big")] == [r.value for r in big]
    client.delete_records("big", 0, 5)
    assert client.offset("big", 0, -2) == 5 and client.offset("big") == 20
    assert client.committed_offset("nobody", "big") == -1
    client.add_partitions("big", 2)
    assert client.partitions("big") == 2
    client.delete_topic("big")
    client.create_topic("big")
    assert client.offset("big") == 0


def check_transactions(client):
    client.create_topic("t")
    transaction = client.transaction("tx")
    for word, commit in (("one", True), ("lost", False), ("two", True)):
        client.produce("t", [Record(b"k", word.encode())], transaction)
        transaction.end(commit)
    client.produce("t", [Record(b"k", b"plain")])
    client.produce("t", [Record(b"k", b"open")], transaction)
    assert [r.value for r in client.read_all("t")] == [b"one", b"two", b"plain"]
    assert [r.value for r in client.read_all("t", committed=False)] == [
        b"one",
        b"lost",
        b"two",
        b"plain",
        b"open",
    ]


def test_kafka(folder):
    times = {}

    def timed(name, call):
        start = time.monotonic()
        call()
        times[name] = round(time.monotonic() - start, 1)

    broker = Broker(folder / "kafka")
    with broker:
        timed("start", broker.start)
        with broker.client() as client:
            cluster_id = client.metadata()["cluster_id"]
            assert len(cluster_id) == 22
            timed("topics", lambda: check_topics(client))
            timed("transactions", lambda: check_transactions(client))
        broker.kill()
        timed("start after kill -9", broker.start)
        with broker.client() as client:
            assert client.metadata()["cluster_id"] == cluster_id
            assert len(client.read_all("a")) == 201
        timed("stop", lambda: broker.stop(120))
    print(f"Kafka, seconds: {times}")


def main():
    with scratch() as folder:
        for name, test in (
            ("encodings", test_encodings),
            ("processes", lambda: test_processes(folder)),
            ("redis", lambda: test_redis(folder)),
            ("kafka", lambda: test_kafka(folder)),
        ):
            start = time.monotonic()
            test()
            print(f"{name}: {time.monotonic() - start:.1f} s")


main()
