"""A client for one broker, on one connection, in the standard library: what tests need, without starting a
JVM for every topic. It speaks old, fixed versions of the protocol that Kafka 4 still accepts."""

import socket
import struct
import time
import zlib

from harness.kafka_records import Reader, Record, decode_batches, encode_batch

PRODUCE, FETCH, LIST_OFFSETS, METADATA, OFFSET_FETCH, FIND_COORDINATOR = 0, 1, 2, 3, 9, 10
CREATE_TOPICS, DELETE_TOPICS, DELETE_RECORDS, INIT_PRODUCER_ID = 19, 20, 21, 22
ADD_PARTITIONS, END_TRANSACTION, CREATE_PARTITIONS = 24, 26, 37

# Errors that pass by themselves: a leader, coordinator or topic that is not known everywhere yet.
RETRIABLE = {3, 5, 6, 7, 9, 13, 14, 15, 16, 41, 51}
BATCH_BYTES_MAX = 500_000


class KafkaError(Exception):
    def __init__(self, code, what):
        super().__init__(f"{what}: Kafka error {code}")
        self.code = code


def number(code, *values):
    return struct.pack(">" + code, *values)


def string(text):
    return number("h", -1) if text is None else number("h", len(text.encode())) + text.encode()


def array(parts):
    parts = list(parts)
    return number("i", len(parts)) + b"".join(parts)


def one_partition(topic, partition, rest=b""):
    """The array of topics of a request that is about one partition."""
    return array([string(topic) + array([number("i", partition) + rest])])


