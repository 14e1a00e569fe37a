"""MovieLens-100K as the two inputs of m2sed: `movielens.py CACHE OUT` writes OUT/items.jsonl and
OUT/interactions.jsonl.

The data set (GroupLens, 100,000 ratings of 943 users for 1,682 films, September 1997 to April 1998) comes out of a
Python package that carries it as an example. A rating, whatever its stars, is taken as "has seen".
"""

import csv
import hashlib
import io
import json
import os
import pathlib
import subprocess
import sys
import zipfile

import encoder

PACKAGE = "recbole==1.2.1"
WHEEL = "recbole-1.2.1-py3-none-any.whl"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
FOLDER = "recbole/dataset_example/ml-100k/"


class FetchError(Exception):
    """The data set could not be had; the text says why."""


def fetch(cache):
    """The wheel in the cache folder; pip brings it the first time."""
    wheel = pathlib.Path(cache) / WHEEL
    if not wheel.is_file():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
        command += ["--no-deps", "--only-binary", ":all:", "--dest", str(cache), PACKAGE]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            raise FetchError(f"pip download {PACKAGE}: not done within 300 s") from None
        if done.returncode != 0:
            raise FetchError(f"pip download {PACKAGE}: {done.stderr.strip()[-600:]}")
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != WHEEL_SHA256:
        raise FetchError(f"{wheel} is not the file that is expected here (SHA-256); remove it to fetch it again")
    return wheel


def read_table(wheel, name):
    """Rows of one of the data set's tab-separated tables as dictionaries: "user_id:token" is "user_id"."""
    text = io.TextIOWrapper(wheel.open(FOLDER + name), encoding="utf-8", newline="")
    lines = csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
    names = [column.split(":")[0] for column in next(lines)]
    for number, values in enumerate(lines, 2):
        if len(values) != len(names):
            raise FetchError(f"{name}, line {number}: {len(values)} columns instead of {len(names)}")
        yield dict(zip(names, values))


def items(wheel):
    """Items with one text and one feature row each for the title and every genre."""
    for row in read_table(wheel, "ml-100k.item"):
        title = f"{row['movie_title']} ({row['release_year']})" if row["release_year"] else row["movie_title"]
        texts = [title, *row["class"].split()]
        yield {"item_id": row["item_id"], "title": title, "texts": texts, "text_rows": encoder.rows_message(texts)}


def interactions(wheel):
    """Interactions in the order in which they happened; those of the same second as the table has them."""
    for row in sorted(read_table(wheel, "ml-100k.inter"), key=lambda row: int(float(row["timestamp"]))):
        yield {
            "user_id": row["user_id"],
            "item_id": row["item_id"],
            "event_time_ms": int(float(row["timestamp"])) * 1000,
            "event_id": f"{row['user_id']}-{row['item_id']}",  # nobody rates a film twice here
        }


def write_lines(path, records):
    """Writes to the side and renames, so that a file that is there is complete."""
    aside = path.with_suffix(f".{os.getpid()}")
    with open(aside, "w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")
    aside.replace(path)


def convert(cache, out):
    """Fetches and converts, unless that has been done. Returns the paths of the items and the interactions."""
    out = pathlib.Path(out)
    paths = out / "items.jsonl", out / "interactions.jsonl"
    code = b"".join(pathlib.Path(module).read_bytes() for module in (__file__, encoder.__file__))
    made_by = out / "made-by.sha256"  # this code: when it changes, the files are made again
    mark = hashlib.sha256(code).hexdigest()
    if not (made_by.is_file() and made_by.read_text() == mark and all(path.is_file() for path in paths)):
        pathlib.Path(cache).mkdir(parents=True, exist_ok=True)
        out.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(fetch(cache)) as wheel:
            write_lines(paths[0], items(wheel))
            write_lines(paths[1], interactions(wheel))
        made_by.write_text(mark)
    return paths


def main(arguments):
    if len(arguments) != 2 or arguments[0].startswith("-"):
        print(__doc__.strip())
        return os.EX_USAGE
    try:
        for path in convert(*arguments):
            print(path)
    except FetchError as error:
        print(f"movielens.py: {error}", file=sys.stderr)
        return os.EX_UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
