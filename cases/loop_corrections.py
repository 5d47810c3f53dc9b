"""Other ways than MEDIDA's to correct the model of the closed loop or to read its equation, and climates of models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from loop_world import ALONE, World, cycled
from torch import Tensor, nn

import sciml as sm
from sciml import testbed
from sciml.assim.cycle import Record
from sciml.discover.medida import low_pass
from sciml.equation.expression import Expr
from sciml.prose.flow_fit import RefinedFlow
from sciml.prose.flow_search import search_terms
from sciml.prose.flows import written_member
from sciml.spectra import kinetic_energy
from sciml.train import fit

if TYPE_CHECKING:
    from closed_loop import Options

CUT = 1e-4
"""rad/m; the network's tendency is smooth above it: increments hold little there but noise"""
EVERY = 3
"""steps of the model, a day, after which the network's tendency is added"""
SETTLED = 3
"""windows in which a cycle forgets its start"""


# -- a neural corrector ----------------------------------------------------------------------------------------------
class Corrector(NamedTuple):
    """A network's tendency of PV [s-1] of states, from psi, q and the bottom."""

    net: nn.Module
    scale: Tensor
    """of its inputs, ``(channels, 1, 1)``"""
    size: Tensor
    """of its outputs, ``(n, 1, 1)``"""
    w: World

    def shown(self, z: Tensor) -> Tensor:
        """Inputs ``(batch, channels, ny, nx)``."""
        grid = self.w.truth.grid
        bottom = self.w.truth.fixed["eta"].expand(*z.shape[:-3], 1, *grid.modes)
        return (grid.ifft(torch.cat([self.w.truth.psi(z), z, bottom], -3)) / self.scale).float()

    def tendency(self, z: Tensor) -> Tensor:
        """``(..., n, *modes)``."""
        grid = self.w.truth.grid
        with torch.no_grad():
            out = self.net(self.shown(z).reshape(-1, len(self.scale), *grid.shape)).to(grid.dtype)
        return low_pass(self.w.model, CUT) * grid.fft((out * self.size).reshape(*z.shape[:-2], *grid.shape))

    def step(self, eq: sm.Equation) -> sm.Step:
        """A step of the model, and once a day one of the network's tendency."""
        own = testbed.stepper(eq)  # type: ignore[arg-type]

        def advance(z: Tensor, t: float, memory):
            z, memory = own.advance(z, t, memory)
            return (z if round(t / own.dt) % EVERY else z + EVERY * own.dt * self.tendency(z)), memory

        return replace(own, advance=advance)


def learned(o: Options, w: World, updates: int, rounds: int) -> Corrector:
    """A multigrid network trained on the increments of the cycle that MEDIDA reads, again with the network in the model
    for each further round (Farchi et al. 2021, QJRMS 147, 3067, train offline on increments like this)."""
    found: Corrector | None = None
    for _ in range(rounds):
        step = testbed.stepper(w.model) if found is None else found.step(w.model)  # type: ignore[arg-type]
        before, after, rate = increments(w, cycled(o, w, step, o.method, late=False))
        if found is not None:
            rate = rate + 0.5 * (found.tendency(before) + found.tendency(after))
        found = trained(o, w, before, after, rate, updates)
    assert found is not None
    return found


def increments(w: World, record: Record) -> tuple[Tensor, Tensor, Tensor]:
    """Analyses at both ends of windows, and their increments as low-passed rates ``(windows, n, *modes)``; the first
    windows, in which a cycle forgets its start, do not count."""
    before, after = record.analysis[SETTLED:-1], record.analysis[SETTLED + 1 :]
    rate = (after - record.background[SETTLED + 1 :]) / (testbed.WINDOW * testbed.DT)
    return before, after, low_pass(w.model, CUT) * rate


def held(w: World, record: Record) -> list[float]:
    """Correlation of the increments with what the model lacks, by layer: what a network could learn from them."""
    before, after, rate = increments(w, record)
    lacking = 0.5 * sum(w.truth.tendency(z) - w.model.tendency(z) for z in (before, after))
    a, b = (w.truth.grid.ifft(low_pass(w.model, CUT) * f) for f in (rate, lacking))
    product, sizes = (a * b).mean((0, 2, 3)), a.square().mean((0, 2, 3)) * b.square().mean((0, 2, 3))
    return (product / sizes.sqrt().clamp(min=1e-300)).tolist()


