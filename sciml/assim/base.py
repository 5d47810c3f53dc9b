"""What analyses share: the result, the space in which they localise, trajectories, background covariances.

An *analysis* is a function ``(background, window, step, memory) -> Analysed``. Its background is a state (or an
ensemble of states in the leading axis) at the start of the window; it runs the model over the window itself, since
observations have times of their own, and returns states at the end of the window. ``memory`` is what it wants to be
given back in the next cycle (None at first).

Some have a method ``companions(window, result, states, equivalents, memory) -> (analyses, memory)``: what the same
observations make of other trajectories, which shows how analyses change with the model (``discover/innovations.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from sciml.grid import Grid
from sciml.observe import Window
from sciml.step import State, Step


class Analysed(NamedTuple):
    """What an analysis makes of a window; ensembles have their members in the leading axis."""

    state: State
    """analysis at the end of the window"""
    background: State
    """forecast to the end of the window from the background, without these observations"""
    background_equivalents: Tensor
    """``([member,] observations)``"""
    memory: Any = None
    info: dict[str, float] | None = None
    analysis_equivalents: Tensor | None = None
    """``(observations)``, of the analysed trajectory (of the mean, for ensembles), NaN without one; None: as the
    background's"""
    spread: Tensor | None = None
    """``(lev, y, x)``: the standard deviation of the error of the analysis that a method states which has one state"""


Analysis = Callable[..., Analysed]


class WithCompanions(Protocol):
    """An analysis that also analyses other trajectories beside its own."""

    def __call__(self, background: State, window: Window, step: Step, memory: Any = None) -> Analysed: ...

    def companions(
        self, window: Window, result: Analysed, states: Tensor, equivalents: Tensor, memory: Any = None
    ) -> tuple[Tensor, Any]: ...


@dataclass(frozen=True)
class Space:
    """States as real fields ``(..., lev, y, x)`` on a grid and back: where a localised analysis works.

    Examples
    --------
    >>> eq = sm.preset("eddy", nx=16)
    >>> space = sm.Space(eq.grid, lambda z: eq.grid.ifft(eq.psi(z)), eq.pv)
    >>> z = eq.init(sm.random_pv(eq, seed=0))
    >>> bool(torch.allclose(space.write(space.read(z)), z))
    True
    """

    grid: Grid
    read: Callable[[Tensor], Tensor]
    write: Callable[[Tensor], Tensor]


def trajectory(step: Step, state: State, n: int) -> tuple[Tensor, State]:
    """All states ``(n + 1, ...)`` of ``n`` steps, and the last one as a state."""
    kept = [state.z]
    for _ in range(n):
        state = step(state)
        kept.append(state.z)
    return torch.stack(kept), state


def forecast(step: Step, background: State, window: Window) -> tuple[Tensor, State, Tensor]:
    """Trajectory through the window, its end, and the equivalents of the observations, without gradients."""
    with torch.no_grad():
        states, end = trajectory(step, background, window.steps)
        return states, end, window.equivalents(states)


def single(background: State) -> State:
    """The background of a method that has one state; raises ``ValueError`` for an ensemble."""
    if background.z.ndim != 3:
        raise ValueError(
            f"this analysis takes one state, (n, *modes), not an ensemble of shape {tuple(background.z.shape)}; "
            "give it the mean, or each member on its own"
        )
    return background


def batch_axes(background: State) -> int:
    """0 for a state, 1 for a batch of states in the leading axis; raises ``ValueError`` for anything else."""
    if background.z.ndim not in (3, 4):
        raise ValueError(
            f"this analysis takes a state, (n, *modes), or several, (state, n, *modes), not {tuple(background.z.shape)}"
        )
    return background.z.ndim - 3


def restarted(state: State, z: Tensor) -> State:
    """The state with other fields; tendencies remembered by multi-step methods do not belong to them."""
    return state._replace(z=z, memory=())


def mean_of(state: State) -> State:
    """The ensemble mean."""
    return state._replace(z=state.z.mean(0), memory=())


# -- background covariances ------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Covariance:
    r"""A covariance that is diagonal in wavevectors and full between layers: ``B = U U^T`` with ``z = U v``.

    ``U v = L(k, l) fft(v)`` for white noise ``v (..., n, ny, nx)`` on the grid, so that ``L L^T = nx ny E[z z^H]``.

    Examples
    --------
    >>> grid = sm.Grid(16)
    >>> B = sm.Covariance(grid, torch.eye(2, dtype=torch.float64)[..., None, None] * torch.exp(-grid.K2 / 8))
    >>> v = torch.randn(100, *B.shape, dtype=torch.float64)
    >>> grid.ifft(B(v)).shape  # samples of correlated fields
    torch.Size([100, 2, 16, 16])
    """

    grid: Grid
    root: Tensor
    """L, real, ``(n, n, *modes)``"""

    def __call__(self, v: Tensor) -> Tensor:
        """Coefficients ``(..., n, *modes)`` of the control variable."""
        return torch.einsum("ijkl,...jkl->...ikl", self.root.to(self.grid.cdtype), self.grid.fft(v))

    def scaled(self, amplitude: float) -> Covariance:
        """With ``amplitude`` times the standard deviations."""
        return Covariance(self.grid, self.root * amplitude)

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.root.shape[0], *self.grid.shape)


def covariance(grid: Grid, samples: Tensor, isotropic: bool = True) -> Covariance:
    """Covariance of coefficients ``(samples, [members,] n, *modes)`` about zero; averaged over rings of wavenumber
    if ``isotropic``, as homogeneous and isotropic statistics of layers that are in balance with one another."""
    if samples.ndim < 4 or samples.shape[-2:] != grid.modes or not len(samples):
        modes = ", ".join(map(str, grid.modes))
        raise ValueError(f"samples are states (samples, n, {modes}) of this grid, got {tuple(samples.shape)}")
    if not bool(torch.isfinite(samples.abs().sum())):
        raise ValueError("some samples are not finite")
    samples = samples.to(torch.complex128).flatten(0, -4)
    C = torch.einsum("sikl,sjkl->ijkl", samples, samples.conj()).real / samples.shape[0]
    if isotropic:
        ring = (grid.K2.sqrt() / min(2 * torch.pi / grid.Lx, 2 * torch.pi / grid.Ly)).round().long().flatten()
        weight = grid.weight.expand(grid.modes).flatten()
        total = torch.zeros(*C.shape[:2], int(ring.max()) + 1, dtype=C.dtype, device=C.device)
        total.index_add_(2, ring, C.flatten(2) * weight)
        count = torch.zeros(total.shape[2], dtype=C.dtype, device=C.device).index_add_(0, ring, weight)
        C = (total / count)[:, :, ring].reshape(C.shape)
    matrices = C.permute(2, 3, 0, 1) * grid.nx * grid.ny
    values, vectors = torch.linalg.eigh((matrices + matrices.mT) / 2)
    root = vectors * values.clamp(min=0).sqrt()[..., None, :]
    return Covariance(grid, grid.real(root.permute(2, 3, 0, 1)))


def innovations(window: Window, equivalents: Tensor) -> Tensor:
    """Observed minus expected, in units of the observation error."""
    return (window.value - equivalents) / window.sigma
