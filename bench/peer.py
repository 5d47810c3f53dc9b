"""Talks to a peer's process, so that two codes take turns on the same cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PYTHON = HERE / ".venv" / "bin" / "python"


class Peer:
    """``bench/NAME_worker.py`` in the benchmarks' own environment, one thread."""

    def __init__(self, name: str):
        if not PYTHON.exists():
            sys.exit(f"error: {PYTHON} does not exist; make it with `make bench` (see bench/requirements.txt)")
        self.process = subprocess.Popen(
            [PYTHON, HERE / f"{name}_worker.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def __call__(self, **request) -> dict:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the peer ended: exit status {self.process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
