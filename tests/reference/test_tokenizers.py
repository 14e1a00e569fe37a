"""m2sectl tokenize against PyPI's `tokenizers`: every character by itself, and random texts."""

import json
import os
import subprocess
import sys
import unittest

try:
    import tokenizers
except ImportError:
    print("skipped: tokenizers cannot be imported")
    sys.exit(77)

import make_tokenizer_fixtures as fixtures
import minilm
import tokenizer_cases

COUNT = 100_000
BATCH = 4_000  # what both sides answer takes a few hundred MB otherwise


def ours(folder, texts):
    program = os.path.join(os.environ["M2SED_BIN"], "m2sectl")
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    command = [program, "tokenize", "--model", str(folder), "--jsonl", "--max", "100000"]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


class Tokenizers(unittest.TestCase):
    def compare(self, folder, reference, texts, with_tokens=False):
        for begin in range(0, len(texts), BATCH):
            part = texts[begin : begin + BATCH]
            answers = ours(folder, part)
            self.assertEqual(len(answers), len(part))
            for text, expected, answer in zip(part, reference.encode_batch(part), answers, strict=True):
                same = answer.get("ids") == expected.ids
                if not same or (with_tokens and answer["tokens"] != expected.tokens[1:-1]):
                    self.fail(f"{text!r}: {answer}, expected {expected.tokens} {expected.ids}")

    def models(self):
        for name, reference in fixtures.references().items():
            yield name, fixtures.FOLDER / name, reference

    def test_every_character(self):
        # Between letters, and with a mark behind it that it may combine with or change places with.
        points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000 and not 0xF0000 <= c < 0x10FF00]
        for name, folder, reference in self.models():
            if name in ("bert-cased", "clip-files"):
                continue  # the same normaliser but for less
            with self.subTest(model=name):
                lines = [points[i : i + 32] for i in range(0, len(points), 32)]
                texts = ["a" + "a".join(chr(c) + "\u0323" for c in line) + "a\u0301" for line in lines]
                self.compare(folder, reference, texts)

    def test_random_texts(self):
        for number, (name, folder, reference) in enumerate(self.models()):
            with self.subTest(model=name):
                count = COUNT if name in ("bert-uncased", "clip") else COUNT // 5
                self.compare(folder, reference, tokenizer_cases.HARD, with_tokens=True)
                self.compare(folder, reference, tokenizer_cases.random_strings(number, count))

    def test_real_vocabulary(self):
        folder = minilm.folder()
        if not folder:
            self.skipTest("no network: the real vocabulary is not compared")
        reference = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        reference.no_padding()
        reference.no_truncation()
        self.assertEqual(reference.encode("hello world").ids, [101, 7592, 2088, 102])
        self.compare(folder, reference, tokenizer_cases.HARD, with_tokens=True)
        self.compare(folder, reference, tokenizer_cases.random_strings(99, COUNT))


if __name__ == "__main__":
    unittest.main()
