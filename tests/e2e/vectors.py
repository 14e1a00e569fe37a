"""Vectors that follow from checkpointed weights, by m2se_grad: the model's forward pass without the daemon."""

import array
import subprocess

from harness import safetensors
from harness.process import BIN


class Weights:
    """One generation's files."""

    def __init__(self, folder):
        self.model = folder / "model.safetensors"
        _, self.metadata = safetensors.load(self.model)
        self.optimizer, _ = safetensors.load(folder / "optimizer.safetensors")
        self.state, _ = safetensors.load(folder / "state.safetensors")
        ends, ids = self.state["items.id_ptr"][1], self.state["items.id"][1].tobytes()
        self.slots = {ids[ends[i] : ends[i + 1]].decode(): i for i in range(len(ends) - 1)}
        self.width = int(self.metadata["h"])
        self.dim = int(self.metadata["d"])
        self.tau = float(self.metadata["tau"])

    def residual(self, item, modality):
        at = (2 * self.slots[item] + modality) * self.width
        return self.optimizer["items.residual"][1][at : at + self.width]

    def bias(self, item):
        return self.optimizer["items.bias"][1][self.slots[item]]


def joined(parts):
    out = array.array("f")
    for part in parts:
        out.frombytes(bytes(part))
    return out


def rows_of(weights, parts):
    """(rows, row numbers where each item's begin)"""
    ends = array.array("i", [0])
    for part in parts:
        ends.append(ends[-1] + len(part) // (4 * weights.dim))
    return ([ends[-1], weights.dim], joined(parts)), ([len(ends)], ends)


def compute(folder, weights, features, sequences):
    """features: {item: workload.Features}; sequences: {user: [item, ...]}, each with 1..L items that have features.
    Returns ({user: vector}, {item: vector}), with the bias component."""
    items = list(features)
    index = {item: number for number, item in enumerate(items)}
    tensors = {}
    tensors["text_rows"], tensors["text_ptr"] = rows_of(weights, [features[i].text for i in items])
    tensors["image_rows"], tensors["image_ptr"] = rows_of(weights, [features[i].image for i in items])
    places, ends = array.array("i"), array.array("i", [0])
    for sequence in sequences.values():
        places.extend(index[item] for item in sequence)
        ends.append(len(places))
    tensors["seq_items"] = ([len(places)], places)
    tensors["seq_ptr"] = ([len(ends)], ends)
    tensors["swap"] = ([len(places)], array.array("B", bytes(len(places))))
    # Any item will do: the losses are not looked at.
    tensors["target"] = ([len(sequences)], array.array("i", [0] * len(sequences)))
    for modality, name in enumerate(("residual_text", "residual_image")):
        tensors[name] = (
            [len(items), weights.width],
            joined(weights.residual(item, modality) for item in items),
        )
    safetensors.save(folder / "batch.safetensors", tensors)
    output = folder / "out.safetensors"
    subprocess.run(
        [BIN / "m2se_grad", weights.model, folder / "batch.safetensors", output], check=True, timeout=120
    )
    out, _ = safetensors.load(output)
    wide = 2 * weights.width

    def vectors(name, names, last):
        values = out[name][1]
        return {
            one: list(values[wide * number : wide * (number + 1)]) + [last(one)]
            for number, one in enumerate(names)
        }

    return (
        vectors("user_vectors", sequences, lambda _: 1.0),
        vectors("item_vectors", items, lambda item: 2 * weights.tau * weights.bias(item)),
    )
