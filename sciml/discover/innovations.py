r"""MEDIDA through the observations: the terms a model lacks, from the innovations of its own assimilation.

An analysis increment :math:`K d` shows of a missing term only what the gain lets through, and the errors of a model
pile up from window to window until the observations hold them. Regressing increments on the candidates themselves
(:mod:`sciml.discover.medida`) is therefore wrong by what is not seen and by what has piled up. Here candidates take
the same way as the error. With analyses :math:`x_k` of windows k, innovations :math:`d_k` and a tendency
:math:`\sum_i c_i \phi_i` that the model lacks,

.. math:: d_k \approx \sum_i c_i \frac{\partial H_k(x^b_k)}{\partial c_i}, \qquad
    \frac{\partial x^b_{k+1}}{\partial c_i} = M_k' \frac{\partial x_k}{\partial c_i} + \int M' \phi_i \, dt, \qquad
    \frac{\partial x_k}{\partial c_i} = (I - K_k H_k) \frac{\partial x^b_k}{\partial c_i} ,

by finite differences: for every candidate a companion cycles beside the analysis, pushed a little by its term and
analysed with the same gain. Least squares of the innovations on these columns is a Gauss-Newton step of the
prediction-error method (Ljung 1999, "System Identification", sections 7.2 and 10.2); the model is corrected, the
observations are assimilated again, and so on until the innovations hold no more of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sciml.assim.base import WithCompanions, trajectory
from sciml.assim.cycle import cycles
from sciml.discover.discovery import Discovery
from sciml.discover.library import Library
from sciml.discover.moments import Gathering, Moments, moments
from sciml.discover.sparse import Fit, least_squares, selected
from sciml.equation.base import Equation, Term
from sciml.observe import Window
from sciml.rollout import BlowUp
from sciml.step import State, Step


class Assimilation(NamedTuple):
    """What is cycled with a model."""

    analysis: WithCompanions
    windows: Sequence[Window]
    start: State


@dataclass(frozen=True)
class Candidates:
    """Terms of a library in the equations of some fields, each in a unit that makes it as large as the others.

    ``unit (candidates,)`` is the coefficient with which a term changes its field by ``size`` of the field's standard
    deviation in a window.
    """

    library: Library
    fields: tuple[str, ...]
    unit: np.ndarray
    chosen: np.ndarray = field(default=None)  # type: ignore[assignment]
    """numbers of those that have companions (default: all)"""

    def __post_init__(self):
        if self.chosen is None:
            object.__setattr__(self, "chosen", np.arange(len(self.unit)))

    @property
    def names(self) -> list[str]:
        """Of all candidates, fields one after the other."""
        return [f"{f}: {t}" for f in self.fields for t in self.library.names]

    def terms(self, c: np.ndarray) -> tuple[Term, ...]:
        """Those with coefficients that are not zero, as terms of an equation."""
        p, units = len(self.library), c * self.unit
        return tuple(
            Term(self.fields[i // p], f"found {self.library.names[i % p]}", float(units[i]) * self.library.terms[i % p])
            for i in np.flatnonzero(c)
        )

    def push(self, eq: Equation, z: Tensor, t: float) -> Tensor:
        """Tendencies of a batch of states, of which the first is not pushed; nor is a state alone."""
        p, out = len(self.library), torch.zeros_like(z)
        if z.ndim == 3:
            return out
        values = self.library.values(eq, z[0], t)
        for row, i in enumerate(self.chosen, 1):
            out[row, eq.prognostic.index(self.fields[i // p])] = float(self.unit[i]) * values[i % p]
        return out


def candidates(
    model: Equation, library: Library, climate: Tensor, duration: float, fields: Sequence[str] | None = None,
    size: float = 1e-3,
) -> Candidates:  # fmt: skip
    """All terms of the library in the equations of ``fields`` (default: all), with units from climatological states
    ``(samples, n, *modes)``. Raises ``ValueError`` for unknown fields and for terms that are constant."""
    fields = tuple(fields or model.prognostic)
    if unknown := set(fields) - set(model.prognostic):
        raise ValueError(f"the model has no {', '.join(sorted(unknown))}; its fields are {', '.join(model.prognostic)}")
    terms = model.grid.ifft(library.values(model, climate))
    std = (terms - terms.mean((-2, -1), keepdim=True)).square().mean((0, 2, 3)).sqrt().cpu().numpy()
    if flat := [n for n, s in zip(library.names, std, strict=True) if not s > 0]:
        raise ValueError(f"these terms are the same everywhere, and move nothing: {', '.join(flat)}; leave them out")
    own = model.read(climate).std((0, 2, 3)).cpu().numpy()
    scale = [size * own[model.prognostic.index(f)] / (std * duration) for f in fields]
    return Candidates(library, fields, np.concatenate(scale))


class Seen(NamedTuple):
    """Of one window: innovations ``(observations,)``, their derivatives by the coefficients of the candidates
    ``(candidates, observations)`` in their units, and the channels."""

    departure: Tensor
    slope: Tensor
    channel: Tensor


def sensitivities(step: Step, pushed: Step, assimilation: Assimilation, n: int) -> list[Seen]:
    """Innovations of a cycle and how they change with each of ``n`` candidates, with which ``pushed`` steps a batch of
    states of which the first is not pushed. Raises :class:`~sciml.rollout.BlowUp` where the cycle fails."""
    analysis, windows, start = assimilation
    centre = start.z.mean(0) if start.z.ndim > 3 else start.z
    apart, memory, found = torch.zeros(n + 1, *centre.shape, dtype=centre.dtype, device=centre.device), None, []
    for window, result in cycles(step, analysis, windows, start, "sensitivities"):
        with torch.no_grad():
            states, _ = trajectory(pushed, State(centre + apart, window.start), window.steps)
            equivalents = window.equivalents(states)
        analysed, memory = analysis.companions(window, result, states, equivalents, memory)
        background = result.background_equivalents
        departure = window.value - (background.mean(0) if background.ndim > 1 else background)
        channel = torch.as_tensor(window.obs["channel"].values).long()
        found.append(Seen(departure, equivalents[1:] - equivalents[0], channel))
        apart = analysed - analysed[:1]
        centre = result.state.z.mean(0) if result.state.z.ndim > 3 else result.state.z
    return found


def regression(names: Sequence[str], seen: Sequence[Seen], c: np.ndarray) -> Moments:
    """Of innovations, to which the terms with coefficients ``c (candidates,)`` belong already, on their derivatives,
    each over the root mean square of the innovations of its channel; every window is a block."""
    channel, departure = (torch.cat([getattr(s, n) for s in seen]) for n in ("channel", "departure"))
    size = torch.ones(int(channel.max()) + 1, dtype=departure.dtype)
    for i in channel.unique():
        size[i] = departure[channel == i].square().mean().sqrt()
    gathering = Gathering()
    for s in seen:
        if len(s.departure):
            x, y = (s.slope / size[s.channel]).cpu().numpy(), (s.departure / size[s.channel]).cpu().numpy()
            gathering.add(moments(names, x.T[None], (y + c @ x)[None], y[None]))
    return gathering.moments()


def medida_cycled(
    model: Equation, stepper: Callable[[Equation], Step], assimilate: Callable[[Equation], Assimilation],
    library: Library, climate: Tensor, *,
    fields: Sequence[str] | None = None, shares: Sequence[float] = (0.05, 0.01), inner: int = 4,
    tolerance: float = 0.03, skip: int = 5, log: Callable[[str], None] | None = None,
) -> Discovery:  # fmt: skip
    """Find what ``model`` lacks from observations alone.

    Raises ``ValueError`` for terms that depend on each other or are constant and for fields the model does not have,
    and :class:`~sciml.rollout.BlowUp` where the model's own cycle fails; where that of a corrected model does, the
    rounds end with a warning.

    Parameters
    ----------
    stepper : how a model is stepped, such as ``lambda eq: rk4(eq, dt)``
    assimilate : analysis, windows and first state for a (corrected) model; the analysis must have companions, such as
        ``LETKF`` and ``FuXiDA``
    climate : states ``(samples, n, *modes)`` that say how large each term is
    shares : a round for each, in which all terms have companions and are selected, not for less than this share of the
        innovations' mean square; the first is to be large, as the errors of a bad model look like many terms
    inner : most rounds after each of these with the selected terms only, to find their coefficients
    tolerance : relative change of coefficients at which these end
    skip : windows at the start that do not count
    """
    windows = assimilate(model).windows
    if len(windows) < skip + 2:
        raise ValueError(f"innovations of {skip + 2} windows are needed, the first {skip} do not count: {len(windows)}")
    every = candidates(model, library, climate, windows[0].steps * windows[0].dt, fields)
    c, fit = np.zeros(len(every.unit)), None
    say = log or (lambda line: None)

    def round_of(own: Candidates) -> Moments:
        corrected = model + own.terms(c)
        step, pushed = stepper(corrected), stepper(corrected.with_tendency(own.push))
        seen = sensitivities(step, pushed, assimilate(corrected), len(own.chosen))[skip:]
        return regression([own.names[i] for i in own.chosen], seen, c[own.chosen])

    try:
        for share in shares:
            fit, _ = selected(round_of(every), share)
            c, own = fit.coefficients, Candidates(library, every.fields, every.unit, fit.active)
            say(f"{len(own.chosen)} terms selected: {discovery(model, every, fit)}")
            for _ in range(inner if len(own.chosen) else 0):
                again, before = least_squares(round_of(own)), c
                fit, c = spread(again, own), np.zeros(len(c))
                c[own.chosen] = again.coefficients
                say(f"{discovery(model, every, fit)}")
                if np.abs(c - before).max() <= tolerance * np.abs(c).max():
                    break
    except BlowUp as error:
        if fit is None:
            raise
        warnings.warn(f"the rounds end early, the assimilation with what was found fails: {error}", stacklevel=2)
    assert fit is not None
    return discovery(model, every, fit)


def spread(fit: Fit, own: Candidates) -> Fit:
    """A fit of the chosen candidates as one of all of them."""
    n = len(own.unit)
    c, covariance = np.zeros(n), np.zeros((n, n))
    c[own.chosen], covariance[np.ix_(own.chosen, own.chosen)] = fit.coefficients, fit.covariance
    return Fit(tuple(own.names), c, covariance, fit.unexplained)


def discovery(model: Equation, every: Candidates, fit: Fit) -> Discovery:
    """A fit of all candidates, field by field, in the units of the terms."""
    p, fits = len(every.library), {}
    for i, name in enumerate(every.fields):
        rows = slice(i * p, (i + 1) * p)
        unit = every.unit[rows]
        covariance = fit.covariance[rows, rows] * np.outer(unit, unit)
        fits[name] = Fit(every.library.names, unit * fit.coefficients[rows], covariance, fit.unexplained)
    return Discovery(every.library, fits, {}, dict.fromkeys(fits, np.inf), dict(model.units), "innovations")
