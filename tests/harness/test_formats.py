"""The formats that the harness speaks, against known answers."""

import array
import ctypes.util
import math

from harness import protobuf, safetensors
from harness.process import scratch
from harness.xxh3 import BYTES_MAX, event_digest, xxh3_64

# Of the bytes 1, 8, 15, ... (7 i + 1 mod 256), from libxxhash 0.8.1: each way that the algorithm takes, at its ends.
XXH3_ANSWERS = {
    0: 0x2D06800538D394C2,
    1: 0xE12EF9D2EB86CEEB,
    3: 0x5C83885A0FB5D516,
    4: 0x244F36DE481E7522,
    8: 0x96CC97A6768FD7A9,
    9: 0x4781D83B8E99D495,
    16: 0x913BD4A8038027A7,
    17: 0x2BF6F66973A6179D,
    25: 0xEAB6B13698E9ED1E,
    32: 0x5D503B89AE6F56C6,
    33: 0xB192963EDE5ED5AB,
    64: 0x13886553E7DC3FA3,
    65: 0x1C6516CC715D0A0E,
    96: 0xDF49263B54999FCD,
    97: 0x74F3D6FF540707B9,
    128: 0xC4399C7829D0628F,
}


def pattern(size):
    return bytes(7 * i + 1 & 255 for i in range(size))


def test_xxh3():
    for size, answer in XXH3_ANSWERS.items():
        assert xxh3_64(pattern(size)) == answer, size
    name = ctypes.util.find_library("xxhash")
    if name:
        function = ctypes.CDLL(name).XXH3_64bits
        function.restype, function.argtypes = ctypes.c_uint64, [ctypes.c_char_p, ctypes.c_size_t]
        for size in range(BYTES_MAX + 1):
            assert function(pattern(size), size) == xxh3_64(pattern(size)), size
    key = b"ab\0" + b"\1\0\0\0" + b"\2\3" + bytes(6)
    assert event_digest("ab", [(1, 0x302), (1, 0x302)]) == 2 * xxh3_64(key) % 2**64


def test_protobuf():
    event = {"user_id": "ü", "item_id": "7", "event_time_ms": 300}
    data = protobuf.encode("Interaction", event)
    assert data == b"\x0a\x02\xc3\xbc\x12\x017\x18\xac\x02"
    assert protobuf.decode("Interaction", data) == {**event, "event_id": "", "kind": ""}
    status = {
        "state": 2,
        "events": {"digest": 2**64 - 1, "per_second": 0.5},
        "partitions": [{"partition": -1}, {"lag": 5}],
        "freshness": [{"bound_ms": [1.0, 2.5], "count": [1, 2, 300]}],
    }
    back = protobuf.decode("Status", protobuf.encode("Status", status))
    assert back["state"] == "STATE_RUNNING" and back["redis"]["connected"] is False
    assert back["events"]["digest"] == 2**64 - 1 and back["events"]["per_second"] == 0.5
    assert [p["partition"] for p in back["partitions"]] == [-1, 0] and back["partitions"][1]["lag"] == 5
    assert back["freshness"][0]["bound_ms"] == [1.0, 2.5] and back["freshness"][0]["count"] == [1, 2, 300]
    packed = b"\x1a\x04\x01\x02\xac\x02"  # field 3, packed
    assert protobuf.decode("Freshness", packed)["count"] == [1, 2, 300]
    for broken in (
        b"\x0a\x05ab",
        b"\x0b",
        b"\x80",
        b"\x0a\x01\xff",
        b"\x18\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    ):
        try:
            protobuf.decode("Interaction", broken)
        except ValueError:
            continue
        raise AssertionError(f"{broken!r} was read")


def test_safetensors():
    tensors = {
        "a": ([2, 3], array.array("f", [0, 1, -2, math.inf, 4, 5])),
        "none": ([0, 4], array.array("i")),
        "bytes": ([3], array.array("B", b"xyz")),
    }
    with scratch() as folder:
        safetensors.save(folder / "t.safetensors", tensors)
        assert safetensors.load(folder / "t.safetensors") == (tensors, {})


def main():
    test_xxh3()
    test_protobuf()
    test_safetensors()


main()
