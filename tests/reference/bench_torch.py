"""Eager PyTorch on m2se_bench's training workload: one JSON line, the same flags as `m2se_bench train`.

bench_torch.py --batch 1024 --len-min 1 --len-max 15 --items 1600 --text-rows 1 --image-rows 15 --dim 768 --threads 2
bench_torch.py ... --compare PATH_TO_m2se_bench     both in turns, and the ratio

A step is all that a trainer does: finding the mini-batch's unique items and gathering their rows, random dropout of
positions, mixup, forward and backward pass with dropout, gradient clipping, Adam. Sequences are padded to the longest.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=1024, help="sequences in a mini-batch")
    parser.add_argument("--len-min", type=int, default=1)
    parser.add_argument("--len-max", type=int, default=15)
    parser.add_argument("--items", type=int, default=1600)
    parser.add_argument("--text-rows", type=int, default=1)
    parser.add_argument("--image-rows", type=int, default=15)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10, help="timed, after two that are not")
    parser.add_argument("--targets", choices=("last", "all"), default="last")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compare", metavar="PATH", help="m2se_bench: run both in turns")
    parser.add_argument("--rounds", type=int, default=5, help="of --compare")
    return parser.parse_args()


class Catalogue:
    """All items' rows and the step's mini-batch from them."""

    def __init__(self, torch, arguments):
        self.torch = torch
        self.text = torch.randn(arguments.items, arguments.text_rows, arguments.dim)
        self.image = torch.randn(arguments.items, arguments.image_rows, arguments.dim)

    def draw(self, arguments):
        """Random sequences and targets over the whole catalogue, padded; made before the clock starts."""
        torch = self.torch
        length = torch.randint(arguments.len_min, arguments.len_max + 1, (arguments.batch,))
        behind = torch.arange(int(length.max())) >= length.unsqueeze(1)
        items = torch.randint(arguments.items, behind.shape).masked_fill(behind, -1)
        target = torch.randint(arguments.items, (arguments.batch,))
        return items, length, target

    def gather(self, drawn, all_positions):
        """What a data loader does each step: unique items, renumbering, their rows."""
        import m2se_torch

        torch = self.torch
        items, length, target = drawn
        behind = items < 0
        both = torch.cat((items[~behind], target))
        unique, number = torch.unique(both, return_inverse=True)
        renumbered = torch.zeros_like(items)
        renumbered[~behind] = number[: -len(target)]
        target = number[-len(target) :]
        pos_target = None
        if all_positions:
            pos_target = torch.full_like(renumbered, -1)
            pos_target[:, :-1] = renumbered[:, 1:].masked_fill(behind[:, 1:], -1)
            pos_target[torch.arange(len(length)), length - 1] = target
        return m2se_torch.Batch(
            n_items=len(unique),
            text=m2se_torch.ItemRows(None, self.text[unique], None),
            image=m2se_torch.ItemRows(None, self.image[unique], None),
            items=renumbered,
            length=length,
            target=target,
            pos_target=pos_target,
        )


def measure(arguments):
    import torch
    import m2se_torch

    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    config = m2se_torch.Config(d=arguments.dim, max_len=max(50, arguments.len_max))
    model = m2se_torch.M2SE(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    catalogue = Catalogue(torch, arguments)
    mini_batches = [catalogue.draw(arguments) for _ in range(4)]
    times = []
    for step in range(arguments.steps + 2):
        begin = time.perf_counter()
        batch = catalogue.gather(mini_batches[step % len(mini_batches)], arguments.targets == "all")
        loss = float(m2se_torch.train_step(model, batch, optimizer))
        times.append(time.perf_counter() - begin)
        if not loss == loss:
            raise ArithmeticError(f"step {step}: the loss is not a number")
    times = times[2:]
    return {
        "bench": "train",
        "engine": f"torch {torch.__version__}",
        "targets": arguments.targets,
        "batch": arguments.batch,
        "threads": arguments.threads,
        "steps": arguments.steps,
        "seconds_per_step": statistics.median(times),
        "examples_per_second": arguments.batch * len(times) / sum(times),
        "loss": loss,
    }


def run(command):
    """The line of a benchmark that tells examples_per_second."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed ({done.returncode}): {done.stderr.strip()}")
    for line in done.stdout.splitlines():
        if line.startswith("{") and "examples_per_second" in json.loads(line):
            return json.loads(line)["examples_per_second"]
    raise SystemExit(f"{command[0]} printed no examples_per_second: {done.stdout!r}")


def compare(arguments):
    """Rounds of one short run of each, so that a busy or throttled moment of the machine meets both."""
    names = ("batch", "len_min", "len_max", "items", "text_rows", "image_rows", "dim", "threads", "steps", "targets")
    flags = []
    for name in names:
        flags += ["--" + name.replace("_", "-"), str(getattr(arguments, name))]
    theirs, ours, ratios = [], [], []
    for number in range(arguments.rounds):
        theirs.append(run([sys.executable, os.path.abspath(__file__), *flags, "--seed", str(number + 1)]))
        ours.append(run([arguments.compare, "train", *flags]))
        ratios.append(ours[-1] / theirs[-1])
        print(f"round {number + 1}: {ours[-1]:.0f} / {theirs[-1]:.0f} = {ratios[-1]:.2f}", file=sys.stderr)
    return {
        "bench": "train_ratio",
        "targets": arguments.targets,
        "ratio_min": min(ratios),
        "ratio_median": statistics.median(ratios),
        "ratio_max": max(ratios),
        "m2se_examples_per_second": statistics.median(ours),
        "torch_examples_per_second": statistics.median(theirs),
    }


def main():
    arguments = parse_arguments()
    try:
        import torch  # noqa: F401
    except ImportError:
        print("skipped: torch cannot be imported", file=sys.stderr)
        return 77
    print(json.dumps(compare(arguments) if arguments.compare else measure(arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
