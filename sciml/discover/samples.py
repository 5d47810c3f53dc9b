r"""What is regressed on what: samples of consecutive states of a truth, and how far a model misses them.

A :class:`Pair` has two states, and the model's miss over the interval between them is a row of the regression. A
:class:`Series` has many in a row, at times :math:`t_j` that are T apart. Noise of a state enters the increments before
and after it with opposite signs, so that sums of them with smooth weights hold little of it: this is the weak form in
time, without an integral's error, as each increment is one of the model. The weights are sines,

.. math:: w_{kj} = \frac{\sin(\pi k (j + 1) / (n + 1))}{2 \sin(\pi k / (2 n + 2))} , \qquad j = 0 \dots n - 1 ,

which make white noise of the states white again (they are the eigenvectors of the covariance of its differences over
the roots of the eigenvalues): generalised least squares, as Messenger & Bortz (2021, Multiscale Model. Simul. 19, 1474)
use it for the weak form of ordinary differential equations.
"""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from sciml.discover.library import Library
from sciml.equation.base import Equation
from sciml.step import State, Step


class Pair(NamedTuple):
    """States at both ends of an interval of ``steps`` steps, ``(samples, n, *modes)``."""

    before: Tensor
    after: Tensor
    steps: int = 1
    earlier: Tensor | None = None
    """the states one interval before, for data with noise: they give instruments"""
    interval: float | None = None
    """time between the states, where it is known"""

    @property
    def given(self) -> list[Tensor]:
        """All states, samples first."""
        return [z for z in (self.before, self.after, self.earlier) if z is not None]

    def rows(self, model: Equation, step: Step, library: Library) -> tuple[Tensor, Tensor, Tensor]:
        """Increments of ``step``, columns (instruments after them where there are earlier states) and rates of change,
        each ``(samples, rows, n or p, *modes)``."""
        x = columns(library, model, self.before, self.after)
        if self.earlier is not None:  # the columns that the model forecasts, whose noise is not that of the pair
            before = advanced(step, self.earlier, self.steps)
            x = torch.cat([x, columns(library, model, before, advanced(step, before, self.steps))], 1)
        rate = (self.after - self.before) / (self.steps * step.dt)
        return increments(step, self)[:, None], x[:, None], rate[:, None]


class Series(NamedTuple):
    """Uninterrupted states ``(samples, times, n, *modes)``, each ``steps`` steps after the one before it.

    With ``noisy``, whose noise is another one at each time, increments are those between every second state, and the
    states between them give instruments.
    """

    states: Tensor
    steps: int = 1
    noisy: bool = False
    interval: float | None = None
    """time between two states, where it is known"""

    @property
    def given(self) -> list[Tensor]:
        return [self.states]

    def rows(self, model: Equation, step: Step, library: Library) -> tuple[Tensor, Tensor, Tensor]:
        """As of a pair; a row for each test function."""
        z, apart, parts = self.states, 2 if self.noisy else 1, []
        values = library.values(model, z.flatten(0, 1)).unflatten(0, z.shape[:2])
        length = None if self.interval is None else apart * self.interval
        for first in range(apart):
            own, x = z[:, first::apart], values[:, first::apart]
            before, after = own[:, :-1].flatten(0, 1), own[:, 1:].flatten(0, 1)
            if not len(before):
                continue
            h = increments(step, Pair(before, after, apart * self.steps, interval=length))
            h, n = h.unflatten(0, (len(z), -1)), own.shape[1] - 1
            x = 0.5 * (x[:, :-1] + x[:, 1:])
            if self.noisy:
                x = torch.cat([x, values[:, first + 1 :: apart][:, :n]], 2)
            rate = own.diff(dim=1) / (apart * self.steps * step.dt)
            w = sines(n).to(z)
            parts.append([torch.einsum("kt,st...->sk...", w, a) for a in (h, x, rate)])
        h, x, rate = (torch.cat(a, 1) for a in zip(*parts, strict=True))
        return h, x, rate


Sample = Pair | Series


def sines(n: int) -> Tensor:
    """Test functions of ``n`` increments, ``(n, n)``, with which noise of the states is white of variance 1."""
    k = torch.arange(1, n + 1, dtype=torch.float64) * math.pi / (n + 1)
    return math.sqrt(2 / (n + 1)) * torch.sin(k[:, None] * torch.arange(1, n + 1)) / (2 * torch.sin(k / 2))[:, None]


