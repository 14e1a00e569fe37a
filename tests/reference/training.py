"""Training steps of the C core against PyTorch: gradients, clipping, Adam, and the item table's own Adam.

training.py PROGRAM...

Each PROGRAM (train_steps, in float and in double) trains a small model for a few steps without random draws and writes
down all that took part. Here PyTorch does the same in float64, with its own Adam: one for the weights, and one for each
row of the item table, which then counts only the steps that had its item. What changed must agree, tensor by tensor,
and so must Adam's moments. The saved files must hold the same numbers, and open in Python's safetensors and PyTorch.
"""

import os
import subprocess
import sys
import tempfile

try:
    import torch
except ImportError:
    print("skipped: torch cannot be imported")
    sys.exit(77)

try:
    import safetensors.torch
except ImportError:
    print("model.safetensors and optimizer.safetensors are not read: no Python package safetensors")
    safetensors = None

import m2se_torch
import tensorfile

CASES = 4
# Largest norm of the difference, over the norm of the change. In float32, an element whose gradient is mostly rounding
# still moves by the learning rate (Adam divides by its size), so there the bound is what a few such elements add up to.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 3e-4}


def split(tensors, prefix):
    """The tensors whose names start so, without the start."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


class Training:
    """The model, the item table by rows, and their optimisers."""

    def __init__(self, start, numbers):
        config = m2se_torch.Config(
            **{name: int(numbers[name]) for name in m2se_torch.Config.INTEGERS},
            tau=numbers["tau"],
            lam=numbers["lambda"],
            dropout=0.0,
        )
        self.numbers = numbers
        self.model = m2se_torch.M2SE(config).double()
        self.model.load_state_dict({name: start[name] for name in self.model.state_dict()})
        rates = {"betas": (numbers["beta1"], numbers["beta2"]), "eps": numbers["epsilon"]}
        self.optimizers = [torch.optim.Adam(self.model.parameters(), lr=numbers["learning_rate"], **rates)]
        self.rows = {}
        for name in ("residual", "bias"):
            if "items." + name in start:
                rows = [row.double().clone().requires_grad_() for row in start["items." + name]]
                self.rows[name] = rows
                self.optimizers.append(torch.optim.Adam(rows, lr=numbers[name + "_learning_rate"], **rates))

    def step(self, raw):
        """One step over the tensors of a mini-batch; the loss and the norm of the gradient."""
        slots = raw.pop("slots").tolist()
        if self.numbers["targets_all"]:
            raw["pos_target"] = torch.cat((raw["seq_items"][1:], raw["target"][-1:]))
            raw["pos_target"][raw["seq_ptr"][1:].long() - 1] = raw["target"]
        batch = m2se_torch.pad_batch(raw, torch.float64)
        if "residual" in self.rows:
            table = torch.stack([self.rows["residual"][slot] for slot in slots])
            batch.residual_text, batch.residual_image = table.chunk(2, dim=1)
        if "bias" in self.rows:
            batch.item_bias = torch.stack([self.rows["bias"][slot] for slot in slots])
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)  # rows of other items have none, and their Adam stands still
        loss = self.model.losses(batch, *self.model(batch))["loss"]
        loss.backward()
        gradients = [p.grad for o in self.optimizers for g in o.param_groups for p in g["params"] if p.grad is not None]
        norm = float(sum(gradient.square().sum() for gradient in gradients)) ** 0.5
        limit = self.numbers["clip_norm"]
        if 0 < limit < norm:
            for gradient in gradients:
                gradient *= limit / norm
        for optimizer in self.optimizers:
            optimizer.step()
        return float(loss.detach()), norm

    def learned(self):
        """Weights and item table, by the names of the files."""
        out = {name: tensor.detach() for name, tensor in self.model.state_dict().items()}
        out.update({"items." + name: torch.stack(rows).detach() for name, rows in self.rows.items()})
        return out

    def moments(self):
        """Adam's, by the names of the files."""
        states = {parameter: state for optimizer in self.optimizers for parameter, state in optimizer.state.items()}
        out = {}
        for letter, key in (("m.", "exp_avg"), ("v.", "exp_avg_sq")):
            for name, parameter in self.model.named_parameters():
                out[letter + name] = states[parameter][key]
            for name, rows in self.rows.items():
                still = torch.zeros_like(rows[0]).detach()
                out[letter + "items." + name] = torch.stack([states[r][key] if r in states else still for r in rows])
        return out

    def updates(self):
        """How many steps each row of the item table took."""
        optimizer, rows = self.optimizers[1], next(iter(self.rows.values()))
        return [int(optimizer.state[row]["step"]) if row in optimizer.state else 0 for row in rows]