class Client:
    def __init__(self, port, timeout=30):
        self.timeout = timeout
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.file = self.socket.makefile("rb")
        self.correlation = 0
        self.partition_counts = {}

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def request(self, api, version, body):
        self.correlation += 1
        message = number("hhi", api, version, self.correlation) + string("m2sed-tests") + body
        self.socket.sendall(number("i", len(message)) + message)
        head = self.file.read(8)
        if len(head) < 8:
            raise ConnectionError("the broker closed the connection")
        size, correlation = struct.unpack(">ii", head)
        assert correlation == self.correlation
        data = self.file.read(size - 4)
        if len(data) < size - 4:
            raise ConnectionError("the broker closed the connection")
        return Reader(data)

    def retry(self, what, attempt):
        """Repeats `attempt`, which returns (error code, result), while the error is one that passes."""
        deadline = time.monotonic() + self.timeout
        while True:
            code, result = attempt()
            if code == 0:
                return result
            if code not in RETRIABLE or time.monotonic() > deadline:
                raise KafkaError(code, what)
            time.sleep(0.05)

    def metadata(self, topics=None):
        """{"cluster_id": …, "brokers": n, "topics": {name: partitions}}; without `topics` of all."""
        names = number("i", -1) if topics is None else array(map(string, topics))
        reply = self.request(METADATA, 4, names + b"\0")
        reply.number("i")
        brokers = reply.array(lambda r: (r.number("i"), r.string(), r.number("i"), r.string()))
        cluster_id = reply.string()
        reply.number("i")
        found = {}
        for _ in range(reply.number("i")):
            code, name, _ = reply.number("h"), reply.string(), reply.number("b")
            partitions = reply.array(
                lambda r: (
                    r.number("h"),
                    r.number("i"),
                    r.number("i"),
                    r.array(lambda s: s.number("i")),
                    r.array(lambda s: s.number("i")),
                )
            )
            if code == 0 and all(leader >= 0 for _, _, leader, _, _ in partitions):
                found[name] = len(partitions)
        return {"cluster_id": cluster_id, "brokers": len(brokers), "topics": found}

    def partitions(self, topic):
        if topic not in self.partition_counts:
            count = self.retry(
                topic, lambda: (0, n) if (n := self.metadata([topic])["topics"].get(topic)) else (3, 0)
            )
            self.partition_counts[topic] = count
        return self.partition_counts[topic]

    def create_topic(self, topic, partitions=1, config=None):
        """Returns when the topic can be written to."""
        settings = array(string(k) + string(str(v)) for k, v in (config or {}).items())
        body = array([string(topic) + number("ih", partitions, 1) + array([]) + settings]) + number(
            "ib", 30_000, 0
        )
        reply = self.request(CREATE_TOPICS, 2, body)
        reply.number("i")
        for _, code, text in reply.array(lambda r: (r.string(), r.number("h"), r.string())):
            if code:
                raise KafkaError(code, f"creating {topic}: {text}")
        self.partition_counts.pop(topic, None)
        assert self.partitions(topic) == partitions

    def delete_topic(self, topic):
        """Returns when the topic is gone, so that it can be made again."""
        reply = self.request(DELETE_TOPICS, 1, array([string(topic)]) + number("i", 30_000))
        reply.number("i")
        ((_, code),) = reply.array(lambda r: (r.string(), r.number("h")))
        if code:
            raise KafkaError(code, f"deleting {topic}")
        self.partition_counts.pop(topic, None)
        self.retry(topic, lambda: (3 if topic in self.metadata()["topics"] else 0, None))

    def add_partitions(self, topic, total):
        body = array([string(topic) + number("ii", total, -1)]) + number("ib", 30_000, 0)
        reply = self.request(CREATE_PARTITIONS, 0, body)
        reply.number("i")
        ((_, code, text),) = reply.array(lambda r: (r.string(), r.number("h"), r.string()))
        if code:
            raise KafkaError(code, f"{topic}: {text}")
        self.retry(topic, lambda: (0 if self.metadata([topic])["topics"].get(topic) == total else 3, None))
        self.partition_counts.pop(topic, None)

    def produce(self, topic, records, transaction=None):
        """Writes the records in order; returns their (partition, offset) pairs. A record without a partition
        goes where its key says (CRC32, as librdkafka's default), one without a key to partition 0."""
        count = self.partitions(topic)
        places, batches = [None] * len(records), []
        open_batch = {}
        for index, record in enumerate(records):
            partition = record.partition
            if partition is None:
                partition = zlib.crc32(record.key) % count if record.key else 0
            batch = open_batch.get(partition)
            size = len(record.key or b"") + len(record.value or b"") + 64
            if batch is None or batch["bytes"] + size > BATCH_BYTES_MAX:
                batch = open_batch[partition] = {"partition": partition, "bytes": 0, "indices": []}
                batches.append(batch)
            batch["bytes"] += size
            batch["indices"].append(index)
        for batch in batches:
            base = self._produce_batch(
                topic, batch["partition"], [records[i] for i in batch["indices"]], transaction
            )
            for delta, index in enumerate(batch["indices"]):
                places[index] = (batch["partition"], base + delta)
        return places

    def _produce_batch(self, topic, partition, records, transaction):
        extra = transaction.batch_fields(topic, partition, len(records)) if transaction else {}
        data = encode_batch(records, **extra)
        name = string(transaction.name if transaction else None)
        body = (
            name + number("hi", -1, 30_000) + one_partition(topic, partition, number("i", len(data)) + data)
        )

        def attempt():
            reply = self.request(PRODUCE, 3, body)
            ((_, ((_, code, base, _),)),) = reply.array(
                lambda r: (
                    r.string(),
                    r.array(lambda s: (s.number("i"), s.number("h"), s.number("q"), s.number("q"))),
                )
            )
            return code, base

        return self.retry(f"producing to {topic}/{partition}", attempt)

    def offset(self, topic, partition=0, timestamp_ms=-1):
        """-1: after the last; -2: the first kept; else the first of that time or later (-1: none)."""

        def attempt():
            reply = self.request(
                LIST_OFFSETS, 1, number("i", -1) + one_partition(topic, partition, number("q", timestamp_ms))
            )
            ((_, ((_, code, _, offset),)),) = reply.array(
                lambda r: (
                    r.string(),
                    r.array(lambda s: (s.number("i"), s.number("h"), s.number("q"), s.number("q"))),
                )
            )
            return code, offset

        return self.retry(f"offsets of {topic}/{partition}", attempt)

    def fetch(self, topic, partition, offset, committed=True, wait_ms=0):
        """(records from `offset` on as far as one answer brings them, the offset to go on from)."""
        body = number("iiiib", -1, wait_ms, 1, 16 << 20, 1 if committed else 0)
        body += one_partition(topic, partition, number("qi", offset, 16 << 20))

        def attempt():
            reply = self.request(FETCH, 4, body)
            reply.number("i")
            reply.number("i")  # one topic
            reply.string()
            reply.number("i")  # one partition
            reply.number("i")
            code = reply.number("h")
            reply.take(16)  # high watermark, last stable offset
            aborted = [(reply.number("q"), reply.number("q")) for _ in range(reply.number("i"))]
            return code, (reply.block() or b"", aborted)

        data, aborted = self.retry(f"fetching {topic}/{partition}", attempt)
        records, next_offset = decode_batches(data, aborted)
        for record in records:
            record.partition = partition
        return [r for r in records if r.offset >= offset], offset if next_offset is None else next_offset

    def read_all(self, topic, committed=True):
        """Every record that the topic holds, partition after partition."""
        records = []
        for partition in range(self.partitions(topic)):
            at, end = self.offset(topic, partition, -2), self.offset(topic, partition)
            while at < end:
                found, next_at = self.fetch(topic, partition, at, committed, wait_ms=100)
                if next_at == at:
                    break  # only an open transaction is left
                records += found
                at = next_at
        return records

    def delete_records(self, topic, partition, before):
        """Removes what lies before that offset, as retention does."""
        body = one_partition(topic, partition, number("q", before)) + number("i", 30_000)

        def attempt():
            reply = self.request(DELETE_RECORDS, 0, body)
            reply.number("i")
            ((_, ((_, _, code),)),) = reply.array(
                lambda r: (r.string(), r.array(lambda s: (s.number("i"), s.number("q"), s.number("h"))))
            )
            return code, None

        self.retry(f"deleting records of {topic}/{partition}", attempt)

    def find_coordinator(self, name, kind):
        """Kind 0: of a group, 1: of a transaction. The first makes the broker create its internal topic."""

        def attempt():
            reply = self.request(FIND_COORDINATOR, 1, string(name) + number("b", kind))
            reply.number("i")
            return reply.number("h"), None

        self.retry(f"coordinator of {name}", attempt)

    def committed_offset(self, group, topic, partition=0):
        """The group's committed offset, -1 if there is none."""
        self.find_coordinator(group, 0)

        def attempt():
            reply = self.request(OFFSET_FETCH, 1, string(group) + one_partition(topic, partition))
            ((_, ((_, offset, _, code),)),) = reply.array(
                lambda r: (
                    r.string(),
                    r.array(lambda s: (s.number("i"), s.number("q"), s.string(), s.number("h"))),
                )
            )
            return code, offset

        return self.retry(f"offsets of group {group}", attempt)

    def transaction(self, name):
        return Transaction(self, name)


