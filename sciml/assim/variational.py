r"""4D-Var: the trajectory that fits background and observations best, in the sense of

.. math:: J(x_0) = \tfrac12 |x_0 - x_b|^2_{B^{-1}} + \tfrac12 \sum_i |y_i - H_i(M_i(x_0))|^2_{R^{-1}}

(Le Dimet & Talagrand 1986; incremental: Courtier et al. 1994), with adjoint and tangent by automatic differentiation
and the control variable ``x_0 = x_b + B^{1/2} v``. Weak constraint (Tremolet 2006): increments ``Q^{1/2} w`` between
windows. A batch of states in the leading axis is analysed side by side, each with the same observations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sciml.assim.base import Analysed, Covariance, batch_axes, forecast, restarted, trajectory
from sciml.assim.minimise import Map, gauss_newton, half_squares
from sciml.observe import Window
from sciml.step import State, Step


class Past(NamedTuple):
    """What 4D-Var keeps: earlier windows, the analysis at the start of each when it was made, and the best trajectory's
    state at the start of each."""

    windows: tuple[Window, ...]
    priors: tuple[State, ...]
    guesses: tuple[Tensor, ...]


@dataclass(frozen=True)
class FourDVar:
    """4D-Var over the last ``lag`` windows.

    With ``lag > 1`` the background is the analysis that was made ``lag`` windows ago, from observations before that
    time only, so that no observation counts twice; the search starts from the trajectory found in the cycle before, if
    that fits better.
    Or, with ``newest``, the background is that trajectory, which has seen all but the newest window, and only the
    observations of this one are assimilated: again each counts once (Bocquet & Sakov 2014, QJRMS 140, 1521: single, not
    multiple, data assimilation).

    Parameters
    ----------
    covariance : B of the background at the start of the assimilated interval
    model_error : size of increments at the start of each later window relative to ``covariance`` (0: strong constraint)
    newest : assimilate the newest window only; for strong constraint

    Examples
    --------
    >>> from sciml.testbed import twin
    >>> t = twin(n=2)
    >>> four = sm.FourDVar(t.B, lag=2, outer=1, inner=10)
    >>> found = sm.cycle(t.step, four, t.windows, sm.State(t.prior.mean(0)), t.psi)
    >>> t.error(found.analysis) < 0.5
    True
    """

    covariance: Covariance
    lag: int = 1
    outer: int = 2
    inner: int = 12
    model_error: float = 0.0
    newest: bool = False

    def __post_init__(self):
        if not isinstance(self.covariance, Covariance) or self.lag != int(self.lag):
            raise ValueError("4D-Var takes a Covariance, as covariance(grid, samples) makes it, and a whole number lag")
        if self.lag < 1 or not self.model_error >= 0:
            raise ValueError(f"lag must be at least 1 and model_error not negative, got {self.lag}, {self.model_error}")
        if self.outer < 1 or self.inner < 1:
            raise ValueError(f"outer and inner must be at least 1, got {self.outer} and {self.inner}")
        if self.lag == 1 and self.model_error:
            raise ValueError("weak constraint changes the state where one window ends and the next begins: with "
                             "model_error lag must be at least 2")  # fmt: skip
        if self.newest and self.model_error:
            raise ValueError("newest is for strong constraint: leave model_error at 0, or assimilate all windows")

    def __call__(self, background: State, window: Window, step: Step, memory: Past | None = None) -> Analysed:
        past = memory or Past((), (), ())
        batch = batch_axes(background)
        _, end, equivalents = forecast(step, background, window)
        windows, priors = (*past.windows, window), (*past.priors, background)
        guesses = (*past.guesses, background.z)
        prior = restarted(priors[0], guesses[0]) if self.newest else priors[0]
        d = torch.cat([w.value / w.sigma for w in self.assimilated(windows)])
        g = self.model(step, prior, windows)
        n = 1 + (len(windows) - 1) * (self.model_error > 0)
        v = d.new_zeros(*background.z.shape[:batch], n, *self.covariance.shape)
        v[..., 0, :, :, :] = whitened(self.covariance, guesses[0] - prior.z)
        with torch.no_grad():
            if bool(v.any()):
                costs = (half_squares(p, g(p) - d, batch) for p in (v, 0 * v))
                allowed = torch.lt(*costs)  # differences that B allows
                v = torch.where(allowed.reshape(*allowed.shape, 1, 1, 1, 1), v, 0.0)
        v, costs = gauss_newton(g, d, v, self.outer, self.inner, batch=batch)
        with torch.no_grad():
            starts = self.starts(step, prior, windows, v)
            seen = g(v)[..., len(d) - len(window) :] * window.sigma
            seen = seen.mean(0) if batch else seen
        keep = slice(1, None) if len(windows) >= self.lag else slice(0, None)
        later = Past(windows[keep], priors[keep], tuple(starts[:-1])[keep])
        state = restarted(end, starts[-1])
        return Analysed(state, end, equivalents, later, {"cost_before": costs[0], "cost_after": costs[-1]}, seen)

    def assimilated(self, windows: tuple[Window, ...]) -> tuple[Window, ...]:
        """Those whose observations count."""
        return windows[-1:] if self.newest else windows

    def model(self, step: Step, prior: State, windows: tuple[Window, ...]) -> Map:
        """v to the equivalents of the assimilated windows, over sigma."""

        def g(v: Tensor) -> Tensor:
            state, found = restarted(prior, prior.z + self.covariance(v[..., 0, :, :, :])), []
            for i, window in enumerate(windows):
                state = self.disturbed(state, v, i)
                states, state = trajectory(step, state, window.steps)
                found.append((window, states))
            return torch.cat([w.equivalents(s) / w.sigma for w, s in found[-len(self.assimilated(windows)) :]], -1)

        return g

    def disturbed(self, state: State, v: Tensor, i: int) -> State:
        """With the model error of window ``i``."""
        if i == 0 or not self.model_error:
            return state
        return restarted(state, state.z + self.model_error * self.covariance(v[..., i, :, :, :]))

    def starts(self, step: Step, prior: State, windows: tuple[Window, ...], v: Tensor) -> list[Tensor]:
        """The best trajectory at the start of each window, and at the end."""
        state, found = restarted(prior, prior.z + self.covariance(v[..., 0, :, :, :])), []
        for i, window in enumerate(windows):
            state = self.disturbed(state, v, i)
            found.append(state.z)
            _, state = trajectory(step, state, window.steps)
        return [*found, state.z]


def whitened(covariance: Covariance, dz: Tensor) -> Tensor:
    """v with ``B^{1/2} v = dz``, where B allows it."""
    if not bool(dz.abs().amax() > 0):
        return torch.zeros(*dz.shape[:-3], *covariance.shape, dtype=covariance.root.dtype, device=dz.device)
    root = covariance.root.permute(2, 3, 0, 1).double()
    inverse = torch.linalg.pinv(root, rtol=1e-8).permute(2, 3, 0, 1).to(torch.complex128)
    return covariance.grid.ifft(torch.einsum("ijkl,...jkl->...ikl", inverse, dz.to(torch.complex128)).to(dz.dtype))
