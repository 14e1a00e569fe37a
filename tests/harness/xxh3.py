"""XXH3-64 of short inputs with seed 0: what event_digest and the event hashes of sequences are made of."""

import struct

BYTES_MAX = 128  # longer inputs take other ways, which nobody needs here
MASK = 2**64 - 1
# The first 136 bytes of the algorithm's built-in secret: as far as inputs of this length reach.
SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3"
)


def read(data, at, size=8):
    return int.from_bytes(data[at : at + size], "little")


def secret_pair(at):
    return read(SECRET, at) ^ read(SECRET, at + 8)


def rotate(number, bits):
    return (number << bits | number >> (64 - bits)) & MASK


def folded_product(a, b):
    product = a * b
    return product & MASK ^ product >> 64


def avalanche(number):
    number ^= number >> 37
    number = number * 0x165667919E3779F9 & MASK
    return number ^ number >> 32


def avalanche_of_xxh64(number):
    number ^= number >> 33
    number = number * 0xC2B2AE3D27D4EB4F & MASK
    number ^= number >> 29
    number = number * 0x165667B19E3779F9 & MASK
    return number ^ number >> 32


def up_to_3(data):
    size = len(data)
    if size == 0:
        return avalanche_of_xxh64(secret_pair(56))
    word = data[0] << 16 | data[size >> 1] << 24 | data[-1] | size << 8
    return avalanche_of_xxh64(word ^ read(SECRET, 0, 4) ^ read(SECRET, 4, 4))


def up_to_8(data):
    number = (read(data, len(data) - 4, 4) + (read(data, 0, 4) << 32)) ^ secret_pair(8)
    number ^= rotate(number, 49) ^ rotate(number, 24)
    number = number * 0x9FB21C651E98DF25 & MASK
    number ^= (number >> 35) + len(data)
    number = number * 0x9FB21C651E98DF25 & MASK
    return number ^ number >> 28


def up_to_16(data):
    low = read(data, 0) ^ secret_pair(24)
    high = read(data, len(data) - 8) ^ secret_pair(40)
    swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
    return avalanche((len(data) + swapped + high + folded_product(low, high)) & MASK)


def up_to_128(data):
    def mix(at, secret_at):
        return folded_product(
            read(data, at) ^ read(SECRET, secret_at), read(data, at + 8) ^ read(SECRET, secret_at + 8)
        )

    size = len(data)
    total = size * 0x9E3779B185EBCA87
    for step in range((size - 1) // 32, -1, -1):
        total += mix(16 * step, 32 * step) + mix(size - 16 * (step + 1), 32 * step + 16)
    return avalanche(total & MASK)


def xxh3_64(data):
    assert len(data) <= BYTES_MAX
    for size, function in ((3, up_to_3), (8, up_to_8), (16, up_to_16)):
        if len(data) <= size:
            return function(data)
    return up_to_128(data)


def event_digest(topic, places):
    """The sum over (partition, offset) pairs that checkpoints carry (design: event_digest)."""
    prefix = topic.encode() + b"\0"
    return sum(xxh3_64(prefix + struct.pack("<iq", partition, offset)) for partition, offset in places) & MASK
