"""Cycling: forecast, analysis, forecast ..., with everything that scores and MEDIDA want to see kept."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from sciml.assim.base import Analysed, Analysis
from sciml.observe import Window
from sciml.rollout import BlowUp
from sciml.step import State, Step


class Cycle(NamedTuple):
    """One window: what went in and what came out."""

    window: Window
    result: Analysed


def cycles(
    step: Step, analysis: Analysis, windows: Sequence[Window], start: State, progress: str | None = None
) -> Iterator[Cycle]:
    """Run the analysis through consecutive windows from ``start``, a state or an ensemble of states.

    Raises :class:`~sciml.rollout.BlowUp` with the time, where an analysis or its forecast is not finite.
    """
    state, memory = start, None
    quiet = progress is None or not sys.stderr.isatty()
    for window in tqdm(windows, desc=progress, unit="cycle", disable=quiet):
        if abs(state.time - window.start) > 1e-6 * max(window.dt, 1e-300):
            raise ValueError(f"the window starts at {window.start:g} s, the state is at {state.time:g} s")
        result = analysis(state, window, step, memory)
        if not bool(torch.isfinite(torch.view_as_real(result.state.z)).all()):
            raise BlowUp(
                f"the analysis at time {result.state.time:g} is not finite: the filter diverged; try more inflation, a "
                "smaller localisation radius, more members or a shorter time step"
            )
        state, memory = result.state, result.memory
        yield Cycle(window, result)


class Record(NamedTuple):
    """Means (and spreads, for ensembles) at the end of every window; fields ``(cycles, n, *modes)``."""

    time: Tensor
    background: Tensor
    analysis: Tensor
    spread: Tensor | None
    """of the analysis, on the grid: ``(cycles, lev, y, x)``"""
    departures: list[tuple[Tensor, Tensor]]
    """(observation minus background, innovation-normalised spread or empty) of each window"""
    final: State
    info: list[dict[str, float]]


def cycle(
    step: Step, analysis: Analysis, windows: Sequence[Window], start: State,
    read: Callable[[Tensor], Tensor] | None = None, progress: str | None = None,
) -> Record:  # fmt: skip
    """Run all windows and keep means, spreads of the fields ``read`` gives, and departures."""
    times, background, analysed, spread, departures, info, state = [], [], [], [], [], [], start
    read = read or step.equation.read
    for window, result in cycles(step, analysis, windows, start, progress):
        state = result.state
        ensemble = state.z.ndim > 3
        b, a = (s.z.mean(0) if ensemble else s.z for s in (result.background, state))
        times.append(state.time)
        background.append(b)
        analysed.append(a)
        h = result.background_equivalents
        if ensemble:
            spread.append(read(state.z).std(0))
        departures.append((window.value - (h.mean(0) if ensemble else h), h.std(0) if ensemble else h.new_zeros(0)))
        info.append(result.info or {})
    return Record(
        torch.tensor(times), torch.stack(background), torch.stack(analysed), torch.stack(spread) if spread else None,
        departures, state, info,
    )  # fmt: skip


def tune(score: Callable[..., float], grid: dict[str, Sequence[float]]) -> tuple[dict[str, float], dict[tuple, float]]:
    """The best of all combinations of parameters; ``score(**parameters)`` is to be small, infinite where it fails.

    Use it on a training period or on training truths, never on those that are reported.
    """
    from itertools import product

    found = {}
    for values in product(*grid.values()):
        try:
            found[values] = score(**dict(zip(grid, values, strict=True)))
        except (FloatingPointError, torch.linalg.LinAlgError):
            found[values] = float("inf")
    best = min(found, key=lambda v: found[v])
    return dict(zip(grid, best, strict=True)), found