def relative(error, size):
    """Where the size is rounding (some gradients are zero by mathematics), the error itself, which is then as small."""
    size = float(size.norm())
    return float(error.norm()) / (size if size > 1e-9 else 1.0)


def check_files(folder, end):
    """The saved files hold what the learner had; a list of what is wrong."""
    path = os.path.join(folder, "model.safetensors")
    with safetensors.safe_open(path, framework="pt") as file:
        model = m2se_torch.M2SE.from_file(safetensors.torch.load_file(path), file.metadata(), torch.float32)
    saved = dict(model.state_dict())
    saved.update(safetensors.torch.load_file(os.path.join(folder, "optimizer.safetensors")))
    wrong = [f"{name}: only in one of end state and files" for name in set(saved) ^ set(end)]
    same = (name for name in set(saved) & set(end) if torch.equal(saved[name].to(end[name].dtype), end[name]))
    return wrong + [f"{name}: saved otherwise" for name in set(saved) & set(end) - set(same)]


def check(program, case, folder):
    """One case of one program; a list of what is wrong."""
    subprocess.run([program, str(case), folder], check=True)
    tensors, metadata = tensorfile.load(os.path.join(folder, "case.safetensors"))
    numbers = {name: float(text) for name, text in metadata.items()}
    start, end = split(tensors, "start."), split(tensors, "end.")
    tolerance = TOLERANCE[start["position.weight"].dtype]
    training = Training(start, numbers)
    wrong, clipped = [], 0
    for k in range(int(numbers["steps"])):
        loss, norm = training.step(split(tensors, f"batch.{k}."))
        clipped += 0 < numbers["clip_norm"] < norm
        for name, here in (("losses", loss), ("gradient_norms", norm)):
            there = float(tensors[name][k])
            if not abs(here - there) <= tolerance * here:
                wrong.append(f"step {k}: {name}: {there!r}, PyTorch {here!r}")
    if numbers["clip_norm"] > 0 and not 0 < clipped < numbers["steps"]:
        wrong.append(f"{clipped} steps are clipped: the case is to have both kinds")
    if start["position.weight"].dtype == torch.float32 and safetensors:
        wrong += check_files(folder, end)
    if end.pop("items.updates").tolist() != training.updates():
        wrong.append("items.updates: other counts")
    errors = {name: relative(end[name] - here, here) for name, here in training.moments().items()}
    for name, here in training.learned().items():
        errors[name] = relative(end[name] - here, here - start[name])
    wrong += [f"{name}: only in one of both" for name in set(errors) ^ set(end)]
    wrong += [f"{name}: differs by {error:.2e}" for name, error in errors.items() if not error <= tolerance]
    print(f"{os.path.basename(program)} {case}: {clipped} steps clipped, largest difference {max(errors.values()):.1e}")
    return wrong


def main(programs):
    if not programs:
        print(__doc__)
        return 64
    torch.set_num_threads(1)  # the tensors are small
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        for program in programs:
            for case in range(CASES):
                failures += [f"{os.path.basename(program)} {case}: {text}" for text in check(program, case, folder)]
    print("\n".join(failures) if failures else "all agree")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
