"""Compares an OUT file of m2se_grad with the reference: compare.py MODEL BATCH OUT [EXPECTED]

Without EXPECTED, the reference computes it here, in float64. Every tensor must agree within TOLERANCE by the norm of
the difference over the norm of the expected tensor. Where that ratio says nothing, a floor takes its place:

- A gradient that is zero by mathematics (pool biases and key biases cancel in a softmax, the pool weights too when
  each item has one row, the query when each sequence has one position) is rounding noise on either side: it must
  be below ZERO of the whole gradient's norm.
- Any other gradient is held against at least SMALL of the whole gradient's norm (float32 sums of terms that cancel keep
  the rounding of the terms), and at least 0.0005 / tau: in a saturated softmax every gradient fades away, and what is left
  in float32 is the rounding of the logits, which are as large as 1 / tau.
- For zero gradients, the whole gradient's norm counts as at least 0.01 / tau, for the same reason.
- A loss is held against at least 0.002 / tau, likewise; 2e-4 of that is four roundings of a logit.

Without EXPECTED the reference runs in float32 too, and where that differs much from float64, AMPLE times its difference is
allowed: nearly everything cancels in such a mini-batch (say, all sequences alike), and rounding is what remains.

User and item vectors are compared row by row, and the worst row counts.
"""

import sys

try:
    import torch
except ImportError:
    print("skipped: torch cannot be imported")
    sys.exit(77)

import m2se_torch
import tensorfile

TOLERANCE = 2e-4
ZERO = 1e-6
SMALL = 1e-5
AMPLE = 20
# A gradient this small beside the whole one, in float64, is zero by mathematics.
FLOAT64_NOISE = 1e-11


def gradient_norm(tensors):
    return sum(float(t.double().square().sum()) for n, t in tensors.items() if n.startswith("grad.")) ** 0.5


def compare(got, expected, tau):
    """A list of (name, error, limit, what the error is), worst first; errors that are not finite count as infinite."""
    total = max(gradient_norm(expected), 0.01 / tau)
    rows = []
    for name in sorted(set(got) | set(expected)):
        if name not in got or name not in expected:
            rows.append((name, float("inf"), 0.0, "missing" if name not in got else "not expected"))
            continue
        a, b = got[name].double(), expected[name].double()
        if a.shape != b.shape:
            rows.append((name, float("inf"), 0.0, f"shape {list(a.shape)} instead of {list(b.shape)}"))
            continue
        difference, limit, what = a - b, TOLERANCE, "relative"
        if name.startswith("grad."):
            if float(b.norm()) <= FLOAT64_NOISE * total:
                error, limit, what = float(a.norm()) / total, ZERO, "zero gradient, of the whole"
            else:
                error = float(difference.norm()) / max(float(b.norm()), SMALL * total, 0.0005 / tau)
        elif name.endswith("_vectors"):
            # Both halves are unit vectors, or zeros for an item without rows: absolute is relative here.
            error, what = float(difference.norm(dim=1).max()), "worst row"
        else:
            error = float(difference.abs().max()) / max(float(b.abs().max()), 0.002 / tau)
        rows.append((name, error if error == error else float("inf"), limit, what))
    return by_severity(rows)


def judge(got, weights, metadata, batch):
    """compare() with the reference of these files, the limits raised where float32 itself does badly."""
    exact, rounded = (
        m2se_torch.forward_backward(m2se_torch.M2SE.from_file(weights, metadata, dtype), batch)
        for dtype in (torch.float64, torch.float32)
    )
    tau = float(metadata["tau"])
    noise = {name: error for name, error, _, _ in compare(rounded, exact, tau)}
    rows = compare(got, exact, tau)
    return by_severity((name, e, max(limit, AMPLE * noise[name]) if limit else limit, what) for name, e, limit, what in rows)


def by_severity(rows):
    return sorted(rows, key=lambda row: row[1] / row[2] if row[2] else float("inf"), reverse=True)


def wrong(rows):
    return [row for row in rows if not row[1] <= row[2]]


def print_table(rows, limit=None):
    for name, error, bound, what in rows[:limit]:
        verdict = "ok" if error <= bound else "WRONG"
        print(f"{verdict:5}  {error:9.2e}  (at most {bound:.0e}, {what})  {name}")


def main(arguments):
    if len(arguments) not in (3, 4):
        print("usage: compare.py MODEL BATCH OUT [EXPECTED]", file=sys.stderr)
        return 64
    weights, metadata = tensorfile.load(arguments[0])
    batch, _ = tensorfile.load(arguments[1])
    got, _ = tensorfile.load(arguments[2])
    if len(arguments) == 4:
        rows = compare(got, tensorfile.load(arguments[3])[0], float(metadata["tau"]))
    else:
        rows = judge(got, weights, metadata, batch)
    print_table(rows)
    return 1 if wrong(rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
