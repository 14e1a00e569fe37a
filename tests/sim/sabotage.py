"""Would the simulator notice? Each patch of sabotage/ breaks the daemon in one place; with it, one of the first schedules
must fail. A patch that no longer applies, or a break that no schedule finds, is an error.

    sabotage.py SOURCE SCRATCH [NAME...]     long: without M2SED_LONG=1 it is skipped (exit code 77)"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

SCHEDULES = 400


def copy(source, scratch):
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(source, scratch, symlinks=True, ignore=shutil.ignore_patterns(".*", "build*"))


def run(*command, **more):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **more)
    return done.returncode, done.stdout


def must(*command):
    code, output = run(*command)
    if code:
        sys.exit(f"{' '.join(map(str, command))} ends with {code}:\n{output[-3000:]}")


def first_failure(output):
    found = re.search(r"^seed (\d+): (.*)", output, re.M)
    return f"seed {found[1]}: {found[2]}" if found else None


def play(scratch, patch):
    """What the simulator says of the broken daemon; None: nothing."""
    must("patch", "-p1", "--no-backup-if-mismatch", "-d", scratch, "-i", patch)
    must("cmake", "--build", scratch / "build", "--target", "sim")
    _, output = run(scratch / "build/bin/sim", "--seed", "1", "--schedules", str(SCHEDULES), "--jobs", "2", "--first")
    must("patch", "-R", "-p1", "--no-backup-if-mismatch", "-d", scratch, "-i", patch)
    return first_failure(output)


def main():
    if os.environ.get("M2SED_LONG") != "1":
        print("M2SED_LONG=1 runs it")
        return 77
    source, scratch = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    names = sys.argv[3:]
    copy(source, scratch)
    launcher = ["-DCMAKE_C_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
    settings = ["-DCMAKE_BUILD_TYPE=Release", "-DM2SED_TESTS=ON", "-DM2SED_WERROR=ON", *launcher]
    must("cmake", "-S", scratch, "-B", scratch / "build", *settings)
    missed = []
    for patch in sorted((source / "tests/sim/sabotage").glob("*.patch")):
        if names and patch.stem not in names:
            continue
        found = play(scratch, patch)
        print(f"{patch.stem}: {found or f'NOT FOUND in {SCHEDULES} schedules'}", flush=True)
        if not found:
            missed.append(patch.stem)
    shutil.rmtree(scratch)
    return len(missed)


sys.exit(main())
