"""Reads and writes safetensors files with nothing but torch and the standard library.

The container is an 8-byte little-endian header length, a JSON header, and the data. Writing it out here, rather than
using the safetensors package, keeps torch the only thing to install and gives the C reader a second opinion.
"""

import ctypes
import json
import struct

import torch

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def load(path):
    """The tensors (a dict by name) and the metadata (a dict of strings) of the file."""
    with open(path, "rb") as file:
        data = file.read()
    if len(data) < 8:
        raise ValueError(f"{path}: shorter than its 8-byte header length")
    (header_size,) = struct.unpack("<Q", data[:8])
    if header_size > len(data) - 8:
        raise ValueError(f"{path}: header of {header_size} bytes in a file of {len(data)}")
    header = json.loads(data[8 : 8 + header_size])
    metadata = header.pop("__metadata__", {})
    body = bytearray(data[8 + header_size :])
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        if entry["dtype"] not in DTYPES:
            raise ValueError(f"{path}: {name}: dtype {entry['dtype']} is not used here")
        dtype = DTYPES[entry["dtype"]]
        count = 1
        for size in entry["shape"]:
            count *= size
        if not 0 <= begin <= end <= len(body) or end - begin != count * dtype.itemsize:
            raise ValueError(f"{path}: {name}: data_offsets {begin}..{end} do not fit its shape or the file")
        if count == 0:
            tensors[name] = torch.empty(entry["shape"], dtype=dtype)
        else:
            # A copy, because frombuffer wants aligned memory that outlives the tensor.
            piece = bytearray(body[begin:end])
            tensors[name] = torch.frombuffer(piece, dtype=dtype).reshape(entry["shape"]).clone()
    return tensors, metadata


def save(path, tensors, metadata=None):
    """Writes the tensors in their order; metadata is a dict of strings."""
    header = {}
    if metadata:
        header["__metadata__"] = metadata
    pieces = []
    offset = 0
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        size = tensor.numel() * tensor.dtype.itemsize
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        pieces.append(ctypes.string_at(tensor.data_ptr(), size) if size else b"")
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for piece in pieces:
            file.write(piece)
