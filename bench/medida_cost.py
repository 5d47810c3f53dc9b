"""What MEDIDA costs with ever more data: time by snapshot and the largest memory, each size in a process of its own.

    python bench/medida_cost.py [--sizes 100 1000 10000]

The data are a stream: pairs of states of the relaxation jet (case 2), made when they are read, kept by nobody.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import tyro

from sciml.discover.library import terms
from sciml.discover.medida import medida
from sciml.discover.samples import Pair, advanced
from sciml.discover.systems import SYSTEMS
from sciml.initial import random_pv
from sciml.score import table
from sciml.step import etdrk4

BATCH = 10


@dataclass(frozen=True)
class Options:
    sizes: tuple[int, ...] = (100, 1000, 10000)
    """Numbers of snapshots."""
    nx: int = 24
    """Points in x; twice as many in y."""
    one: int | None = None
    """Run this size here, and print its numbers as JSON."""


class Stream(Sequence):
    """Pairs of states, from one run of the truth that starts anew each time it is read."""

    def __init__(self, nx: int, size: int):
        self.system, self.size = SYSTEMS["2"](nx), size
        start = self.system.truth.init(random_pv(self.system.truth, seed=0, members=BATCH, speed=0.3))
        self.start = advanced(etdrk4(self.system.truth, self.system.dt), start, 100)

    def __len__(self) -> int:
        return self.size // BATCH

    def __getitem__(self, i):
        raise IndexError("a stream is read from its start")

    def __iter__(self) -> Iterator[Pair]:
        step, z = etdrk4(self.system.truth, self.system.dt), self.start
        for _ in range(len(self)):
            after = advanced(step, z, 1)
            yield Pair(z, after)
            z = advanced(step, after, 3)


def one(o: Options, size: int) -> dict[str, float]:
    torch.set_num_threads(1)
    stream = Stream(o.nx, size)
    started, s = time.process_time(), stream.system
    medida(s.model, lambda eq: etdrk4(eq, s.dt), stream, terms(s.model), rounds=1)
    spent = time.process_time() - started
    return {
        "seconds": spent,
        "ms a snapshot": 1e3 * spent / size,
        "MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def run(o: Options) -> None:
    if o.one is not None:
        print(json.dumps(one(o, o.one)))
        return
    rows = {}
    for size in o.sizes:
        line = [sys.executable, __file__, "--one", str(size), "--nx", str(o.nx)]
        rows[str(size)] = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
    print(table(rows))


if __name__ == "__main__":
    run(tyro.cli(Options, description=__doc__))
