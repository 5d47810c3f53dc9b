"""Cycling: forecast, analysis, forecast ..., with everything that scores and MEDIDA want to see kept."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

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

    Raises :class:`~sciml.rollout.BlowUp` with the time, where an analysis or its forecast is not finite, and
    ``ValueError`` where windows are of another time step or follow one another with gaps, or the states are not those
    of the model.
    """
    if not all(isinstance(w, Window) for w in windows):
        raise ValueError("cycling takes windows of observations, as windows(obs, operator, ...) makes them")
    if wrong := {w.dt for w in windows if abs(w.dt - step.dt) > 1e-9 * step.dt}:
        raise ValueError(
            f"the windows have steps of {min(wrong):g} s, the model of {step.dt:g} s; make them with step.dt"
        )
    if isinstance(analysis, str | type) or not callable(analysis):
        raise ValueError(f"analysis is a method with settings, such as LETKF(space, radius=150e3), not {analysis!r}")
    shape = (len(step.equation.prognostic), *step.equation.grid.modes)
    if not isinstance(start, State) or not start.z.is_complex() or start.z.shape[-len(shape) :] != shape:
        raise ValueError(
            f"start must be State(z), coefficients ([member,] {', '.join(map(str, shape))}) as eq.init makes them"
        )
    if not bool(torch.isfinite(start.z.abs().sum())):
        raise ValueError("the start is not finite everywhere")
    state, memory = start, None
    quiet = progress is None or not sys.stderr.isatty()
    for window in tqdm(windows, desc=progress, unit="cycle", disable=quiet):
        if abs(state.time - window.start) > 1e-6 * max(window.dt, 1e-300):
            raise ValueError(f"the window starts at {window.start:g} s, the state is at {state.time:g} s")
        advice = "try a shorter time step, and look at the values and errors of the observations"
        if state.z.ndim > 3:
            advice = "the filter diverged; try other inflation, a smaller radius, more members or a shorter time step"
        try:
            result = analysis(state, window, step, memory)
        except torch.linalg.LinAlgError:  # of a matrix that is not finite
            raise BlowUp(f"the analysis after time {state.time:g} cannot be computed: {advice}") from None
        if not bool(torch.isfinite(torch.view_as_real(result.state.z)).all()):
            raise BlowUp(f"the analysis at time {result.state.time:g} is not finite: {advice}")
        state, memory = result.state, result.memory
        yield Cycle(window, result)


class Departures(NamedTuple):
    """Of the observations of one window."""

    background: Tensor
    """observed minus expected from the background (its mean, for ensembles)"""
    analysis: Tensor
    """observed minus expected from the analysis"""
    spread: Tensor
    """standard deviation of the background ensemble's equivalents; zero for a single state"""


class Record(NamedTuple):
    """Means (and spreads, for ensembles) at the end of every window; fields ``(cycles, n, *modes)``."""

    time: Tensor
    background: Tensor
    analysis: Tensor
    spread: Tensor | None
    """of the analysis, on the grid: ``(cycles, lev, y, x)``; of ensembles, or as the method states it"""
    departures: list[Departures]
    final: State
    info: list[dict[str, float]]
    extra: list[Any]
    """what ``each`` gave"""


def cycle(
    step: Step, analysis: Analysis, windows: Sequence[Window], start: State,
    read: Callable[[Tensor], Tensor] | None = None, progress: str | None = None,
    each: Callable[[int, Analysed], Any] | None = None,
) -> Record:  # fmt: skip
    """Run all windows and keep means, spreads of the fields ``read`` gives, departures, and what ``each`` makes of the
    number and the result of a window.

    Examples
    --------
    >>> from sciml.testbed import twin
    >>> t = twin(n=3)
    >>> found = sm.cycle(t.step, sm.OptimalInterpolation(t.B), t.windows, sm.State(t.prior.mean(0)), t.psi)
    >>> found.analysis.shape[0], t.error(found.analysis) < t.error(found.background) < 1
    (3, True)
    """
    if not windows:
        raise ValueError("there are no windows to cycle through")
    times, background, analysed, spread, departures, info, extra, state = [], [], [], [], [], [], [], start
    read = read or step.equation.read
    for i, (window, result) in enumerate(cycles(step, analysis, windows, start, progress)):
        state = result.state
        ensemble = state.z.ndim > 3
        b, a = (s.z.mean(0) if ensemble else s.z for s in (result.background, state))
        times.append(state.time)
        background.append(b)
        analysed.append(a)
        h = result.background_equivalents
        if ensemble:
            spread.append(read(state.z).std(0))
        elif result.spread is not None:
            spread.append(result.spread)
        mean = h.mean(0) if ensemble else h
        std = h.std(0) if ensemble and h.numel() else torch.zeros_like(mean)
        seen = mean if result.analysis_equivalents is None else result.analysis_equivalents
        departures.append(Departures(window.value - mean, window.value - seen, std))
        info.append(result.info or {})
        if each is not None:
            extra.append(each(i, result))
    spreads = torch.stack(spread) if spread else None
    fields = torch.stack(background), torch.stack(analysed), spreads
    return Record(torch.tensor(times, dtype=torch.float64), *fields, departures, state, info, extra)


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
