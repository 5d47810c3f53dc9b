"""Repeating a step: trajectories, ensembles in the leading axis, progress, and what to say when a run blows up."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

CHECK_EVERY = 200
"""Steps between two looks for infinities, where results are asked for less often."""


class BlowUp(FloatingPointError):
    """The fields stopped being finite.

    Examples
    --------
    >>> eq = sm.preset("eddy", nx=16)
    >>> try:
    ...     sm.rollout(sm.STEPPERS["euler"](eq, 1e7), 50)(sm.random_pv(eq, seed=0))
    ... except sm.BlowUp as error:
    ...     print("it says so" if "dt" in str(error) else error)
    it says so
    """


class Trajectory(NamedTuple):
    """Fields at the saved times, the start included, and the state to go on from."""

    time: Tensor
    fields: Any
    state: Any


def states(step, n: int, every: int = 1, progress: str | None = None) -> Callable[[Any], Iterator[Any]]:
    """``run(state)`` yields the state after each ``every`` of ``n`` steps (the start not included).

    Raises :class:`BlowUp` with the time, the CFL number and what to try.
    """
    if n != int(n) or every != int(every) or every < 1 or n < 0 or n % every:
        raise ValueError(
            f"the number of steps ({n}) must be a multiple of the saving interval ({every}), whole and not negative"
        )

    def run(state) -> Iterator[Any]:
        state = packed(state)
        quiet = progress is None or not sys.stderr.isatty()
        with tqdm(total=n, desc=progress, unit="step", disable=quiet, delay=2) as bar:
            for _ in range(n // every):
                done = 0
                while done < every:
                    before, chunk = state, min(CHECK_EVERY, every - done)
                    for _ in range(chunk):
                        state = step(state)
                    done += chunk
                    _check(step, before, state)
                bar.update(every)
                state = packed(state)
                yield state

    return run


def packed(state):
    """The state with its tensors in the usual order of memory, as a file gives them back: sums round by that order."""
    if not hasattr(state, "z"):
        return state
    return state._replace(z=state.z.contiguous(), memory=tuple(m.contiguous() for m in state.memory))


def rollout(
    step, n: int, every: int = 1, save: Callable | None = None, progress: str | None = None
) -> Callable[[Any], Trajectory]:
    """``run(start)`` makes ``n`` steps and keeps the fields of the start and of each ``every``-th step.

    ``start`` is a state, or fields that ``step.init`` takes; leading axes are an ensemble. ``save`` (default
    ``step.read``) says what is kept of a state. Gradients flow through, and memory grows with n where they are wanted.

    Examples
    --------
    >>> step = sm.rk4(sm.equation.Lorenz63(), 0.01)
    >>> run = sm.rollout(step, 100, every=20)(torch.ones(3, dtype=torch.float64))
    >>> run.fields.shape  # the start and every twentieth state
    torch.Size([6, 3])
    """
    if not callable(step) or not hasattr(step, "init"):
        raise ValueError(f"rollout takes a step, such as rk4(equation, dt), not {type(step).__name__}")
    read = save or step.read
    advance = states(step, n, every, progress)

    def run(start) -> Trajectory:
        if not (hasattr(start, "z") or hasattr(start, "__array__")) or hasattr(start, "data_vars"):
            raise ValueError("a run starts from a state or from fields ([member,] n, ny, nx); of a Dataset these are "
                             "sm.from_dataset(dataset, equation)")  # fmt: skip
        state = step.init(torch.as_tensor(start)) if hasattr(start, "__array__") else start
        kept, times = [read(state)], [state.time]
        for state in advance(state):  # noqa: B020
            kept.append(read(state))
            times.append(state.time)
        fields = torch.stack(kept) if isinstance(kept[0], Tensor) else kept
        return Trajectory(torch.tensor(times, dtype=torch.float64), fields, state)

    return run


def _check(step, before, after) -> None:
    if finite(after):
        return
    if not finite(before):
        raise BlowUp(f"the fields at t = {before.time:.6g} are not finite: check the start and the fields given")
    now, passed = before, ""
    if not hasattr(step, "equation"):
        while finite(after := step(now)):
            now = after
        raise BlowUp(f"the fields stopped being finite at t = {after.time:.6g}; a network steps them: use another one, "
                     "or one trained over more of its own steps")  # fmt: skip
    cfl = step.equation.cfl(before.z.detach(), step.dt)
    while finite(after := step(now)):  # steps are deterministic: find the one that failed
        now = after
        if not passed and step.equation.cfl(now.z.detach(), step.dt) > 1:
            passed = f", passed 1 at t = {now.time:.6g},"
    raise BlowUp(
        f"the fields stopped being finite at t = {after.time:.6g}; the CFL number was {cfl:.3g} at "
        f"t = {before.time:.6g}{passed} with dt = {step.dt:g}. Try dt = {suggested(step.dt, cfl):.3g}, more "
        "dissipation, or the stepper etdrk4 if a linear term is stiff"
    )


def finite(state) -> bool:
    """Whether all fields of the state are finite; states of other kinds than spectra are not looked into."""
    return not hasattr(state, "z") or bool(torch.isfinite(state.z.detach().abs().sum()))


def suggested(dt: float, cfl: float) -> float:
    """A time step with a CFL number of at most 0.2, but between a tenth and half of ``dt``."""
    return min(dt / 2, max(0.2 / cfl, 0.1) * dt) if cfl > 0 else dt / 2


def check_stability(step, state) -> None:
    """Raise :class:`BlowUp` at once where ``step.dt`` cannot work: an explicit stepper outside its stability region.

    The fastest advected wave that is neither filtered nor truncated turns at ``0.65 pi CFL / dt``; the fastest decaying
    linear mode decays at the largest negative real part of the eigenvalues of ``equation.linear``.
    """
    if step.limits is None:
        return
    oscillating, decaying = step.limits
    cfl = step.equation.cfl(state.z, step.dt)
    if oscillating and 0.65 * torch.pi * cfl > oscillating:
        raise BlowUp(
            f"dt = {step.dt:g} must blow up: the CFL number of the start is {cfl:.3g}, the stepper is stable to about "
            f"{oscillating / (0.65 * torch.pi):.2g}. Try dt = {suggested(step.dt, cfl):.3g}"
        )
    rates = torch.linalg.eigvals(step.equation.linear.movedim((0, 1), (-2, -1)))
    fastest = float(-rates.real.min())
    if fastest * step.dt > 1.05 * decaying:
        raise BlowUp(
            f"dt = {step.dt:g} must blow up: a linear mode decays at {fastest:.3g}, the stepper is stable to "
            f"dt = {decaying / fastest:.3g}. Use a smaller dt, or etdrk4 or imex, which treat linear terms implicitly"
        )
