"""Small tokenizers of our own and what PyPI's `tokenizers` makes of hard texts, in tests/fixtures/tokenizers.

`make_tokenizer_fixtures.py` writes goldens.jsonl for the committed models; `--train` makes the models anew before
that; `--check` compares. Each line of the goldens: {"text": …, MODEL: [ids, uncut], …}.
"""

import json
import pathlib
import sys

try:
    import tokenizers
except ImportError:
    print("skipped: tokenizers cannot be imported")
    sys.exit(77)
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tokenizer_cases import HARD

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests" / "fixtures" / "tokenizers"
BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CLIP_SPECIALS = ["<|startoftext|>", "<|endoftext|>"]
CLIP_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def bert(vocabulary, lower):
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    if vocabulary:
        tokenizer.add_special_tokens(BERT_SPECIALS)
        ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer


def clip(vocabulary, merges, split_specials):
    options = {"end_of_word_suffix": "</w>", "continuing_subword_prefix": "", "fuse_unk": False}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<|endoftext|>", **options))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    pattern = r"<\|startoftext\|>|<\|endoftext\|>|" * split_specials + CLIP_PATTERN
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    if vocabulary:
        # As published (normalized, for one of them), and as built from vocab.json by transformers.
        first = AddedToken(CLIP_SPECIALS[0], normalized=not split_specials, special=True)
        tokenizer.add_special_tokens([first, AddedToken(CLIP_SPECIALS[1], normalized=False, special=True)])
        ends = [(token, tokenizer.token_to_id(token)) for token in reversed(CLIP_SPECIALS)]
        tokenizer.post_processor = processors.RobertaProcessing(*ends, trim_offsets=False, add_prefix_space=False)
    return tokenizer


def write(folder, name, value):
    (FOLDER / folder).mkdir(parents=True, exist_ok=True)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=0) + "\n"
    (FOLDER / folder / name).write_text(text, encoding="utf-8")


def train():
    """From this project's own words and the hard texts, each half of them, so that some characters stay unknown."""
    prose = [line for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md") for line in (ROOT / name).open()]
    texts = prose + HARD[::2]
    for name, lower in (("bert-uncased", True), ("bert-cased", False)):
        tokenizer = bert({}, lower)
        trainer = trainers.WordPieceTrainer(vocab_size=1500, special_tokens=BERT_SPECIALS, show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
        vocabulary = tokenizer.get_vocab()
        if lower:
            write(name, "tokenizer.json", json.loads(bert(vocabulary, lower).to_str()))
            write(name, "tokenizer_config.json", {"model_max_length": 10**30})
            write(name, "sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": False})
            write(name, "config.json", {"model_type": "bert", "max_position_embeddings": 512})
        else:
            write(name, "vocab.txt", "".join(token + "\n" for token in sorted(vocabulary, key=vocabulary.get)))
            write(name, "tokenizer_config.json", {"do_lower_case": False, "model_max_length": 64})
    tokenizer = clip({}, [], False)
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1100, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    # As in CLIP: the bytes, the bytes at an end, the merges in order, the special tokens.
    tokens = sorted(letters) + [letter + "</w>" for letter in sorted(letters)]
    tokens += [token for token in dict.fromkeys(a + b for a, b in merges) if token not in set(tokens)]
    vocabulary = {token: index for index, token in enumerate(tokens + CLIP_SPECIALS)}
    write("clip", "tokenizer.json", json.loads(clip(vocabulary, merges, False).to_str()))
    write("clip", "config.json", {"model_type": "clip", "text_config": {"hidden_size": 8}})
    write("clip-files", "vocab.json", vocabulary)
    write("clip-files", "merges.txt", "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))


def references():
    """Model -> its tokenizer, proven to read words: one that silently came up empty would agree with nothing."""
    old = FOLDER / "clip-files"
    merges = [tuple(line.split(" ")) for line in (old / "merges.txt").read_text(encoding="utf-8").split("\n")[1:-1]]
    lines = (FOLDER / "bert-cased" / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    found = {
        "bert-uncased": Tokenizer.from_file(str(FOLDER / "bert-uncased" / "tokenizer.json")),
        "bert-cased": bert({token: index for index, token in enumerate(lines)}, False),
        "clip": Tokenizer.from_file(str(FOLDER / "clip" / "tokenizer.json")),
        "clip-files": clip(json.loads((old / "vocab.json").read_text(encoding="utf-8")), merges, True),
    }
    for name, tokenizer in found.items():
        encoding = tokenizer.encode("the model of an item")
        assert len(encoding.ids) > 6 and len(set(encoding.ids)) > 5, (name, encoding.tokens)
        text = "".join(token.replace("##", "").replace("</w>", "") for token in encoding.tokens[1:-1])
        assert text == "themodelofanitem", (name, encoding.tokens)
    return found


def main(arguments):
    if arguments == ["--train"]:
        train()
    models_ = references()
    lines = []
    for text in HARD:
        row = {"text": text} | {name: tokenizer.encode(text).ids for name, tokenizer in models_.items()}
        lines.append(json.dumps(row) + "\n")
    goldens = FOLDER / "goldens.jsonl"
    if arguments == ["--check"]:
        same = goldens.read_text(encoding="utf-8") == "".join(lines)
        print(f"{len(lines)} texts: {'as' if same else 'NOT as'} tokenizers {tokenizers.__version__} has them")
        return 0 if same else 1
    goldens.write_text("".join(lines), encoding="utf-8")
    print(f"{len(lines)} texts")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