def pairs(
    z: Tensor, steps: int, every: int | None = None, batch: int = 8, noisy: bool = False,
    interval: float | None = None, length: int = 1,
) -> list[Sample]:  # fmt: skip
    """Consecutive states of a run, coefficients ``(times, [members,] n, *modes)``, ``steps`` steps of the model apart.

    Raises ``ValueError`` where there are too few.

    Parameters
    ----------
    every : states from one pair to the next (default: ``length``, so that none is in the middle of two)
    batch : pairs that are worked on at once
    noisy : the states have noise, another one at each time, and other states give instruments: the one before a pair,
        or those between the others in a series
    interval : time between two states; it is made sure later that the model's steps add up to it
    length : intervals in a sample. More than one makes a :class:`Series`, which noise harms less: 10 to 30 where that
        many states follow each other

    Examples
    --------
    >>> eq = sm.preset("eddy", nx=16)
    >>> run = sm.rollout(sm.rk4(eq, 7200.0), 12, every=1, save=lambda state: state.z)
    >>> found = sm.pairs(run(sm.random_pv(eq, seed=0)).fields, steps=1, batch=8)
    >>> sum(len(pair.before) for pair in found)
    12
    """
    if not isinstance(z, Tensor) or (z.ndim > 3 and not z.is_complex()):
        raise ValueError("states are coefficients (times, [members,] n, *grid.modes); eq.init(fields) makes them of "
                         "fields")  # fmt: skip
    every = length if every is None else every
    if not all(n == int(n) and n >= 1 for n in (steps, every, batch, length)):
        raise ValueError(f"steps, every, batch and length are whole numbers from 1, got {steps}, {every}, {batch} and "
                         f"{length}")  # fmt: skip
    lead = int(noisy and length == 1)
    least = lead + 1 + length
    if len(z) < least:
        raise ValueError(f"a {'pair' if length == 1 else 'series'} needs {least} consecutive states, got {len(z)}")

    def at(i: Tensor) -> Tensor:
        return z[i].flatten(0, -4) if z.ndim > 4 else z[i]  # members are samples

    firsts = torch.arange(lead, len(z) - length, every).split(batch)
    if length == 1:
        return [Pair(at(i), at(i + 1), steps, at(i - 1) if noisy else None, interval) for i in firsts]
    return [Series(torch.stack([at(i + j) for j in range(length + 1)], 1), steps, noisy, interval) for i in firsts]


def advanced(step: Step, z: Tensor, steps: int) -> Tensor:
    """States after some steps of the model."""
    state = State(z)
    with torch.no_grad():
        for _ in range(steps):
            state = step(state)
    return state.z


def increments(step: Step, pair: Pair) -> Tensor:
    """What the model misses, a rate: ``(after - M(before)) / T``."""
    length = pair.steps * step.dt
    if pair.interval is not None and abs(length - pair.interval) > 1e-6 * length:
        raise ValueError(f"the states are {pair.interval:g} apart, {pair.steps} steps of {step.dt:g} are {length:g}; "
                         "give pairs the number of steps between two states")  # fmt: skip
    if step(State(pair.before[:1])).memory:
        warnings.warn("this stepper remembers earlier steps, and each pair starts it anew: errors of its start may be "
                      "taken for terms that the model lacks; use rk4 or etdrk4", stacklevel=2)  # fmt: skip
    return (pair.after - advanced(step, pair.before, pair.steps)) / length


def columns(library: Library, eq: Equation, before: Tensor, after: Tensor) -> Tensor:
    """Means of the terms over both ends of an interval, ``(samples, p, *modes)``."""
    return 0.5 * (library.values(eq, before) + library.values(eq, after))


def sound(sample: Sample, model: Equation, samples: int) -> None:
    """Refuse states that are none of the model's, or not finite; ``samples`` came before them."""
    if not isinstance(sample, Pair | Series):
        raise ValueError("data are pairs of states, as pairs(states, steps) makes them, or a function that gives them")
    shape = (len(model.prognostic), *model.grid.modes)
    for states in sample.given:
        if states.shape[-3] != shape[0]:
            raise ValueError(f"the states have {states.shape[-3]} fields, the model has {shape[0]}: "
                             f"{', '.join(model.prognostic)}")  # fmt: skip
        if states.shape[-2:] != shape[1:]:
            raise ValueError(f"the states have {tuple(states.shape[-2:])} modes, the model's grid has "
                             f"{model.grid.modes}; use a model on the grid of the data")  # fmt: skip
        bad = ~torch.isfinite(torch.view_as_real(states)).flatten(1).all(1)
        if bad.any():
            first = samples + int(bad.nonzero()[0])
            raise ValueError(f"{int(bad.sum())} states are not finite, the first of sample {first} (from 0, over all "
                             "pairs); fill the gaps first")  # fmt: skip
