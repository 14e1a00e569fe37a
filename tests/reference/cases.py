"""Random models and mini-batches, the same on every machine for the same seed.

Used by the fixtures, the sweep and the tests. Drawn from Python's own generator (whose sequence is promised not to
change) rather than torch's, so that make_fixtures.py --check holds across torch versions.
"""

import math
import random
from dataclasses import dataclass, field

import torch

import m2se_torch

torch.set_num_threads(1)  # small tensors: more threads only wait for one another


@dataclass
class Case:
    """What to draw. Fractions are probabilities per item or position."""

    config: m2se_torch.Config
    seed: int = 1
    sequences: int = 6
    items: int = 10
    lengths: str = "mixed"  # one | full | mixed
    targets: str = "mixed"  # mixed | few (many repeats) | same (one item for all)
    text_rows: int = 3  # at most, and at least one unless missing
    image_rows: int = 4
    missing_text: float = 0.0
    missing_image: float = 0.0
    bare_items: int = 0  # items without any rows, which occur nowhere
    swap: float = 0.25
    all_positions: bool = False
    options: tuple = field(default=())  # of log_q, item_bias, residual_text, residual_image
    fresh: bool = False  # the prescribed start instead of parameters that exercise every gradient


class Draw:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def uniform(self, count):
        """[count] float64 in (0, 1)."""
        raw = torch.frombuffer(bytearray(self.random.randbytes(4 * count)), dtype=torch.int32)
        return (raw.double() + (2**31 + 0.5)) / 2**32

    def normal(self, shape, std=1.0, mean=0.0):
        """float32 of the given shape (Box and Muller's method)."""
        count = math.prod(shape)
        if count == 0:
            return torch.empty(shape)
        radius = torch.sqrt(-2.0 * torch.log(self.uniform(count)))
        values = radius * torch.cos(2.0 * math.pi * self.uniform(count))
        return (mean + std * values).float().reshape(shape)

    def flags(self, count, p):
        return [self.random.random() < p for _ in range(count)]


def draw_parameter(draw, name, shape, fresh):
    """Values that make every gradient count: no bias, gate or norm at its neutral start, attention far from even."""
    is_norm = "norm" in name
    if fresh:
        if is_norm or name.endswith("bias") or name.endswith("gate.weight"):
            return torch.full(shape, 1.0 if is_norm and name.endswith("weight") else 0.0)
        return draw.normal(shape, 0.02)
    if is_norm:
        return draw.normal(shape, 0.2, 1.0 if name.endswith("weight") else 0.0)
    if name.endswith("bias"):
        return draw.normal(shape, 0.3)
    if name == "position.weight":
        return draw.normal(shape, 0.5)
    gain = 2.0 if any(part in name for part in ("w2", "gate", "query", "key")) else 1.0
    return draw.normal(shape, gain / math.sqrt(shape[-1]))


def draw_model(case):
    """The tensors of a weights file, float32."""
    draw = Draw(2 * case.seed)
    shapes = {name: tuple(p.shape) for name, p in m2se_torch.M2SE(case.config).named_parameters()}
    return {name: draw_parameter(draw, name, shape, case.fresh) for name, shape in shapes.items()}


def draw_rows(draw, case, kind, absent):
    """Rows and pointers of one modality; rows of one item resemble each other, as BERT's do."""
    most = case.text_rows if kind == "text" else case.image_rows
    counts = [0 if gone else draw.random.randint(1, most) for gone in absent]
    pointer = torch.tensor([0] + counts).cumsum(0).int()
    own = torch.repeat_interleave(draw.normal((case.items, case.config.d), 0.4), torch.tensor(counts), dim=0)
    return own + draw.normal((int(pointer[-1]), case.config.d), 0.4), pointer


def draw_batch(case):
    """The tensors of a batch file."""
    draw = Draw(2 * case.seed + 1)
    bare = set(draw.random.sample(range(case.items), case.bare_items))
    usable = [i for i in range(case.items) if i not in bare]
    no_text = draw.flags(case.items, case.missing_text)
    # An item keeps at least one modality unless it is bare.
    no_image = [gone and not first for gone, first in zip(draw.flags(case.items, case.missing_image), no_text)]
    batch = {}
    for kind, gone in (("text", no_text), ("image", no_image)):
        absent = [gone[i] or i in bare for i in range(case.items)]
        batch[kind + "_rows"], batch[kind + "_ptr"] = draw_rows(draw, case, kind, absent)

    longest = case.config.max_len
    lengths = {
        "one": lambda: 1,
        "full": lambda: longest,
        "mixed": lambda: draw.random.choice((1, longest, draw.random.randint(1, longest))),
    }
    sizes = [lengths[case.lengths]() for _ in range(case.sequences)]
    sequences = [[draw.random.choice(usable) for _ in range(size)] for size in sizes]
    pool = {"mixed": usable, "few": usable[: max(2, len(usable) // 4)], "same": usable[:1]}[case.targets]
    targets = [draw.random.choice(pool) for _ in sizes]
    positions = sum(sizes)
    batch["seq_items"] = torch.tensor(sum(sequences, []), dtype=torch.int32)
    batch["seq_ptr"] = torch.tensor([0] + sizes).cumsum(0).int()
    batch["target"] = torch.tensor(targets, dtype=torch.int32)
    batch["swap"] = torch.tensor(draw.flags(positions, case.swap), dtype=torch.uint8)
    if case.all_positions:
        pos_target = []
        for items, target in zip(sequences, targets):
            for following in items[1:]:
                kind = draw.random.random()
                other = -1 if kind < 0.2 else draw.random.choice(pool)
                pos_target.append(following if kind > 0.4 and case.targets != "same" else other)
            pos_target.append(draw.random.choice((-1, target)))
        batch["pos_target"] = torch.tensor(pos_target, dtype=torch.int32)
    if "log_q" in case.options:
        batch["log_q"] = -draw.normal((case.items,), 2.0).abs()
    if "item_bias" in case.options:
        batch["item_bias"] = draw.normal((case.items,), 0.5)
    for name in ("residual_text", "residual_image"):
        if name in case.options:
            batch[name] = draw.normal((case.items, case.config.h), 0.3)
    return batch
