"""m2sectl embed-text, embed-image, words against transformers in float64: real MiniLM, and random BERT and CLIP."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

try:
    import numpy
    import PIL.Image
    import PIL.ImageOps
    import tokenizers
    import torch
    import transformers
    from safetensors.torch import save_file
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

import encoder_models as models
import minilm

ROOT = pathlib.Path(__file__).resolve().parents[2]
PICTURES = sorted((ROOT / "tests/corpus/picture").glob("*.*"))
CLIP_TOKENIZER = ROOT / "tests/fixtures/tokenizers/clip/tokenizer.json"
TOLERANCE = 1e-5
PUBLISHED = {0: -0.0803190097, 1: -0.0171345081, 382: 0.0478825271, 383: -0.0561899580}
TEXTS = [
    "I love sentence transformers.",
    "",
    " ",
    "a",
    "Toy Story (1995)",
    "Animation|Children's|Comedy",
    "The Shawshank Redemption is about hope, friendship and time.",
    "ÄÖÜ straße naïve café",
    "Über-lange Donaudampfschifffahrtsgesellschaftskapitänswitwe",
    "日本語のテキスト",
    "Привет, мир!",
    "emoji 🎬🍿 in the text",
    "[MASK] and [SEP] as words",
    "tab\tand\nnew line",
    "\u0000 NUL and \ufffd",
    "1234567890 3.14159 1,000,000",
    "!?.,;:()[]{}<>@#$%^&*",
    "UPPER lower MiXeD",
    "x" * 300,
    "word " * 100,
    "one two three four five six seven eight nine ten " * 40,
    "e\u0301e\u0301e\u0301 combining",
]


def ctl(*arguments, lines=None):
    program = os.path.join(os.environ["M2SED_BIN"], "m2sectl")
    given = None if lines is None else "".join(json.dumps({"text": text}) + "\n" for text in lines)
    done = subprocess.run([program, *map(str, arguments)], input=given, capture_output=True, text=True, check=False)
    if done.stderr:
        raise AssertionError(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


class Encoders(unittest.TestCase):
    def setUp(self):
        torch.set_num_threads(1)
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def near(self, answer, expected, tolerance=TOLERANCE):
        got = torch.tensor(answer["vector"], dtype=torch.float64)
        self.assertLessEqual(float((got - expected).abs().max()), tolerance)

    def check_bert(self, folder, model, limit, texts):
        reference = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        reference.no_padding()
        reference.enable_truncation(limit)
        self.assertEqual(reference.encode("hello world").ids, [101, 7592, 2088, 102])
        ids = [encoding.ids for encoding in reference.encode_batch(texts)]
        self.assertEqual(max(len(text) for text in ids), limit)
        states = [models.bert_states(model, text) for text in ids]
        answers = {
            pooling: ctl("embed-text", "--model", folder, "--jsonl", "--pooling", pooling, lines=texts)
            for pooling in ("mean", "cls")
        }
        for rows, mean, cls in zip(states, answers["mean"], answers["cls"], strict=True):
            self.near(mean, models.unit(rows.mean(dim=0)))
            self.near(cls, models.unit(rows[0]))
        return answers["mean"]

    def test_minilm(self):
        folder = minilm.folder()
        if not folder:
            self.skipTest("no network: the real weights are not compared")
        model = transformers.BertModel.from_pretrained(
            folder, add_pooling_layer=False, attn_implementation="eager", dtype=torch.float64
        ).eval()
        answers = self.check_bert(folder, model, 256, TEXTS)
        for place, value in PUBLISHED.items():
            self.assertLessEqual(abs(answers[0]["vector"][place] - value), 1e-6)
        self.assertEqual(ctl("embed-text", "--model", folder, TEXTS[0]), answers[:1])
        long = ctl("embed-text", "--model", folder, "--max", 12, TEXTS[-2])
        self.assertNotEqual(long, answers[-2:-1])

    def test_bert_base_layout(self):
        """The paper's sizes, two layers of them."""
        source = minilm.folder()
        if not source:
            self.skipTest("no network: there is no vocabulary")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(source / name, self.folder)
        sizes = dict(hidden_size=768, num_hidden_layers=2, num_attention_heads=12, intermediate_size=3072)
        model = models.make_bert(
            str(self.folder), 1, torch.float16, vocab_size=30522, max_position_embeddings=512, **sizes
        )
        self.check_bert(self.folder, model, 512, [TEXTS[0], TEXTS[1], TEXTS[8], TEXTS[20] * 2])

    def clip(self, **changes):
        shutil.copy(CLIP_TOKENIZER, self.folder)
        reference = tokenizers.Tokenizer.from_file(str(CLIP_TOKENIZER))
        ends = [reference.token_to_id(token) for token in ("<|startoftext|>", "<|endoftext|>")]
        text = dict(vocab_size=reference.get_vocab_size(), bos_token_id=ends[0], eos_token_id=ends[1], hidden_size=48)
        text.update(num_attention_heads=4, intermediate_size=96, max_position_embeddings=77)
        vision = dict(hidden_size=48, num_attention_heads=4, intermediate_size=96, image_size=64, patch_size=16)
        model = models.make_clip(str(self.folder), 2, text=text, vision=vision, projection=32, **changes)
        return model, reference

    def pixels(self, path):
        """As the preprocessor_config.json of encoder_models says, by Pillow."""
        image = PIL.Image.open(path)
        image = PIL.ImageOps.exif_transpose(image).convert("RGB")
        edge = 64
        shape = [int(edge * side / min(image.size)) for side in image.size]
        image = image.resize(shape, PIL.Image.Resampling.BICUBIC)
        left, top = (shape[0] - edge) // 2, (shape[1] - edge) // 2
        array = numpy.asarray(image.crop((left, top, left + edge, top + edge))).astype(numpy.float64) / 255
        mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
        return torch.from_numpy(((array - mean) / std).transpose(2, 0, 1))

    def test_clip(self):
        for activation, dtype in (("quick_gelu", torch.float32), ("gelu", torch.float16)):
            model, reference = self.clip(activation=activation, dtype=dtype)
            texts = [text for text in TEXTS if len(reference.encode(text).ids) <= 77]
            answers = ctl("embed-text", "--model", self.folder, "--jsonl", lines=texts)
            for text, answer in zip(texts, answers, strict=True):
                self.near(answer, models.unit(models.clip_text(model, reference.encode(text).ids)))
            pixels = torch.randn((4, 3, 64, 64), generator=torch.Generator().manual_seed(5))
            path = self.folder / "ready.safetensors"
            save_file({"pixel_values": pixels}, path)
            expected = models.clip_images(model, pixels)
            answers = ctl("embed-image", "--model", self.folder, "--pixel-values", path)
            plain = ctl("embed-image", "--model", self.folder, "--pixel-values", path, "--no-normalize")
            for i, vector in enumerate(expected):
                self.near(answers[i], models.unit(vector))
                self.near(plain[i], vector, TOLERANCE * float(vector.abs().max()))

    def test_pictures_and_words(self):
        model, reference = self.clip()
        files = [path for path in PICTURES if path.name in ("rgb.jpg", "420.jpg", "progressive.jpg", "rgb.png")]
        self.assertTrue(files)
        found = sorted({word for text in TEXTS for word in text.split() if word.isascii() and len(word) < 30})
        dictionary = self.folder / "words.txt"
        dictionary.write_text("\n".join(found), encoding="utf-8")
        rows = torch.stack([models.unit(models.clip_text(model, reference.encode(word).ids)) for word in found])
        answers = ctl("embed-image", "--model", self.folder, *files)
        best = ctl("words", "--model", self.folder, "--words", dictionary, "-n", 15, *files)
        for path, answer, words in zip(files, answers, best, strict=True):
            expected = models.unit(models.clip_images(model, self.pixels(path)[None])[0])
            got = torch.tensor(answer["vector"], dtype=torch.float64)
            self.assertGreater(float(got @ expected), 0.9999, path)
            scores = rows @ expected
            self.assertEqual([word["word"] for word in words["words"]], [found[i] for i in scores.topk(15).indices])
        missing = self.folder / "nothing.jpg"
        self.assertIn("error", ctl("embed-image", "--model", self.folder, missing)[0])


if __name__ == "__main__":
    unittest.main()
