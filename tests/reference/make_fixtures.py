"""Writes tests/fixtures/grad/NAME/{model,batch,expected}.safetensors, which the C tests hold the C core against.

make_fixtures.py            writes them all
make_fixtures.py --check    fails unless the committed files are what this program and the reference make today
"""

import argparse
import os
import sys

try:
    import torch
except ImportError:
    print("skipped: torch cannot be imported")
    sys.exit(77)

import cases
import compare
import m2se_torch
import tensorfile
from cases import Case

HOME = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "grad")
CHECK_TOLERANCE = 1e-6
EVERYTHING = ("log_q", "item_bias", "residual_text", "residual_image")
GAPS = {"missing_text": 0.3, "missing_image": 0.3}


def config(d, da, h, experts, layers, heads, ffn, max_len, tau=0.07, lam=0.01):
    return m2se_torch.Config(d, da, h, experts, layers, heads, ffn, max_len, tau, lam)


# Each is as plain as its name allows; together they meet every rule of the model.
CASES = {
    "paper": Case(config(16, 8, 16, 4, 2, 2, 32, 6), seed=11),
    "paper_fresh": Case(config(16, 8, 16, 3, 2, 2, 16, 6), seed=12, fresh=True),
    "paper_options": Case(
        config(24, 6, 16, 3, 1, 4, 24, 5), seed=13, options=EVERYTHING, bare_items=1, **GAPS
    ),
    "paper_no_anchors": Case(config(16, 8, 8, 2, 1, 2, 16, 4), seed=14, missing_image=1.0, swap=0.5),
    "one_target": Case(config(16, 8, 16, 2, 1, 1, 32, 5), seed=15, targets="same"),
    "one_example": Case(
        config(16, 8, 16, 2, 1, 2, 16, 5), seed=16, sequences=1, lengths="full", all_positions=True
    ),
    "single_positions": Case(config(64, 4, 8, 1, 3, 1, 8, 4), seed=17, lengths="one", options=("log_q",)),
    "all": Case(config(16, 8, 16, 3, 2, 2, 20, 6), seed=18, all_positions=True),
    "all_options": Case(
        config(24, 6, 16, 3, 1, 4, 24, 5), seed=19, options=EVERYTHING, bare_items=2, all_positions=True, **GAPS
    ),
    "all_odd_sizes": Case(config(20, 5, 24, 2, 1, 3, 40, 7), seed=20, all_positions=True, options=("item_bias",)),
    "all_few_targets": Case(
        config(16, 8, 12, 8, 1, 4, 24, 9), seed=21, lengths="full", targets="few", all_positions=True, missing_text=0.5
    ),
    "full_length": Case(
        config(16, 8, 16, 2, 3, 4, 24, 9), seed=22, lengths="full", targets="few", sequences=8, swap=0.5
    ),
    "cold": Case(config(16, 8, 16, 2, 1, 1, 32, 5, tau=0.01, lam=0.1), seed=23, options=("residual_text",)),
    "warm": Case(
        config(16, 8, 16, 2, 2, 4, 32, 5, tau=0.5, lam=1.0), seed=24, all_positions=True, options=("residual_image",)
    ),
    "one_row_each": Case(config(32, 8, 16, 2, 1, 2, 16, 5), seed=25, text_rows=1, image_rows=1, all_positions=True),
    # More than one of everything that the C core divides its work into: tiles of sequences, blocks of items, pieces of
    # the weights, tiles of anchors; and positions that fill no tile.
    "many": Case(
        config(8, 4, 32, 2, 2, 2, 64, 53),
        seed=26,
        sequences=150,
        items=120,
        text_rows=2,
        image_rows=2,
        missing_text=0.1,
        missing_image=0.1,
        all_positions=True,
        options=("log_q", "item_bias"),
    ),
}


def reference(weights, metadata, batch):
    """The expected OUT, computed in float64."""
    return m2se_torch.forward_backward(m2se_torch.M2SE.from_file(weights, metadata), batch)


def write(name):
    case = CASES[name]
    folder = os.path.join(HOME, name)
    os.makedirs(folder, exist_ok=True)
    weights, batch, metadata = cases.draw_model(case), cases.draw_batch(case), case.config.to_metadata()
    expected = {key: tensor.float() for key, tensor in reference(weights, metadata, batch).items()}
    tensorfile.save(os.path.join(folder, "model.safetensors"), weights, metadata)
    tensorfile.save(os.path.join(folder, "batch.safetensors"), batch)
    tensorfile.save(os.path.join(folder, "expected.safetensors"), expected)


def same_inputs(committed, drawn):
    """Drawn and committed tensors agree but for the last digits of log and cos."""
    if list(committed) != list(drawn):
        return False
    return all(
        committed[name].shape == drawn[name].shape
        and torch.allclose(committed[name].double(), drawn[name].double(), rtol=CHECK_TOLERANCE, atol=CHECK_TOLERANCE)
        for name in drawn
    )


def check(name):
    """A list of what is wrong with the committed fixture."""
    case = CASES[name]
    load = lambda part: tensorfile.load(os.path.join(HOME, name, part + ".safetensors"))
    weights, metadata = load("model")
    batch, _ = load("batch")
    committed, _ = load("expected")
    complaints = []
    if metadata != case.config.to_metadata() or not same_inputs(weights, cases.draw_model(case)):
        complaints.append("model is not what the case draws")
    if not same_inputs(batch, cases.draw_batch(case)):
        complaints.append("batch is not what the case draws")
    for name, error, _, what in compare.compare(committed, reference(weights, metadata, batch), case.config.tau):
        if not error <= CHECK_TOLERANCE:
            complaints.append(f"expected {name}: {error:.1e} ({what})")
    return complaints


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed files instead of writing")
    arguments = parser.parse_args()
    if not arguments.check:
        for name in CASES:
            write(name)
        return 0
    failed = False
    for name in sorted(set(CASES) | set(os.listdir(HOME))):
        complaints = check(name) if name in CASES else ["not a case of make_fixtures.py"]
        failed = failed or bool(complaints)
        print(f"{name}: {'; '.join(complaints) or 'ok'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
