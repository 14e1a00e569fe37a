"""Random models and mini-batches over the whole space of shapes and options: m2se_grad against the reference.

sweep.py --grad PATH_TO_m2se_grad --count N --seed S

The first cases are large ones, where the C core divides its work in every way that it has. Case k of seed S is always
the same, whatever N; its line says how to repeat it alone. Without --count there are few, or with M2SED_LONG=1 many.
The same files are broken in ways that m2se_grad must refuse (--no-malformed leaves that out). With --self the reference
in float32 stands in for m2se_grad, which shows how much of the tolerance rounding alone uses up.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile

try:
    import torch
except ImportError:
    print("skipped: torch cannot be imported")
    sys.exit(77)

import cases
import compare
import m2se_torch
import tensorfile

SECONDS_MAX = 120
COUNT, COUNT_LONG = 60, 600
# Several tiles of positions, anchors and sequences in every shard, several blocks of items, and lengths that fill no tile.
LARGE = (
    cases.Case(
        m2se_torch.Config(64, 16, 64, 4, 2, 2, 256, 53),
        seed=41,
        sequences=170,
        items=200,
        lengths="full",
        all_positions=True,
        options=("log_q", "item_bias"),
    ),
    cases.Case(
        m2se_torch.Config(96, 8, 32, 3, 1, 4, 64, 67, lam=1.0),
        seed=42,
        sequences=300,
        items=250,
        targets="few",
        missing_text=0.2,
        missing_image=0.2,
        bare_items=1,
        options=("log_q", "item_bias", "residual_text", "residual_image"),
    ),
)


def draw_case(seed, number):
    """Beyond the large ones: each property on its own die, so that all pairs of them meet sooner or later."""
    if number < len(LARGE):
        return LARGE[number]
    dice = random.Random(1000003 * seed + number)
    heads = dice.choice((1, 2, 3, 4))
    widths = [h for h in (8, 24, 32, 48, 60, 64, 96) if h % heads == 0]
    config = m2se_torch.Config(
        d=dice.choice((64, 96, 100, 384, 768)),
        da=dice.choice((1, 16, 33, 64)),
        h=dice.choice(widths),
        experts=dice.randint(1, 8),
        layers=dice.randint(1, 3),
        heads=heads,
        ffn=dice.choice((16, 50, 128, 256)),
        max_len=dice.choice((1, 2, 7, 20, 50)),
        tau=dice.choice((0.01, 0.07, 0.2, 0.5)),
        lam=dice.choice((0.0, 0.01, 1.0)),
        dropout=dice.choice((0.0, 0.2)),
    )
    gaps = dice.choice(((0.0, 0.0), (0.0, 0.4), (0.4, 0.0), (0.3, 0.3), (1.0, 0.0), (0.0, 1.0)))
    items = dice.choice((2, 5, 20, 60))
    return cases.Case(
        config,
        seed=dice.randrange(10**9),
        sequences=dice.choice((1, 2, 3, 8, 17, 40)),
        items=items,
        lengths=dice.choice(("one", "full", "mixed", "mixed")),
        targets=dice.choice(("mixed", "mixed", "mixed", "few", "same")),
        text_rows=dice.choice((1, 1, 4)),
        image_rows=dice.choice((1, 5, 15)),
        missing_text=gaps[0],
        missing_image=gaps[1],
        bare_items=dice.choice((0, 0, 1)),
        swap=dice.choice((0.0, 0.25, 1.0)),
        all_positions=dice.random() < 0.5,
        options=tuple(n for n in ("log_q", "item_bias", "residual_text", "residual_image") if dice.random() < 0.4),
        fresh=dice.random() < 0.25,
    )


def describe(case):
    c = case.config
    return (
        f"d={c.d} da={c.da} h={c.h} O={c.experts} layers={c.layers} heads={c.heads} ffn={c.ffn} L={c.max_len}"
        f" tau={c.tau} lambda={c.lam} B={case.sequences} I={case.items} {case.lengths}/{case.targets}"
        f" {'all' if case.all_positions else 'last'}{' fresh' if case.fresh else ''} {'+'.join(case.options)}"
    )


class Program:
    """Runs m2se_grad on files in a folder of its own."""

    def __init__(self, path, folder):
        self.path = path
        self.files = [os.path.join(folder, name + ".safetensors") for name in ("model", "batch", "out")]

    def run(self, weights, metadata, batch):
        """The exit status, the lines on stderr, and whether OUT is there."""
        model_file, batch_file, out_file = self.files
        if os.path.exists(out_file):
            os.remove(out_file)
        tensorfile.save(model_file, weights, metadata)
        tensorfile.save(batch_file, batch)
        done = subprocess.run([self.path, *self.files], capture_output=True, text=True, timeout=SECONDS_MAX)
        return done.returncode, done.stderr.strip().splitlines(), os.path.exists(out_file)


def reference(weights, metadata, batch, dtype):
    return m2se_torch.forward_backward(m2se_torch.M2SE.from_file(weights, metadata, dtype), batch)


def check_case(case, program):
    """The rows of the comparison; a run that failed is one row."""
    weights, metadata, batch = cases.draw_model(case), case.config.to_metadata(), cases.draw_batch(case)
    if program is None:
        got, expected = (reference(weights, metadata, batch, dtype) for dtype in (torch.float32, torch.float64))
        return compare.compare(got, expected, case.config.tau)
    status, errors, written = program.run(weights, metadata, batch)
    if status != 0 or not written:
        return [(f"exit {status}, OUT {'written' if written else 'missing'}: {errors}", float("inf"), 0.0, "run")]
    return compare.judge(tensorfile.load(program.files[2])[0], weights, metadata, batch)


def broken_batches(batch, config):
    """(what is wrong, batch) for each way in which a batch file can break a rule."""

    def changed(name, position, value):
        tensor = batch[name].clone()
        tensor[position] = value
        return {**batch, name: tensor}

    n_items = len(batch["text_ptr"]) - 1
    yield "item number too large", changed("seq_items", 0, n_items)
    yield "item number negative", changed("seq_items", 0, -1)
    yield "target too large", changed("target", 0, n_items)
    yield "target negative", changed("target", -1, -1)
    yield "text_ptr does not start at 0", changed("text_ptr", 0, 1)
    yield "image_ptr does not end at the rows", changed("image_ptr", -1, len(batch["image_rows"]) + 1)
    yield "seq_ptr beyond the positions", changed("seq_ptr", -1, len(batch["seq_items"]) + 1)
    yield "empty sequence", changed("seq_ptr", 1, 0)
    yield "swap of 2", changed("swap", 0, 2)
    yield "row that is not finite", changed("text_rows", (0, 0), float("nan"))
    yield "pos_target too large", changed("pos_target", 0, n_items)
    yield "pos_target below -1", changed("pos_target", 0, -2)
    at_end = int(batch["seq_ptr"][1]) - 1
    yield "last pos_target not the target", changed("pos_target", at_end, (int(batch["target"][0]) + 1) % n_items)
    yield "rows of the wrong width", {**batch, "text_rows": batch["text_rows"][:, 1:].contiguous()}
    yield "swap too short", {**batch, "swap": batch["swap"][1:].contiguous()}
    yield "targets as floats", {**batch, "target": batch["target"].float()}
    yield "no seq_items", {name: tensor for name, tensor in batch.items() if name != "seq_items"}
    long = config.max_len + 1
    sequence = {
        "seq_items": batch["seq_items"][:1].repeat(long),
        "seq_ptr": torch.tensor([0, long], dtype=torch.int32),
        "target": batch["target"][:1],
        "swap": torch.zeros(long, dtype=torch.uint8),
        "pos_target": torch.full((long,), -1, dtype=torch.int32),
    }
    yield "sequence longer than max_len", {**batch, **sequence}
    nothing = torch.zeros_like(batch["text_ptr"])
    rowless = {kind + "_ptr": nothing for kind in ("text", "image")}
    rowless.update({kind + "_rows": batch[kind + "_rows"][:0] for kind in ("text", "image")})
    yield "items without any rows", {**batch, **rowless}


def check_malformed(program):
    """The number of broken files that m2se_grad does not refuse as it should: one line, exit 65, no OUT."""
    config = m2se_torch.Config(d=16, da=4, h=8, experts=2, layers=1, heads=2, ffn=8, max_len=4)
    case = cases.Case(config, seed=5, sequences=3, items=6, lengths="full", all_positions=True)
    weights, batch = cases.draw_model(case), cases.draw_batch(case)
    metadata = config.to_metadata()
    if program.run(weights, metadata, batch)[0] != 0:
        print("WRONG  the sound files are refused")
        return 1
    attempts = [(what, weights, metadata, broken) for what, broken in broken_batches(batch, config)]
    fewer = {name: tensor for name, tensor in weights.items() if name != "project.text.bias"}
    attempts.append(("a weight missing", fewer, metadata, batch))
    attempts.append(("a weight of the wrong shape", weights, {**metadata, "ffn": "9"}, batch))
    attempts.append(("heads that do not divide h", weights, {**metadata, "heads": "3"}, batch))
    attempts.append(("tau of 0", weights, {**metadata, "tau": "0"}, batch))
    attempts.append(("another format", weights, {**metadata, "format": "other"}, batch))
    failures = 0
    for what, *files in attempts:
        status, errors, written = program.run(*files)
        refused = status == 65 and len(errors) == 1 and not written
        failures += not refused
        if refused:
            print(f"ok     refused, {what}: {errors[0]}")
        else:
            print(f"WRONG  {what}: exit {status}, {len(errors)} lines {errors[:2]}, OUT written: {written}")
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--grad", metavar="PATH", help="m2se_grad")
    chosen.add_argument("--self", action="store_true", help="the reference in float32 instead")
    parser.add_argument("--count", type=int, default=COUNT_LONG if os.environ.get("M2SED_LONG") == "1" else COUNT)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="K", help="case K alone, with its whole table")
    parser.add_argument("--no-malformed", action="store_true")
    arguments = parser.parse_args()

    failures, worst = 0, 0.0
    with tempfile.TemporaryDirectory(prefix="m2se_sweep_") as folder:
        program = None if arguments.self else Program(os.path.abspath(arguments.grad), folder)
        numbers = range(arguments.count) if arguments.only is None else [arguments.only]
        for number in numbers:
            case = draw_case(arguments.seed, number)
            rows = check_case(case, program)
            used = max(error / limit if limit else float("inf") for _, error, limit, _ in rows)
            worst = max(worst, used)
            bad = compare.wrong(rows)
            failures += bool(bad)
            verdict = "WRONG" if bad else "ok"
            print(f"{verdict:5}  {100 * used:6.1f} % of the tolerance  --seed {arguments.seed} --only {number}  ", end="")
            print(describe(case), flush=True)
            if bad or arguments.only is not None:
                compare.print_table(rows, None if arguments.only is not None else 8)
        if program and not arguments.no_malformed and arguments.only is None:
            failures += check_malformed(program)
    print(f"{failures} failures; worst case used {100 * worst:.1f} % of the tolerance")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
