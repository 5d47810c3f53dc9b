"""Data sets of many families, joined and kept in files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from sciml.equation.tokens import read, write
from sciml.files import load_tensors, refusing, save_tensors
from sciml.prose.trajectories import Trajectories

Runs = TypeVar("Runs", bound=Trajectories)
KIND = "trajectories"


def joined(sets: Iterable[Runs]) -> Runs:
    """Sets at the same times as one, each with families of its own."""
    sets = list(sets)
    first = [0]
    for s in sets:
        first.append(first[-1] + len(s.equations))
    before = [0]
    for s in sets:
        before.append(before[-1] + len(s.names))
    return replace(
        sets[0],
        u=torch.cat([s.u for s in sets]),
        equation=torch.cat([s.equation + n for s, n in zip(sets, first, strict=False)]),
        equations=[e for s in sets for e in s.equations],
        family=torch.cat([s.family + n for s, n in zip(sets, before, strict=False)]),
        dims=torch.cat([s.dims for s in sets]),
        names=tuple(name for s in sets for name in s.names),
    )


def save(runs: Trajectories, path: Path) -> None:
    """Write a set (safetensors); its equations as tokens, which hold their numbers exactly."""
    tensors = {n: getattr(runs, n) for n in ("t", "u", "equation", "family", "dims")}
    save_tensors(
        path, tensors, {"kind": KIND, "runs": list(runs.names), "equations": [write(e) for e in runs.equations]}
    )


def load(path: Path, fields: Sequence[str]) -> Trajectories:
    """What :func:`save` wrote; raises ``ValueError`` for other files."""
    tensors, header = load_tensors(path)
    with refusing(path):
        if header.get("kind") != KIND:
            raise ValueError(f"it holds {header.get('kind')}")
        equations = [read(tokens, fields) for tokens in header["equations"]]
        return Trajectories(equations=equations, names=tuple(header["runs"]), **tensors)
