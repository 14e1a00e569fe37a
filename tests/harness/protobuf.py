"""Messages of proto/m2se.proto as dictionaries, to and from bytes; the .proto file itself says what there is.

Only what that file uses: proto3 messages and enums at the top level, scalars string, bytes, bool, double and the
unsigned and two's-complement integers.
"""

import re
import struct

from harness.process import SOURCE

DEFAULTS = {"string": "", "bytes": b"", "double": 0.0, "bool": False}
VARINT, FIXED64, SIZED, FIXED32 = 0, 1, 2, 5


def parse(text):
    """({message: {number: (name, type, repeated)}}, {enum: {number: name}})"""
    messages, enums = {}, {}
    text = re.sub(r"//.*", "", text)
    for kind, name, body in re.findall(r"(message|enum)\s+(\w+)\s*\{(.*?)\}", text, re.DOTALL):
        if kind == "enum":
            enums[name] = {int(n): word for word, n in re.findall(r"(\w+)\s*=\s*(\d+)\s*;", body)}
        else:
            fields = re.findall(r"(repeated\s+)?(\w+)\s+(\w+)\s*=\s*(\d+)\s*;", body)
            messages[name] = {int(n): (field, kind, bool(many)) for many, kind, field, n in fields}
    return messages, enums


MESSAGES, ENUMS = parse((SOURCE / "proto" / "m2se.proto").read_text())


# ---- writing ----


def varint(number):
    number &= 2**64 - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def encode_value(kind, value):
    """(wire type, bytes)"""
    if kind == "double":
        return FIXED64, struct.pack("<d", value)
    if kind in MESSAGES or kind in ("string", "bytes"):
        data = encode(kind, value) if kind in MESSAGES else value.encode() if kind == "string" else value
        return SIZED, varint(len(data)) + data
    return VARINT, varint(int(value))


def encode(message, values):
    """The values that are given, by name; a list for a repeated field."""
    out, left = bytearray(), dict(values)
    for number, (name, kind, many) in MESSAGES[message].items():
        value = left.pop(name, None)
        for element in [] if value is None else value if many else [value]:
            wire, data = encode_value(kind, element)
            out += varint(number << 3 | wire) + data
    assert not left, f"{message} has no field {', '.join(left)}"
    return bytes(out)


# ---- reading ----


class Input:
    def __init__(self, data):
        self.data, self.at = data, 0

    def more(self):
        return self.at < len(self.data)

    def take(self, count):
        if count > len(self.data) - self.at:
            raise ValueError("a message ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self):
        value = 0
        for shift in range(0, 70, 7):
            (byte,) = self.take(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 2**64 - 1
        raise ValueError("a varint of more than ten bytes")

    def field(self):
        """(number, wire type, value)"""
        tag = self.varint()
        wire = tag & 7
        if wire == VARINT:
            value = self.varint()
        elif wire in (FIXED64, FIXED32):
            value = self.take(8 if wire == FIXED64 else 4)
        elif wire == SIZED:
            value = self.take(self.varint())
        else:
            raise ValueError(f"wire type {wire}")
        return tag >> 3, wire, value


def decode_scalar(kind, raw):
    if kind == "double":
        return struct.unpack("<d", raw)[0]
    if kind in ENUMS:
        return ENUMS[kind].get(raw, raw)
    if kind in ("int32", "int64") and raw >= 2**63:
        raw -= 2**64
    return bool(raw) if kind == "bool" else raw


def decode_values(kind, wire, raw):
    """What one field on the wire holds: one value, or several packed ones."""
    wanted = (
        FIXED64 if kind == "double" else SIZED if kind in MESSAGES or kind in ("string", "bytes") else VARINT
    )
    if kind in MESSAGES and wire == SIZED:
        return [decode(kind, raw)]
    if wanted == SIZED and wire == SIZED:
        return [raw.decode() if kind == "string" else bytes(raw)]
    if wire == wanted:
        return [decode_scalar(kind, raw)]
    if wire != SIZED:
        raise ValueError(f"a field of type {kind} has wire type {wire}")
    packed, values = Input(raw), []
    while packed.more():
        values.append(decode_scalar(kind, packed.varint() if wanted == VARINT else packed.take(8)))
    return values


def decode(message, data):
    """All fields by name: what is not there has its default, a message all of its own. ValueError if it cannot be
    read; a field that proto/ does not know is an error too, since both come from one tree."""
    fields, values = MESSAGES[message], {}
    for name, kind, many in fields.values():
        if many:
            values[name] = []
        elif kind in MESSAGES:
            values[name] = decode(kind, b"")
        else:
            values[name] = ENUMS[kind].get(0) if kind in ENUMS else DEFAULTS.get(kind, 0)
    source = Input(data)
    while source.more():
        number, wire, raw = source.field()
        if number not in fields:
            raise ValueError(f"{message} has no field {number}")
        name, kind, many = fields[number]
        found = decode_values(kind, wire, raw)
        if many:
            values[name] += found
        else:
            values[name] = found[-1]
    return values
