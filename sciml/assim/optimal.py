r"""Analyses with a static background covariance: free run, optimal interpolation, 3D-Var.

A batch of states in the leading axis is analysed side by side, each with the same observations. Observations are
compared with the background at their own times; the increment is valid in the middle of the window (first guess at
appropriate time), from where the model carries it to the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sciml.assim.base import Analysed, Analysis, Covariance, batch_axes, forecast, restarted, trajectory
from sciml.assim.minimise import gauss_newton
from sciml.observe import Window
from sciml.step import State, Step


def free_run(background: State, window: Window, step: Step, memory=None) -> Analysed:
    """No analysis: the forecast of the initial state (persistence of errors; an upper bound)."""
    _, end, equivalents = forecast(step, background, window)
    return Analysed(end, end, equivalents)


@dataclass(frozen=True)
class OptimalInterpolation:
    r"""Optimal interpolation, :math:`x_a = x_b + B H^T (H B H^T + R)^{-1} (y - H(x_b))` (Gandin 1963; Daley 1991, 4.2).

    H is linearised about the background. The gain is not formed: conjugate gradients solve
    ``(I + U^T H^T R^{-1} H U) v = U^T H^T R^{-1} (y - H(x_b))`` with ``B = U U^T`` to ``tolerance``.

    Examples
    --------
    >>> from sciml.testbed import twin
    >>> t = twin(n=1)
    >>> found = sm.OptimalInterpolation(t.B)(sm.State(t.prior.mean(0)), t.windows[0], t.step)
    >>> t.error(found.state.z[None]) < t.error(found.background.z[None])
    True
    """

    covariance: Covariance
    middle: float = 0.5
    """part of the window after which the increment is added"""
    tolerance: float = 1e-4

    def __post_init__(self):
        checked(self.covariance, self.middle, self.tolerance)

    def __call__(self, background: State, window: Window, step: Step, memory=None) -> Analysed:
        once = ThreeDVar(self.covariance, 1, 200, self.middle, self.tolerance, halve=False)
        return once(background, window, step)


@dataclass(frozen=True)
class ThreeDVar:
    """3D-Var (FGAT): the same cost as :class:`OptimalInterpolation`, minimised iteratively with H relinearised.

    Examples
    --------
    >>> from sciml.testbed import twin
    >>> t = twin(n=1)
    >>> found = sm.ThreeDVar(t.B, outer=1, inner=20)(sm.State(t.prior.mean(0)), t.windows[0], t.step)
    >>> t.error(found.state.z[None]) < t.error(found.background.z[None])
    True
    """

    covariance: Covariance
    outer: int = 3
    inner: int = 40
    middle: float = 0.5
    tolerance: float = 1e-3
    halve: bool = True
    """take shorter steps where the full one makes the cost larger"""

    def __post_init__(self):
        checked(self.covariance, self.middle, self.tolerance)
        if self.outer < 1 or self.inner < 1:
            raise ValueError(f"outer and inner must be at least 1, got {self.outer} and {self.inner}")

    def __call__(self, background: State, window: Window, step: Step, memory=None) -> Analysed:
        batch = batch_axes(background)
        states, end, equivalents = forecast(step, background, window)
        g, d = in_error_units(window, states, self.covariance), window.value / window.sigma
        v = d.new_zeros(*background.z.shape[:batch], *self.covariance.shape)
        v, costs = gauss_newton(g, d, v, self.outer, self.inner, self.tolerance, self.halve, batch)
        with torch.no_grad():
            done = carried(step, background, window, states, end, self.covariance(v), self.middle, equivalents)
            seen = g(v) * window.sigma
            seen = seen.mean(0) if batch else seen
        return done._replace(info={"cost_before": costs[0], "cost_after": costs[-1]}, analysis_equivalents=seen)


def checked(covariance: Covariance, middle: float, tolerance: float) -> None:
    """Raises ``ValueError`` for settings that cannot be."""
    if not isinstance(covariance, Covariance):
        raise ValueError("the first setting is a Covariance, as covariance(grid, samples) makes it")
    if not 0 <= middle <= 1 or not 0 < tolerance < 1:
        raise ValueError(f"middle is a part of the window, 0 to 1, tolerance within (0, 1); got {middle}, {tolerance}")


def in_error_units(window: Window, states: Tensor, covariance: Covariance):
    """v to the equivalents of the trajectory shifted by the increment, over sigma."""
    return lambda v: window.equivalents(states + covariance(v)) / window.sigma


def carried(
    step: Step,
    start: State,
    window: Window,
    states: Tensor,
    end: State,
    increment: Tensor,
    middle: float,
    equivalents: Tensor,
) -> Analysed:
    """Add the increment in the middle of the window and step to its end."""
    done = round(middle * window.steps)
    state = restarted(start, states[done] + increment)._replace(time=window.start + done * window.dt)
    _, state = trajectory(step, state, window.steps - done)
    return Analysed(state, end, equivalents)


def refitted(
    covariance: Covariance, step: Step, windows, start: State, truth: Tensor,
    methods: Sequence[Callable[[Covariance], Analysis]] = (), skip: int = 8, of_analysis: bool = False,
) -> Covariance:  # fmt: skip
    """B from the background (or analysis) errors of a cycled method on a training truth, found again with each of
    ``methods``, which make an analysis of a B; three times optimal interpolation unless given.

    ``truth (windows, n, *modes)`` holds its states at the ends of the windows; the first ``skip`` do not count: a B
    that is fitted over the transient makes every static method look worse than it is.
    """
    from sciml.assim.base import covariance as fitted
    from sciml.assim.cycle import cycle

    for method in methods or 3 * [partial(OptimalInterpolation, tolerance=1e-2)]:
        run = cycle(step, method(covariance), windows, start)
        covariance = fitted(covariance.grid, ((run.analysis if of_analysis else run.background) - truth)[skip:])
    return covariance
