"""Writes tests/fixtures/encoder/NAME/: small models, and in expected.safetensors what transformers makes of them.

make_encoder_fixtures.py            writes them all
make_encoder_fixtures.py --check    fails unless the committed files are what this program makes today
"""

import argparse
import os
import sys
import tempfile

try:
    import numpy
    import PIL.Image
    import tokenizers
    import torch
    import transformers  # noqa: F401
    from safetensors.torch import load_file, save_file
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

import encoder_models as models

HOME = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "encoder")
TOLERANCE = 1e-6


def draw_ids(lengths, low, high, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(low, high, (n,), generator=generator).tolist() for n in lengths]


def packed(texts):
    ptr = torch.tensor([0] + [len(text) for text in texts]).cumsum(0).int()
    return {"ids": torch.tensor(sum(texts, [])).int(), "ptr": ptr}


def bert(folder, renamed):
    if renamed:
        model = models.make_bert(folder, 5, torch.bfloat16, renamed=True, hidden_size=20, num_attention_heads=4)
        models.write_json(folder, "1_Pooling/config.json", {"pooling_mode_cls_token": True})
        models.write_json(folder, "modules.json", [{"idx": 0, "type": "sentence_transformers.models.Transformer"}])
    else:
        model = models.make_bert(folder, 4)
    texts = draw_ids([2, 20, 1, 7, 13, 3], 0, model.config.vocab_size, 1)
    expected = packed(texts)
    for pooling in ("mean", "cls"):
        expected[pooling] = torch.stack([models.bert_vector(model, ids, pooling) for ids in texts])
    return expected


def clip(folder, activation, dtype, legacy):
    text = {"eos_token_id": 2} if legacy else {}
    model = models.make_clip(folder, 6, dtype, activation, text=text)
    texts = [[58, *ids, 59] for ids in draw_ids([0, 7, 3, 1], 3, 58, 2)]
    texts.append([58, 7, 59, 11, 59])  # the first end of a text counts
    pixels = torch.randn((3, 3, 12, 12), generator=torch.Generator().manual_seed(3))
    expected = packed(texts)
    expected["text"] = torch.stack([models.clip_text(model, ids) for ids in texts])
    expected["pixel_values"] = pixels
    expected["image"] = models.clip_images(model, pixels)
    return expected


def resize(folder):
    """Pictures of several shapes (width, height, channels), and what Pillow makes of each: the shortest edge to 16, the
    middle 12 by 12."""
    edge, size = 16, 12
    models.write_json(folder, "preprocessor_config.json", {"size": {"shortest_edge": edge}, "crop_size": size})
    expected = {}
    for width, height, channels in ((40, 30, 3), (13, 50, 3), (9, 7, 3), (16, 16, 3), (31, 20, 4), (1, 5, 3), (90, 3, 4)):
        random = numpy.random.default_rng(width).integers(0, 256, (height, width, channels), dtype=numpy.uint8)
        random[: height // 2] = random[: height // 2] // 128 * 255  # hard edges: overshoots are cut off
        seen = random
        if channels == 4:
            alpha = random[:, :, 3:].astype(int)
            seen = ((random[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(numpy.uint8)
        other = int(edge * max(width, height) / min(width, height))
        shape = (edge, other) if width < height else (other, edge)
        resized = numpy.asarray(PIL.Image.fromarray(seen).resize(shape, PIL.Image.Resampling.BICUBIC))
        top, left = (shape[1] - size) // 2, (shape[0] - size) // 2
        key = f"{width}x{height}x{channels}"
        expected["pixels." + key] = torch.from_numpy(random)
        expected["square." + key] = torch.from_numpy(resized[top : top + size, left : left + size].copy())
    return expected


LONG = "a much longer phrase than any text of this model may be"
WORDS = ["cat", "  dog ", "", "small black dog\r", "rock'n'roll", "café", "猫", "item", "user model", "the", LONG, "queue"]


def words(folder):
    """A CLIP with a vocabulary, a dictionary with odd lines, and every word's cosine with every picture."""
    vocabulary = os.path.join(HOME, "..", "tokenizers", "clip", "tokenizer.json")
    with open(vocabulary, "rb") as source, open(os.path.join(folder, "tokenizer.json"), "wb") as copy:
        copy.write(source.read())
    with open(os.path.join(folder, "words.txt"), "w", encoding="utf-8", newline="") as file:
        file.write("\n".join(WORDS))
    tokenizer = tokenizers.Tokenizer.from_file(vocabulary)
    ends = [tokenizer.token_to_id(token) for token in ("<|startoftext|>", "<|endoftext|>")]
    text = {"vocab_size": tokenizer.get_vocab_size(), "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    text.update({"bos_token_id": ends[0], "eos_token_id": ends[1]})
    vision = {"hidden_size": 8, "intermediate_size": 8, "patch_size": 6}
    model = models.make_clip(folder, 8, torch.float16, text=text, vision=vision)
    limit = model.config.text_config.max_position_embeddings

    def vector(text):
        ids = tokenizer.encode(text).ids
        return models.unit(models.clip_text(model, ids if len(ids) <= limit else ids[: limit - 1] + ends[1:]))

    pixels = torch.randn((3, 3, 12, 12), generator=torch.Generator().manual_seed(7))
    pictures = models.unit(models.clip_images(model, pixels))
    found = [word.strip() for word in WORDS if word.strip()]
    alone = torch.stack([vector(word) for word in found])
    two = torch.stack([vector(f"a photo of a {word}") + vector(f"{word}!") for word in found])
    return {
        "pixel_values": pixels,
        "pictures": pictures,
        "alone": pictures @ alone.T,
        "two": pictures @ models.unit(two).T,
    }


CASES = {
    "words": words,
    "resize": resize,
    "bert": lambda folder: bert(folder, False),
    "bert_renamed": lambda folder: bert(folder, True),
    "clip_quick": lambda folder: clip(folder, "quick_gelu", torch.float16, legacy=True),
    "clip_gelu": lambda folder: clip(folder, "gelu", torch.float32, legacy=False),
}


def make(name, home):
    folder = os.path.join(home, name)
    os.makedirs(folder, exist_ok=True)
    expected = {key: value.float() if value.is_floating_point() else value for key, value in CASES[name](folder).items()}
    save_file(expected, os.path.join(folder, "expected.safetensors"))


def same(name, home):
    """The files of a case, made anew in home, beside the committed ones: the numbers, and every other file's text."""
    for root, _, files in os.walk(os.path.join(home, name)):
        for file in files:
            made = os.path.join(root, file)
            kept = os.path.join(HOME, os.path.relpath(made, home))
            if not file.endswith(".safetensors"):
                with open(made, "rb") as a, open(kept, "rb") as b:
                    if a.read() != b.read():
                        return f"{kept} differs"
                continue
            new, old = load_file(made), load_file(kept)
            if new.keys() != old.keys():
                return f"{kept}: other tensors"
            for key in new:
                if float((new[key].double() - old[key].double()).abs().max()) > TOLERANCE:
                    return f"{kept}: {key} differs"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        for name in CASES:
            make(name, HOME)
        return 0
    failures = []
    with tempfile.TemporaryDirectory() as home:
        for name in CASES:
            make(name, home)
            failures.append(same(name, home))
    failures = [failure for failure in failures if failure]
    print("\n".join(failures) or f"{len(CASES)} models are as committed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
