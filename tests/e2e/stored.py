"""What the daemon left in Redis and in its checkpoints, read as the documentation of the formats says."""

import array
import re
import struct
import subprocess

from harness.process import need_program

PREFIX = "m2se:"


def key(kind, name):
    """The key of a user or an item: '%', '{' and '}' are percent-encoded."""
    return f"{PREFIX}{kind}:" + re.sub("[%{}]", lambda match: f"%{ord(match.group()):02X}", name)


def keys(redis, kind):
    """All keys of a kind, as str."""
    cursor, found = b"0", set()
    while True:
        cursor, page = redis.call("SCAN", cursor, "MATCH", f"{PREFIX}{kind}:*", "COUNT", 1000)
        found.update(name.decode() for name in page)
        if cursor == b"0":
            return found


def decode_sequence(blob):
    """({partition: next position}, [(item id, event time, partition, position, event hash or None)])"""
    version, partitions, entries, size = struct.unpack_from(">BBHI", blob)
    assert version == 1 and size == len(blob)
    header = [struct.unpack_from(">IQ", blob, 8 + 12 * i) for i in range(partitions)]
    at, found = 8 + 12 * partitions, []
    for _ in range(entries):
        flags, slot, position = struct.unpack_from(">BBQ", blob, at)
        time_ms = int.from_bytes(blob[at + 10 : at + 16], "big")
        at += 16
        event_hash = None
        if flags & 1:
            (event_hash,) = struct.unpack_from(">Q", blob, at)
            at += 8
        item_size = blob[at]
        item = blob[at + 1 : at + 1 + item_size].decode()
        at += 1 + item_size
        found.append((item, time_ms, header[slot][0], position, event_hash))
    assert at == len(blob)
    return dict(header), found


def floats(data):
    return array.array("f", data)  # the machines that run this are little-endian, as the format is


def vector(data, dim):
    """A vector of a user or an item: its length says whether it is float32 or float16."""
    assert len(data) in (4 * dim, 2 * dim), (len(data), dim)
    return struct.unpack(f"<{dim}{'f' if len(data) == 4 * dim else 'e'}", data)


# ---- with plain redis-cli ----

ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}


def unquote(line):
    """A reply as redis-cli shows it: "...", with escapes, or (nil)."""
    if line == b"(nil)":
        return None
    assert line[:1] == b'"' and line[-1:] == b'"', line[:80]

    def plain(match):
        code = match.group(1)
        return bytes([int(code[1:], 16)]) if len(code) == 3 else ESCAPES.get(code, code)

    return re.sub(rb"\\(x[0-9a-f]{2}|.)", plain, line[1:-1])


def redis_cli(port, database, commands):
    """The replies to commands that each answer with one string or nothing."""
    text = "".join(" ".join(f'"{quoted(word)}"' for word in words) + "\n" for words in commands)
    done = subprocess.run(
        [need_program("redis-cli"), "-p", str(port), "-n", str(database), "--no-raw"],
        input=text.encode(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    replies = [unquote(line) for line in done.stdout.splitlines()]
    assert len(replies) == len(commands)
    return replies


def quoted(word):
    return word.replace("\\", "\\\\").replace('"', '\\"')
