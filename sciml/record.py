"""A run on disk: appended fields, running means, and restarts that continue bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr
from torch import Tensor

from sciml.data import APPENDERS, SUFFIX, load_tensors, save_tensors
from sciml.rollout import states
from sciml.step import State

RESTART_SECONDS = 10.0
"""Wall time between restart files."""


@dataclass(frozen=True)
class Means:
    """Running sums of named values, with the first and last value of each."""

    n: int = 0
    total: dict[str, Tensor] = field(default_factory=dict)
    first: dict[str, Tensor] = field(default_factory=dict)
    last: dict[str, Tensor] = field(default_factory=dict)

    def plus(self, values: dict[str, Tensor]) -> Means:
        total = {n: self.total[n] + v if self.n else v for n, v in values.items()}
        return Means(self.n + 1, total, self.first or values, values)

    def mean(self) -> dict[str, Tensor]:
        return {n: v / self.n for n, v in self.total.items()}


def record(
    step,
    start: Callable[[], State],
    n: int,
    every: int,
    spinup: int,
    folder: Path,
    fields: Callable[[State], xr.Dataset],
    values: Callable[[State], dict[str, Tensor]],
    identity: dict[str, Any],
    form: str = "netcdf",
    name: str = "fields",
    resume: bool = False,
    progress: str | None = None,
) -> tuple[Means, State]:
    """Advance ``spinup`` steps, then ``n`` more, of which the first and each ``every``-th are written and averaged.

    Parameters
    ----------
    start : makes the first state, where the run is not resumed
    fields, values : what to append to the file and what to average, from a state
    identity : what must be equal for a run to be resumed; JSON
    form : ``netcdf`` or ``zarr``

    Raises ``ValueError`` where ``resume`` finds no restart file, a damaged one, or one of another run.
    """
    restart = folder / f"{name}.restart.safetensors"
    state, done, means = _load(restart, identity) if resume else (start(), 0, Means())
    appender = APPENDERS[form](folder / f"{name}{SUFFIX[form]}", fields(state), means.n)
    if not resume:
        restart.unlink(missing_ok=True)

    def kept(state: State, means: Means) -> Means:
        appender.append(fields(state))
        return means.plus(values(state))

    saved = time.monotonic()
    try:
        if done == spinup and not means.n:
            means = kept(state, means)
        whole = (state, done, means)
        advancing = states(step, max(spinup + n - done, 0), every, progress)(state)
        for state in advancing:
            done += every
            if done >= spinup:
                means = kept(state, means)
            whole = (state, done, means)  # one assignment: an interrupt leaves the old or the new point to resume from
            if time.monotonic() - saved > RESTART_SECONDS:
                _save(restart, whole, identity)
                saved = time.monotonic()
    finally:
        _save(restart, whole, identity)
        appender.close()
    return means, whole[0]


def unfinished(folder: Path, total: int, name: str = "fields") -> int | None:
    """Steps made by the run in ``folder`` where it stopped before ``total``, else None."""
    path = folder / f"{name}.restart.safetensors"
    try:
        done = load_tensors(path)[1]["done"] if path.exists() else total
    except ValueError:
        return None
    return done if done < total else None


def _save(path: Path, point: tuple[State, int, Means], identity: dict) -> None:
    state, done, means = point
    tensors = {"z": state.z} | {f"memory.{i}": m for i, m in enumerate(state.memory)}
    if state.rng is not None:
        tensors["rng"] = state.rng
    for group in ("total", "first", "last"):
        tensors |= {f"{group}.{n}": v for n, v in getattr(means, group).items()}
    save_tensors(path, tensors, {"time": state.time, "done": done, "n": means.n, "identity": identity})


def _load(path: Path, identity: dict) -> tuple[State, int, Means]:
    if not path.exists():
        raise ValueError(f"nothing to resume: there is no {path}; start without --resume")
    tensors, header = load_tensors(path)
    for key, ours in identity.items():
        theirs = header["identity"].get(key)
        if theirs != ours:
            raise ValueError(f"{path} is of another run: its {key} is {theirs}, this run's is {ours}")
    memory = tuple(tensors[f"memory.{i}"] for i in range(sum(n.startswith("memory.") for n in tensors)))
    groups = {g: {n.removeprefix(f"{g}."): v for n, v in tensors.items() if n.startswith(f"{g}.")}
              for g in ("total", "first", "last")}  # fmt: skip
    state = State(tensors["z"], header["time"], memory, tensors.get("rng"))
    return state, header["done"], Means(header["n"], **groups)
