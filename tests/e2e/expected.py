"""What must come out of a log, computed from the log alone: the contract once more, in its plainest form."""

import collections
import dataclasses
import json

from harness import protobuf
from harness.xxh3 import event_digest
from workload import is_bad


@dataclasses.dataclass
class Entry:
    item_id: str
    event_time_ms: int
    partition: int
    offset: int
    event_id: str


@dataclasses.dataclass
class Expected:
    topic: str
    sequences: dict = dataclasses.field(
        default_factory=dict
    )  # user: [Entry], all there ever were, oldest first
    positions: dict = dataclasses.field(default_factory=dict)  # user: offset after its last event
    taught: list = dataclasses.field(default_factory=list)  # (partition, offset)
    dead: list = dataclasses.field(default_factory=list)  # records
    counts: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    @property
    def digest(self):
        return event_digest(self.topic, self.taught)


def decode_interaction(record):
    value = record.value
    if value[:1] == b"{":
        event = {"event_id": "", "event_time_ms": 0, **json.loads(value)}
    else:
        event = protobuf.decode("Interaction", value[6:] if value[:1] == b"\0" else value)
    return {**event, "event_time_ms": event["event_time_ms"] or record.timestamp_ms}


def expect(topic, records, featured, length, keep, until=None):
    """records: of the whole topic, each partition in its order; featured: record -> ids of the items that have rows
    when it is read; length, keep: of the sequences; until: {partition: offset} where reading stopped. A user's events
    are in one partition."""
    result = Expected(topic)
    for record in records:
        if until is None or record.offset < until[record.partition]:
            result.counts["taken"] += 1
            take(result, record, featured(record), length, keep)
    return result


def take(result, record, featured, length, keep):
    if is_bad(record):
        result.dead.append(record)
        result.counts["dead_lettered"] += 1
        return
    event = decode_interaction(record)
    entry = Entry(
        event["item_id"], event["event_time_ms"], record.partition, record.offset, event["event_id"]
    )
    sequence = result.sequences.setdefault(event["user_id"], [])
    assert not sequence or sequence[0].partition == record.partition
    result.positions[event["user_id"]] = record.offset + 1
    if entry.event_id and any(other.event_id == entry.event_id for other in sequence[-keep:]):
        result.counts["skipped_duplicate"] += 1
        return
    context = sequence[-length:]
    sequence.append(entry)
    if not context:
        result.counts["skipped_no_context"] += 1
    elif entry.item_id not in featured or not any(other.item_id in featured for other in context):
        result.counts["skipped_no_features"] += 1
    else:
        result.counts["trained_events"] += 1
        result.taught.append((record.partition, record.offset))
