"""Another member of a consumer group, which takes partitions and does nothing with them: librdkafka (Debian's, which
m2sed needs anyway) through ctypes."""

import ctypes
import ctypes.util
import threading

from harness.process import skip

CONSUMER, ANY_PARTITION = 1, -1


class PartitionList(ctypes.Structure):
    _fields_ = [("count", ctypes.c_int), ("size", ctypes.c_int), ("elements", ctypes.c_void_p)]


def library():
    name = ctypes.util.find_library("rdkafka") or "librdkafka.so.1"
    try:
        loaded = ctypes.CDLL(name)
    except OSError:
        skip(f"{name} is not installed (see ops/packages)")
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    for function, result, arguments in (
        ("conf_new", pointer, []),
        ("conf_set", ctypes.c_int, [pointer, text, text, text, ctypes.c_size_t]),
        ("new", pointer, [ctypes.c_int, pointer, text, ctypes.c_size_t]),
        ("topic_partition_list_new", ctypes.POINTER(PartitionList), [ctypes.c_int]),
        ("topic_partition_list_add", pointer, [ctypes.POINTER(PartitionList), text, ctypes.c_int32]),
        ("topic_partition_list_destroy", None, [ctypes.POINTER(PartitionList)]),
        ("subscribe", ctypes.c_int, [pointer, ctypes.POINTER(PartitionList)]),
        ("consumer_poll", pointer, [pointer, ctypes.c_int]),
        ("message_destroy", None, [pointer]),
        ("assignment", ctypes.c_int, [pointer, ctypes.POINTER(ctypes.POINTER(PartitionList))]),
        ("consumer_close", ctypes.c_int, [pointer]),
        ("destroy", None, [pointer]),
    ):
        found = getattr(loaded, f"rd_kafka_{function}")
        found.restype, found.argtypes = result, arguments
    return loaded


class Member:
    """`with Member(...) as member`: it joins, in a thread of its own, and leaves in order at the end. member.most is
    the largest number of partitions that it had at a time."""

    def __init__(self, bootstrap, group, topic):
        self.library = library()
        self.topic, self.most = topic, 0
        self.leaving = threading.Event()
        properties = {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "partition.assignment.strategy": "cooperative-sticky",
            "enable.auto.commit": "false",
            "auto.offset.reset": "latest",
            "session.timeout.ms": "5000",
            "heartbeat.interval.ms": "500",
        }
        why = ctypes.create_string_buffer(512)
        configuration = self.library.rd_kafka_conf_new()
        for name, value in properties.items():
            done = self.library.rd_kafka_conf_set(configuration, name.encode(), value.encode(), why, len(why))
            assert done == 0, why.value
        self.handle = self.library.rd_kafka_new(CONSUMER, configuration, why, len(why))
        assert self.handle, why.value
        self.thread = threading.Thread(target=self._run)

    def __enter__(self):
        topics = self.library.rd_kafka_topic_partition_list_new(1)
        self.library.rd_kafka_topic_partition_list_add(topics, self.topic.encode(), ANY_PARTITION)
        code = self.library.rd_kafka_subscribe(self.handle, topics)
        self.library.rd_kafka_topic_partition_list_destroy(topics)
        assert code == 0, code
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.leaving.set()
        self.thread.join()

    def _run(self):
        while not self.leaving.is_set():
            message = self.library.rd_kafka_consumer_poll(self.handle, 100)
            if message:
                self.library.rd_kafka_message_destroy(message)
            self.most = max(self.most, self._assigned())
        self.library.rd_kafka_consumer_close(self.handle)
        self.library.rd_kafka_destroy(self.handle)

    def _assigned(self):
        partitions = ctypes.POINTER(PartitionList)()
        if self.library.rd_kafka_assignment(self.handle, ctypes.byref(partitions)):
            return 0
        count = partitions.contents.count
        self.library.rd_kafka_topic_partition_list_destroy(partitions)
        return count
