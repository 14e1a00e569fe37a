"""Kafka's record batches (format 2) to and from bytes: https://kafka.apache.org/documentation/#recordbatch"""

import dataclasses
import gzip
import struct
import time

HEADER = struct.Struct(">qiibIhiqqqhii")  # base offset, length, epoch, magic, crc, attributes, ...
CRC_STARTS = 21  # the checksum covers what follows it
CONTROL, TRANSACTIONAL, CODEC_MASK = 0x20, 0x10, 0x07


@dataclasses.dataclass
class Record:
    key: bytes | None
    value: bytes | None
    headers: list = dataclasses.field(default_factory=list)  # (str, bytes or None) pairs
    timestamp_ms: int | None = None  # None: now
    partition: int | None = None
    offset: int | None = None  # known after fetching


def _crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC_TABLE = _crc_table()


def crc32c(data):
    crc, table = 0xFFFFFFFF, CRC_TABLE
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def varint(number):
    """Zigzag, then seven bits a byte, the lowest first."""
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _sized(data):
    return varint(-1) if data is None else varint(len(data)) + data


def encode_batch(records, producer_id=-1, producer_epoch=-1, base_sequence=-1, transactional=False):
    """One uncompressed batch, in the order given."""
    now_ms = time.time_ns() // 1_000_000
    stamps = [now_ms if r.timestamp_ms is None else r.timestamp_ms for r in records]
    body = bytearray()
    for index, record in enumerate(records):
        parts = [
            b"\0",
            varint(stamps[index] - stamps[0]),
            varint(index),
            _sized(record.key),
            _sized(record.value),
        ]
        parts.append(varint(len(record.headers)))
        for name, value in record.headers:
            parts += [_sized(name.encode()), _sized(value)]
        body += _sized(b"".join(parts))
    attributes = TRANSACTIONAL if transactional else 0
    covered = (
        struct.pack(
            ">hiqqqhii",
            attributes,
            len(records) - 1,
            stamps[0],
            max(stamps),
            producer_id,
            producer_epoch,
            base_sequence,
            len(records),
        )
        + body
    )
    return struct.pack(">qiibI", 0, len(covered) + 9, -1, 2, crc32c(covered)) + covered


class Reader:
    """Reads big-endian values from bytes, one after the other."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        self.at += count
        if self.at > len(self.data):
            raise EOFError
        return self.data[self.at - count : self.at]

    def number(self, code):
        (value,) = struct.unpack(">" + code, self.take(struct.calcsize(code)))
        return value

    def string(self):
        """Kafka's nullable string."""
        length = self.number("h")
        return None if length < 0 else self.take(length).decode()

    def block(self):
        """Kafka's nullable bytes."""
        length = self.number("i")
        return None if length < 0 else bytes(self.take(length))

    def array(self, element):
        return [element(self) for _ in range(self.number("i"))]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)

    def sized(self):
        length = self.varint()
        return None if length < 0 else bytes(self.take(length))


def decode_batches(data, aborted=()):
    """(records, offset after the last whole batch or None). `aborted`: (producer id, first offset) pairs,
    whose transactional records are left out, as a read_committed consumer does."""
    records, next_offset, at = [], None, 0
    waiting = sorted(aborted, key=lambda pair: pair[1])
    dropping = set()
    while at + HEADER.size <= len(data):
        base, length, _, magic, crc, attributes, last_delta, first_ms, _, producer, _, _, count = (
            HEADER.unpack_from(data, at)
        )
        end = at + 12 + length
        if end > len(data):
            break  # the broker cuts the last batch where its limit falls
        if magic != 2 or crc32c(data[at + CRC_STARTS : end]) != crc:
            raise ValueError(f"offset {base}: a damaged batch")
        next_offset = base + last_delta + 1
        while waiting and waiting[0][1] <= base:
            dropping.add(waiting.pop(0)[0])
        if attributes & CONTROL:
            dropping.discard(producer)
        elif not (attributes & TRANSACTIONAL and producer in dropping):
            body = Reader(_uncompress(attributes & CODEC_MASK, data[at + HEADER.size : end]))
            records += [_decode_record(body, base, first_ms) for _ in range(count)]
        at = end
    return records, next_offset


def _uncompress(codec, data):
    if codec == 0:
        return data
    if codec == 1:
        return gzip.decompress(data)
    raise ValueError(f"codec {codec}: only uncompressed and gzip batches can be read here")


def _decode_record(body, base, first_ms):
    body.varint()  # its length
    body.take(1)  # attributes, unused
    timestamp_ms, offset = first_ms + body.varint(), base + body.varint()
    key, value = body.sized(), body.sized()
    headers = [(body.sized().decode(), body.sized()) for _ in range(body.varint())]
    return Record(key, value, headers, timestamp_ms, offset=offset)