def trained(o: Options, w: World, before: Tensor, after: Tensor, rate: Tensor, updates: int) -> Corrector:
    """Fit the means of tendencies at both ends of windows to rates ``(windows, n, *modes)``."""
    grid, kept = w.truth.grid, len(rate) * 4 // 5
    fields = grid.ifft(torch.cat([w.truth.psi(w.climate), w.climate], -3))
    bottom = grid.ifft(w.truth.fixed["eta"]).std()[None, None, None]
    scale = torch.cat([fields.std((0, 2, 3), keepdim=True)[0], bottom])
    wanted = grid.ifft(rate)
    size = wanted.std((0, 2, 3))[:, None, None]
    target = (wanted / size).float()
    torch.manual_seed(o.seed)
    net = sm.MgNO(len(scale), len(size), width=16, layers=2, smoothings=((1, 1),) * 3)
    nn.init.zeros_(net.head.weight)  # an untrained network leaves the model as it is
    own, rng = Corrector(net, scale, size, w), torch.Generator().manual_seed(o.seed)
    inputs = own.shown(before), own.shown(after)

    def loss(i: Tensor) -> Tensor:
        return ((0.5 * (net(inputs[0][i]) + net(inputs[1][i])) - target[i]) ** 2).mean()

    def held_out() -> tuple[float, dict[str, Tensor]]:
        with torch.no_grad():
            state = {n: p.clone() for n, p in net.state_dict().items()}
            return float(loss(torch.arange(kept, len(target)))), state

    tried = [held_out()]
    fit(net, lambda n: loss(torch.randint(kept, (4,), generator=rng)), updates, warm_up=updates // 10,  # type: ignore[arg-type]
        every=max(1, updates // 8), log=lambda n, _: tried.append(held_out()))  # fmt: skip
    net.load_state_dict(min(tried, key=lambda t: t[0])[1])
    return own


# -- PROSE -----------------------------------------------------------------------------------------------------------
def read(w: World, analyses: Tensor) -> RefinedFlow:
    """PROSE's fit of an equation to maps of psi ``(windows, n, *modes)``, from the model's own as the guess; a length
    of 1 is the box over 2 pi, a time of 1 is a day."""
    eq, length = w.truth, w.truth.grid.Lx / (2 * np.pi)
    day, stretch = testbed.DAY, w.truth.grid.real(w.truth.stretch)
    eta = eq.grid.ifft(eq.fixed["eta"])
    values = {
        "F1": float(stretch[0, 1].max()) * length**2, "F2": float(stretch[1, 0].max()) * length**2,
        "beta": float(eq.beta) * length * day, "U": float(eq.U1) * day / length,
        "r": float(w.model.rek) * day, "nu4": 1e-6,  # type: ignore[attr-defined]
    }  # fmt: skip
    terms = {"radius", "beta", "shear", "drag", "hyperviscosity"}
    guess: tuple[Expr, ...] = written_member("two_layer", 2, terms, values).expressions
    maps = w.psi(analyses) * day / length**2
    return search_terms(guess, maps, eta / eta.std(), every=testbed.WINDOW * testbed.DT / day, steps_per_day=6)[1]


# -- climates --------------------------------------------------------------------------------------------------------
class Climate(NamedTuple):
    """Of a free run: eddy kinetic energy by layer [m2 s-2], its spectrum ``(lev, k)`` and the wavenumbers."""

    energy: np.ndarray
    spectrum: np.ndarray
    k: np.ndarray


def climate(w: World, step: sm.Step, days: float, members: int = 2, start: int = 0) -> Climate | None:
    """Means over the later half of runs from snapshots; None where they blow up."""
    n, every = round(days * testbed.DAY / step.dt), testbed.WINDOW
    chosen = torch.linspace(start, ALONE - 1 - members + start, members).long()
    grid, found = w.truth.grid, []

    def keep(state: sm.State) -> Tensor:
        return kinetic_energy(w.truth, w.truth.psi(state.z)).mean(0)

    try:
        run = sm.rollout(step, n // every * every, every=every, save=keep)
        energy = run(sm.State(w.climate[chosen])).fields[n // every // 2 :].mean(0)
    except sm.BlowUp:
        return None
    k, found = sm.spectra.isotropic(grid, energy)
    return Climate(energy.sum((-2, -1)).numpy(), found.numpy(), k.numpy())


def distance(one: Climate | None, truth: Climate) -> dict[str, float]:
    """Of two climates in per cent: energies by layer, spectrum weighted by energy."""
    if one is None:
        return {"EKE 1 (%)": np.inf, "EKE 2 (%)": np.inf, "spectrum (%)": np.inf}
    energy = 100 * (one.energy / truth.energy - 1)
    spectrum = 100 * np.abs(one.spectrum - truth.spectrum).sum() / truth.spectrum.sum()
    return {"EKE 1 (%)": float(energy[0]), "EKE 2 (%)": float(energy[1]), "spectrum (%)": float(spectrum)}


Stepper = Callable[[sm.Equation], sm.Step]