class Transaction:
    """A transactional producer: client.produce(..., transaction=t), then t.end(commit=...); and again."""

    def __init__(self, client, name):
        self.client, self.name = client, name
        self.sequences, self.added = {}, set()
        client.find_coordinator(name, 1)

        def begin():
            reply = client.request(INIT_PRODUCER_ID, 0, string(name) + number("i", 60_000))
            reply.number("i")
            return reply.number("h"), (reply.number("q"), reply.number("h"))

        self.producer_id, self.producer_epoch = client.retry(f"transaction {name}", begin)

    def _head(self):
        return string(self.name) + number("qh", self.producer_id, self.producer_epoch)

    def batch_fields(self, topic, partition, count):
        place = (topic, partition)
        if place not in self.added:

            def attempt():
                reply = self.client.request(ADD_PARTITIONS, 0, self._head() + one_partition(topic, partition))
                reply.number("i")
                ((_, ((_, code),)),) = reply.array(
                    lambda r: (r.string(), r.array(lambda s: (s.number("i"), s.number("h"))))
                )
                return code, None

            self.client.retry(f"transaction {self.name}", attempt)
            self.added.add(place)
        sequence = self.sequences.get(place, 0)
        self.sequences[place] = sequence + count
        return {
            "producer_id": self.producer_id,
            "producer_epoch": self.producer_epoch,
            "base_sequence": sequence,
            "transactional": True,
        }

    def end(self, commit):
        def attempt():
            reply = self.client.request(END_TRANSACTION, 0, self._head() + number("b", commit))
            reply.number("i")
            return reply.number("h"), None

        self.client.retry(f"transaction {self.name}", attempt)
        self.added.clear()


__all__ = ["Client", "KafkaError", "Record", "Transaction"]
