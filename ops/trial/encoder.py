"""Feature rows from texts without a trained model: feature hashing ("hashing trick", Weinberger et al. 2009).

Each word and each run of three characters of a word is hashed to a column and a sign, and counts there; then the
row gets length 1. Texts that share words or spellings get similar rows; what words mean, it does not know.
"""

import array
import base64
import hashlib
import math
import re
import sys

DIM = 128  # the catalogue must fit into the 5 MiB that one partition of the embedded Kafka holds


def tokens(text):
    """Words (weight 1) and their character trigrams (together weight 1 a word)."""
    for word in re.findall(r"\w+", text.lower()):
        yield "w:" + word, 1.0
        marked = f"<{word}>"
        grams = [marked[i : i + 3] for i in range(len(marked) - 2)]
        for gram in grams:
            yield "c:" + gram, 1 / math.sqrt(len(grams))


def encode(text, dim=DIM):
    """The row of one text: `dim` numbers of length 1; all 0 for a text without words."""
    row = [0.0] * dim
    for token, weight in tokens(text):
        number = int.from_bytes(hashlib.blake2b(token.encode(), digest_size=8).digest(), "little")
        row[(number >> 1) % dim] += weight if number & 1 else -weight
    length = math.sqrt(sum(x * x for x in row))
    return [x / length for x in row] if length else row


def rows_message(texts, dim=DIM):
    """The rows of some texts as the message Rows in JSON: base64 of little-endian float32."""
    values = array.array("f", [x for text in texts for x in encode(text, dim)])
    if sys.byteorder == "big":
        values.byteswap()
    return {"dim": dim, "data": base64.b64encode(values.tobytes()).decode()}
