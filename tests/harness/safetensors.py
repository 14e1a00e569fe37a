"""Safetensors files with the standard library alone: a tensor is (shape, array.array)."""

import array
import json
import math
import struct

CODES = {"F64": "d", "F32": "f", "U64": "Q", "I64": "q", "U32": "I", "I32": "i", "U8": "B"}
NAMES = {code: name for name, code in CODES.items()}


def load(path):
    """({name: (shape, array)}, metadata)"""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        values = array.array(CODES[entry["dtype"]])
        values.frombytes(data[8 + size + begin : 8 + size + end])
        assert len(values) == math.prod(entry["shape"]), f"{path}: {name}"
        tensors[name] = (entry["shape"], values)
    return tensors, metadata


def save(path, tensors):
    header, offset = {}, 0
    for name, (shape, values) in tensors.items():
        assert len(values) == math.prod(shape), name
        end = offset + len(values) * values.itemsize
        header[name] = {"dtype": NAMES[values.typecode], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join(values.tobytes() for _, values in tensors.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
