"""A run on disk: appended fields, running means, and restarts that continue bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import xarray as xr
from torch import Tensor

from sciml.files import load_tensors, save_tensors
from sciml.rollout import packed, states
from sciml.step import State

RESTART_SECONDS = 10.0
"""Wall time between restart files."""


class Appender(Protocol):
    """A file that grows; see :data:`sciml.data.APPENDERS`."""

    def append(self, record: xr.Dataset) -> None: ...

    def close(self) -> None: ...


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
    fields: Callable[[State], xr.Dataset],
    values: Callable[[State], dict[str, Tensor]],
    appender: Callable[[xr.Dataset, int], Appender],
    restart: Path,
    identity: dict[str, Any],
    resume: bool = False,
    progress: str | None = None,
) -> tuple[Means, State]:
    """Advance ``spinup`` steps, then ``n`` more, of which the first and each ``every``-th are written and averaged.

    Raises ``ValueError`` where ``resume`` finds no restart file, a damaged one, or one of another or a longer run.

    Parameters
    ----------
    start : makes the first state, where the run is not resumed
    fields, values : what to append to the file and what to average, from a state
    appender : opens the file, from a template record and the number of records to keep
    restart : file to resume from, renewed as the run goes
    identity : what must be equal for a run to be resumed; JSON
    """
    if spinup % every:
        raise ValueError(f"the spin-up ({spinup} steps) must be a multiple of the saving interval ({every})")
    whole = _load(restart, identity, step.equation.grid.device) if resume else (packed(start()), 0, Means())
    now, done, means = whole
    if done > spinup + n:
        raise ValueError(f"{restart} is {done} steps into its run, more than the {spinup + n} asked for")
    advance = states(step, spinup + n - done, every, progress)
    if not resume:
        restart.unlink(missing_ok=True)
    file = appender(fields(now), means.n)

    def kept(state: State, means: Means) -> Means:
        file.append(fields(state))
        return means.plus(values(state))

    try:
        _save(restart, whole, identity)
        saved = time.monotonic()
        if done == spinup and not means.n:
            means = kept(now, means)
            whole = (now, done, means)
        for state in advance(now):
            done += every
            if done >= spinup:
                means = kept(state, means)
            whole = (state, done, means)  # one assignment: an interrupt leaves the old or the new point to resume from
            if time.monotonic() - saved > RESTART_SECONDS:
                _save(restart, whole, identity)
                saved = time.monotonic()
    finally:
        try:
            _save(restart, whole, identity)
        finally:
            file.close()
    return means, whole[0]


def _save(path: Path, point: tuple[State, int, Means], identity: dict) -> None:
    state, done, means = point
    tensors = {"z": state.z} | {f"memory.{i}": m for i, m in enumerate(state.memory)}
    if state.rng is not None:
        tensors["rng"] = state.rng
    for group in ("total", "first", "last"):
        tensors |= {f"{group}.{n}": v for n, v in getattr(means, group).items()}
    save_tensors(path, tensors, {"time": state.time, "done": done, "n": means.n, "identity": identity})


def _load(path: Path, identity: dict, device: str) -> tuple[State, int, Means]:
    if not path.exists():
        raise ValueError(f"nothing to resume: there is no {path}")
    tensors, header = load_tensors(path)
    if missing := {"time", "done", "n", "identity"} - set(header) | {"z"} - set(tensors):
        raise ValueError(f"{path} is not a restart file: it has no {', '.join(sorted(missing))}")
    for key in header["identity"] | identity:
        theirs, ours = header["identity"].get(key), identity.get(key)
        if theirs != ours:
            raise ValueError(
                f"{path} is of another run: its {key} is {theirs}, this run's is {ours}; choose "
                "another folder, or start again with --overwrite"
            )
    rng = tensors.pop("rng", None)  # a generator's state stays on the CPU
    tensors = {n: t.to(device) for n, t in tensors.items()}
    memory = tuple(tensors[f"memory.{i}"] for i in range(sum(n.startswith("memory.") for n in tensors)))
    groups = {g: {n.removeprefix(f"{g}."): v for n, v in tensors.items() if n.startswith(f"{g}.")}
              for g in ("total", "first", "last")}  # fmt: skip
    return State(tensors["z"], header["time"], memory, rng), header["done"], Means(header["n"], **groups)
