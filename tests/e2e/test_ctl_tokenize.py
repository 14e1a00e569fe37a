"""m2sectl tokenize as a process: answers in order, bad lines told in their place, limits, refusals."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

MODELS = pathlib.Path(os.environ["M2SED_SOURCE"]) / "tests" / "fixtures" / "tokenizers"


def run(*arguments, data=b"", model=MODELS / "bert-uncased"):
    program = os.path.join(os.environ["M2SED_BIN"], "m2sectl")
    return subprocess.run([program, "tokenize", "--model", model, *arguments], input=data, capture_output=True)


class Tokenize(unittest.TestCase):
    def test_lines(self):
        lines = [b'{"text":"a [MASK] a"}', b"not JSON", b'{"text":5}', b'{"text":"a\\u0000a"}', b'{"text":"a\xffa"}', b"[]"]
        lines.append(b'{"text":""}')
        done = run("--jsonl", data=b"\n".join(lines))  # the last line has no end
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(len(answers), len(lines))
        for bad in (1, 2, 5):
            self.assertEqual(list(answers[bad]), ["error"])
            self.assertTrue(answers[bad]["error"])
        self.assertEqual(answers[0]["tokens"], ["a", "[MASK]", "a"])
        self.assertEqual(len(answers[0]["ids"]), 5)
        self.assertEqual(answers[3], answers[4])  # both are cleaned away
        self.assertEqual(answers[6]["tokens"], [])
        self.assertEqual(answers[6]["ids"], [answers[0]["ids"][0], answers[0]["ids"][-1]])

    def test_limits(self):
        text = "a " * 300
        self.assertEqual(len(json.loads(run(text).stdout)["ids"]), 128)  # the folder's
        answer = json.loads(run(text, "--max", "7").stdout)
        self.assertEqual((len(answer["ids"]), answer["tokens"]), (7, ["a"] * 5))
        self.assertEqual(len(json.loads(run(text, "--max", "1000").stdout)["ids"]), 302)
        self.assertEqual(len(json.loads(run(text, model=MODELS / "clip").stdout)["ids"]), 77)

    def test_refusals(self):
        self.assertEqual(run().returncode, 64)
        self.assertEqual(run("a", "--jsonl").returncode, 64)
        self.assertEqual(run("a", "--max", "1").returncode, 64)
        with tempfile.TemporaryDirectory() as folder:
            done = run("a", model=folder)
            self.assertEqual(done.returncode, 66)
            self.assertIn(b"neither tokenizer.json nor vocab.txt", done.stderr)
            (pathlib.Path(folder) / "vocab.txt").write_bytes(b"[UNK]\n\xff\n")
            done = run("a", model=folder)
            self.assertEqual(done.returncode, 65)
            self.assertIn(b"vocab.txt line 2", done.stderr)


if __name__ == "__main__":
    unittest.main()
