"""Weights that begin anew by themselves where marching has worn them out (Finzi et al. 2023, ICLR, section 4.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from sciml.insr.step import Advance, NeuralStep
from sciml.step import State

Worn = Callable[[NeuralStep, Tensor, Sequence[float]], bool]
"""``(step, weights, notes of the last step) -> whether to begin anew``"""


def short_steps(part: float = 0.02) -> Worn:
    """Where the next part of a step is shorter than so much of ``dt``."""
    return lambda step, theta, notes: notes[1] < part * step.dt


def large_residual(limit: float = 0.01) -> Worn:
    """Where least squares leave more than so much of R(u)."""
    return lambda step, theta, notes: notes[0] > limit


def restarting(advance: Advance, worn: Worn | None = None, tolerance: float = 1e-3) -> Advance:
    """Like ``advance``, but the same field is fitted by new weights (:meth:`~sciml.insr.step.NeuralStep.restarted`)
    after a step that left them ``worn`` (default: :func:`short_steps`), and where no step was short enough.

    A fit whose error is more than ``tolerance`` is thrown away. Each fit counts with its iterations as evaluations.
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    worn = worn or short_steps()

    def advanced(step: NeuralStep, state: State, x: Tensor, root: Tensor) -> tuple[Tensor, list[float]]:
        made, fits = 0.0, 0.0
        try:
            theta, notes = advance(step, state, x, root)
        except FloatingPointError:
            state, made, fits = anew(step, state)
            if not made <= tolerance:
                raise
            theta, notes = advance(step, state, x, root)
        residual, h, evaluations, error = notes
        if worn(step, theta, notes):
            again, change, iterations = anew(step, state._replace(z=theta, time=state.time + step.dt))
            fits += iterations
            if change <= tolerance:
                theta, h, made = again.z, step.dt, made + change
        return theta, [residual, h, evaluations + fits, error + made]

    return advanced


def anew(step: NeuralStep, state: State) -> tuple[State, float, float]:
    """A state of new weights, the error of its fit, and iterations."""
    try:
        again = step.restarted(state)
    except FloatingPointError:
        return state, math.inf, 0.0
    return again, float(again.memory[1][0]), float(again.memory[1][2])
