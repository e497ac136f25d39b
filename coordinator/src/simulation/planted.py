#!/usr/bin/env python3
"""Plants the bugs of planted/*.patch, one at a time, and prints which of them the simulation finds.

Works in a scratch copy of what is committed: the tree here is not touched, and the scratch is restored
after each. To be run from anywhere inside the repository:

    coordinator/src/simulation/planted.py [--scratch DIR] [--only TEXT] [--command SHELL]

A build and a run take one to a few minutes each. `--command` replaces the usual
`cargo test`; it runs in the scratch copy, and its output is looked through for the REPRO line.
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
COMMAND = "cargo test -p basalt-coordinator --locked --lib simulation::nothing -- --nocapture"


def run(command, cwd, **options):
    return subprocess.run(command, cwd=cwd, check=True, **options)


def copy(root, scratch):
    """What is committed, as a repository of its own, so that it can be restored."""
    archive = run(["git", "archive", "HEAD"], root, capture_output=True).stdout
    run(["tar", "-x"], scratch, input=archive)
    run(["git", "init", "-q"], scratch)
    run(["git", "add", "-A"], scratch)
    who = ["-c", "user.name=planted", "-c", "user.email=planted@localhost"]
    run(["git", *who, "commit", "-qm", "as committed"], scratch)


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


def find(patch, scratch, command):
    """What the simulation says of one bug."""
    run(["git", "apply", str(patch)], scratch)
    try:
        ran = subprocess.run(command, cwd=scratch, shell=True, capture_output=True, text=True)
    finally:
        run(["git", "checkout", "-q", "--", "."], scratch)
    output = ran.stdout + ran.stderr
    repro = re.findall(r"REPRO seed=(\d+)", output)
    if repro:
        seed = min(map(int, repro))
        said = re.search(rf"^seed {seed} at \d+ ms: (.*)$", output, re.M)
        return f"seed {seed}", said.group(1) if said else ""
    if "test result: ok. 1 passed" in output:
        return "not found", ""
    if "hardly seen" in output:
        return "by what was not seen", re.search(r"hardly seen: (.*)", output).group(1)
    return "NO RESULT", output[-600:].replace("\n", " ")


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--scratch", type=pathlib.Path)
    options.add_argument("--only", default="")
    options.add_argument("--command", default=COMMAND)
    options = options.parse_args()
    root = run(["git", "rev-parse", "--show-toplevel"], HERE, capture_output=True, text=True)
    scratch = options.scratch or pathlib.Path(tempfile.mkdtemp(prefix="planted-"))
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        copy(root.stdout.strip(), scratch)
        print("| bug | file and line | found by | what it says |\n|---|---|---|---|")
        for patch in sorted((HERE / "planted").glob("*.patch")):
            if options.only in patch.stem:
                seed, said = find(patch, scratch, options.command)
                said = re.sub(r"[0-9a-f]{32}", "X", said)[:150].replace("|", "/")
                print(f"| {patch.stem} | `{place(patch)}` | {seed} | {said} |")
                sys.stdout.flush()
    finally:
        if not options.scratch:
            shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
