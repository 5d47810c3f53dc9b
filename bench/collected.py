"""Runs of cases that a bench collects: each is made once, and what is there is not run again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import sciml

ROOT = Path(__file__).resolve().parents[1]


def results(case: str, arguments: Sequence[object], out: Path) -> dict[str, Any] | None:
    """Of ``cases/case.py`` in the folder ``out``; None where it failed, with its last words on the screen.

    Ends the program where the folder holds a run with other arguments, and says so where it is of another version.
    """
    line, told, summary = [str(a) for a in arguments], out / "arguments.json", out / "summary.json"
    if not summary.exists():
        command = [sys.executable, str(ROOT / "cases" / f"{case}.py"), *line, "--out", str(out)]
        ended = subprocess.run(command, capture_output=True, text=True)
        print(f"{out.name}: {(ended.stdout.splitlines() or ['failed'])[-1]}", flush=True)
        if ended.returncode:
            print(ended.stderr[-400:], flush=True)
            return None
        told.write_text(json.dumps({"arguments": line, "version": version()}) + "\n")
    else:
        made = json.loads(told.read_text()) if told.exists() else {}
        if not isinstance(made, dict) or made.get("arguments") != line:
            sys.exit(f"error: {out} holds a run with other arguments; give this one a --name, or remove the folder")
        if made["version"] != version():
            print(f"{out.name}: made by another version of the code, and kept; remove it to make it again", flush=True)
    return json.loads(summary.read_text())["results"]


@cache
def version() -> str:
    """Of what cases run: the trees of the library and the cases as committed, or the package's version without git."""
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD:sciml", "HEAD:cases"]
    ended = subprocess.run(command, capture_output=True, text=True)
    return sciml.__version__ if ended.returncode else " ".join(ended.stdout.split())
