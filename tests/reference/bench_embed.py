"""How many texts and pictures a CPU second makes: m2se_bench, onnxruntime and PyTorch on the same weights, one thread
each, in turns. Needs onnxruntime, onnx and onnxscript beside the tests' packages; prints one JSON line a case.

bench_embed.py [--rounds N] [--only text|image]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

os.environ["OMP_NUM_THREADS"] = "1"

import onnxruntime
import torch
import transformers

import encoder_models as models
import minilm

SECONDS = 3  # of each measurement


def ours(command, folder, *options):
    program = os.path.join(os.environ["M2SED_BIN"], "m2se_bench")
    arguments = [program, command, "--model", str(folder), "--threads", "1", *map(str, options)]
    return json.loads(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)


def items_a_second(run, items):
    """Of this process's CPU time, after one call that is not counted."""
    run()
    calls, begin = 0, time.process_time()
    while time.process_time() - begin < SECONDS:
        run()
        calls += 1
    return items * calls / (time.process_time() - begin)


def exported(model, inputs, names, dynamic, folder):
    path = os.path.join(folder, "model.onnx")
    torch.onnx.export(
        model, tuple(inputs), path, input_names=names, output_names=["out"], dynamic_shapes=dynamic, dynamo=True,
        verbose=False,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def compare(name, rounds, our_run, torch_run, onnx_run, items):
    got = {"m2sed": [], "onnxruntime": [], "torch": [], "peak_share": []}
    for _ in range(rounds):
        answer = our_run()
        got["m2sed"].append(answer["items_per_cpu_second"])
        got["peak_share"].append(answer["peak_share"])
        got["onnxruntime"].append(items_a_second(onnx_run, items))
        got["torch"].append(items_a_second(torch_run, items))
    result = {key: round(statistics.median(values), 3) for key, values in got.items()}
    result["over_onnxruntime"] = round(result["m2sed"] / result["onnxruntime"], 3)
    result["over_torch"] = round(result["m2sed"] / result["torch"], 3)
    print(json.dumps({"case": name, "rounds": rounds, **result}), flush=True)


class Pooled(torch.nn.Module):
    """Token states to unit vectors, padding left out."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids, mask):
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(states.dtype)
        return torch.nn.functional.normalize((states * weights).sum(1) / weights.sum(1), dim=-1)


def texts(rounds, folder):
    model = Pooled(transformers.BertModel.from_pretrained(folder, add_pooling_layer=False)).eval()
    batch, longest = 32, 60
    ids = torch.randint(1000, 30000, (batch, longest))
    same = torch.ones_like(ids)
    low = 5
    lengths = torch.tensor([low + (i * 7 % batch) * (longest - low) // (batch - 1) for i in range(batch)])
    mixed = (torch.arange(longest) < lengths[:, None]).long()
    with tempfile.TemporaryDirectory() as scratch:
        shapes = {"ids": {0: torch.export.Dim("b"), 1: torch.export.Dim("n")}}
        shapes["mask"] = shapes["ids"]
        session = exported(model, [ids, same], ["ids", "mask"], shapes, scratch)
        for name, mask, options in (("minilm 60", same, ()), ("minilm 5..60", mixed, ("--tokens-min", low))):
            feed = {"ids": ids.numpy(), "mask": mask.numpy()}
            difference = abs(session.run(None, feed)[0] - model(ids, mask).numpy()).max()
            assert difference < 1e-4, difference
            compare(
                name,
                rounds,
                lambda options=options: ours("embed", folder, "--steps", 5, *options),
                lambda mask=mask: model(ids, mask),
                lambda feed=feed: session.run(None, feed),
                batch,
            )


def images(rounds):
    batch = 8
    text = dict(hidden_size=64, num_attention_heads=4, num_hidden_layers=1, intermediate_size=64)
    vision = dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072)
    vision.update(image_size=224, patch_size=32)
    with tempfile.TemporaryDirectory() as scratch:
        models.make_clip(scratch, 1, text=text, vision=vision, projection=512)
        model = transformers.CLIPVisionModelWithProjection.from_pretrained(scratch).eval()

        class Vectors(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self, pixels):
                return torch.nn.functional.normalize(self.model(pixel_values=pixels).image_embeds, dim=-1)

        pixels = torch.randn(batch, 3, 224, 224)
        vectors = Vectors()
        session = exported(vectors, [pixels], ["pixels"], None, scratch)
        feed = {"pixels": pixels.numpy()}
        assert abs(session.run(None, feed)[0] - vectors(pixels).numpy()).max() < 1e-4
        compare(
            "vit-b/32",
            rounds,
            lambda: ours("embed-image", scratch, "--steps", 3),
            lambda: vectors(pixels),
            lambda: session.run(None, feed),
            batch,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["text", "image"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        if arguments.only != "image":
            folder = minilm.folder()
            if not folder:
                return 77
            texts(arguments.rounds, folder)
        if arguments.only != "text":
            images(arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
