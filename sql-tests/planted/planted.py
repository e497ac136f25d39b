#!/usr/bin/env python3
"""Plants the bugs of *.patch, one at a time, and prints which of them the tests find.

Works in a scratch copy of what is committed: the tree here is not touched, and the scratch is restored
after each. To be run from anywhere inside the repository:

    sql-tests/planted/planted.py [--scratch DIR] [--only TEXT ...]

A patch begins with what the bug is (`Bug:`) and the command that is to find it (`Test:`); without
them it is one for the simulation. The first build takes as long as any (CARGO_TARGET_DIR, if it is set,
must not be that of another tree, whose programs would have the bugs then), the others and their tests
one to a few minutes each.
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
SIMULATION = "cargo test --workspace --locked --lib simulation::nothing -- --nocapture"


def run(command, cwd, **options):
    return subprocess.run(command, cwd=cwd, check=True, **options)


def copy(root, scratch):
    """What is committed, as a repository of its own, so that it can be restored."""
    archive = run(["git", "archive", "HEAD"], root, capture_output=True).stdout
    run(["tar", "-x"], scratch, input=archive)
    if not (scratch / ".git").exists():
        run(["git", "init", "-q"], scratch)
    run(["git", "add", "-A"], scratch)
    who = ["-c", "user.name=planted", "-c", "user.email=planted@localhost"]
    run(["git", *who, "commit", "-q", "--allow-empty", "-m", "as committed"], scratch)


def header(patch, field):
    found = re.search(rf"^{field}: (.*)$", patch.read_text(), re.M)
    return found.group(1) if found else None


def place(patch):
    """The file and line that a patch changes."""
    text = patch.read_text()
    file = re.search(r"^\+\+\+ b/(.*)$", text, re.M).group(1)
    line, seen = int(re.search(r"^@@ -(\d+)", text, re.M).group(1)), False
    for row in text.splitlines():
        if row.startswith("@@"):
            seen = True
        elif seen and row.startswith("-"):
            break
        elif seen:
            line += 1
    return f"{file}:{line}"


def find(patch, scratch):
    """What the tests say of one bug."""
    run(["git", "apply", str(patch)], scratch)
    command = header(patch, "Test") or SIMULATION
    try:
        ran = subprocess.run(command, cwd=scratch, shell=True, capture_output=True, text=True)
    finally:
        run(["git", "checkout", "-q", "--", "."], scratch)
    output = ran.stdout + ran.stderr
    repro = re.findall(r"REPRO seed=(\d+)", output) if command == SIMULATION else []
    if repro:
        seed = min(map(int, repro))
        said = re.search(rf"^seed {seed} at \d+ ms: (.*)$", output, re.M)
        return f"seed {seed}", said.group(1) if said else ""
    if "hardly seen" in output:
        return "by what was not seen", re.search(r"hardly seen: (.*)", output).group(1)
    failed = sorted(set(re.findall(r"^test (\S+) \.\.\. FAILED$", output, re.M)))
    if failed:
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        said = re.search(rf"^thread '{failed[0]}'.* panicked at .*:\n(.*)$", output, re.M)
        return f"`{failed[0]}`{more}", said.group(1) if said else ""
    if ran.returncode == 0 and re.search(r"test result: ok\. [1-9]", output):
        return "not found", ""
    return "NO RESULT", output[-600:].replace("\n", " ")


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--scratch", type=pathlib.Path)
    options.add_argument("--only", nargs="*", default=[""])
    options = options.parse_args()
    root = run(["git", "rev-parse", "--show-toplevel"], HERE, capture_output=True, text=True)
    scratch = options.scratch or pathlib.Path(tempfile.mkdtemp(prefix="planted-"))
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        copy(root.stdout.strip(), scratch)
        print("| bug | file and line | found by | what it says |\n|---|---|---|---|")
        for patch in sorted(HERE.glob("*.patch")):
            if any(text in patch.stem for text in options.only):
                found, said = find(patch, scratch)
                said = re.sub(r"[0-9a-f]{32}", "X", said)[:150].replace("|", "/")
                print(f"| {patch.stem} | `{place(patch)}` | {found} | {said} |")
                sys.stdout.flush()
    finally:
        if not options.scratch:
            shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
