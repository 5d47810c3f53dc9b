"""The ladder of analyses of the two-layer test case, with the settings that were best on training truths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
import xarray as xr
from common import Refused
from torch import Tensor

import sciml as sm
from sciml import testbed
from sciml.assim import ensemble
from sciml.assim.base import Analysed
from sciml.assim.hybrid import Hybrid
from sciml.assim.local import LETKF
from sciml.assim.network import FuXiDA
from sciml.assim.optimal import OptimalInterpolation, ThreeDVar, free_run
from sciml.assim.variational import FourDVar
from sciml.observe import Window

if TYPE_CHECKING:
    from qg_assimilate import Options

DATA = Path(__file__).resolve().parents[1] / "data"
Method = Literal[
    "climatology",
    "persistence",
    "free",
    "oi",
    "3dvar",
    "enkf",
    "etkf",
    "enkfn",
    "letkf",
    "4dvar",
    "corr",
    "fuxida",
    "hybrid",
    "fuxida4dvar",
]  # fmt: skip
WEIGHTS = {"perfect": DATA / "weights" / "fuxida_qg.safetensors",
           "imperfect": DATA / "weights" / "fuxida_qg_imperfect.safetensors"}  # fmt: skip
CORR = {m: p.with_name(p.name.replace("_qg", "_qg_corr")) for m, p in WEIGHTS.items()}
"""of the network that sees no observations"""
LEARNED = ("fuxida", "hybrid", "fuxida4dvar")
"""Methods with a network"""
READ_BY = {
    "members": ("enkf", "etkf", "enkfn", "letkf"),
    "radius": ("letkf", "hybrid"),
    "inflation": ("enkf", "etkf", "letkf", "hybrid"),
    "adaptive": ("letkf",),
    "hybrid_members": ("hybrid",),
    "network_weight": ("hybrid", "fuxida4dvar"),
    "lag": ("4dvar", "fuxida4dvar"),
    "model_error": ("4dvar", "fuxida4dvar"),
    "iterations": ("4dvar", "fuxida4dvar"),
    "weights": LEARNED,
}
"""Which methods read an option"""
TUNED: dict[str, dict[str, dict[str, Any]]] = {
    "perfect": {
        "": dict(radius=35e3, inflation=1.025, lag=4, model_error=0.0, iterations=10),
        "hybrid": dict(radius=25e3, inflation=1.06, network_weight=0.5),
        "fuxida4dvar": dict(lag=2, iterations=4, network_weight=0.5),
    },
    "imperfect": {
        "": dict(radius=30e3, inflation=1.1, lag=2, model_error=0.3, iterations=10),
        "hybrid": dict(radius=25e3, inflation=1.05, network_weight=0.7),
        "fuxida4dvar": dict(lag=2, iterations=4, network_weight=0.5),
    },
}
"""Chosen on training truths, for 40 members, the hybrid's 12 and fuxida4dvar: bench/assimilation_tuning.py."""
WIDER = 1.5
"""Errors of fuxida4dvar over those of 4dvar, which ``analysed`` is the covariance of."""


class Setting(NamedTuple):
    """What all methods share."""

    eq: sm.TwoLayerQG
    step: sm.Step
    windows: list[Window]
    background: sm.Covariance
    """of the errors of backgrounds of oi"""
    analysed: sm.Covariance
    """of the errors of analyses of 4dvar"""
    climate: Tensor
    """snapshots ``(samples, n, *modes)``"""
    truth: Tensor | None
    """at the ends of the windows, ``(windows, n, *modes)``"""
    obs: xr.Dataset
    """all observations, with their flags"""

    def psi(self, z: Tensor) -> Tensor:
        """Streamfunction on the grid."""
        return self.eq.grid.ifft(self.eq.psi(z))

    @property
    def length(self) -> float:
        """Seconds of a window."""
        return testbed.WINDOW * self.step.dt


def constant(z: Tensor, background, window: Window, step, memory=None) -> Analysed:
    """Always the same state, whatever is observed."""
    state = background._replace(z=z, time=window.start + window.steps * window.dt)
    return Analysed(state, state, window.equivalents(z.expand(window.steps + 1, *z.shape)))


def build(o: Options, s: Setting) -> dict[str, tuple[Callable[..., Analysed], sm.State]]:
    """Analysis and first state of every method."""
    grid, eq = s.eq.grid, s.eq
    one = sm.State(s.climate.mean(0))
    generator = torch.Generator().manual_seed(o.seed)
    order = torch.randperm(len(s.climate), generator=generator)
    for name in ("members", "hybrid_members"):
        if getattr(o, name) > len(order):
            option = f"--{name.replace('_', '-')} {getattr(o, name)}"
            raise Refused(f"{option}: the climatology has {len(order)} snapshots to start from")
    many = sm.State(s.climate[order[: o.members]])
    space = sm.Space(grid, s.psi, eq.pv)
    inflation = o.tuned("inflation")
    steady = 1.0 if o.adaptive and o.inflation is None else inflation
    local = LETKF(space, o.tuned("radius"), steady, adaptive=o.adaptive, every=2, seed=o.seed)
    learned = {}
    if o.method in ("corr", "all"):
        learned["corr"] = (network(CORR[o.model], s.eq, o.model, blind=True), one)
    if o.method in (*LEARNED, "all"):
        net, own = network(o.weights or WEIGHTS[o.model], s.eq, o.model, blind=False), replace(o, method="hybrid")
        few = LETKF(space, own.tuned("radius"), own.tuned("inflation"), every=2, seed=o.seed)
        start = sm.State(s.climate[order[: o.hybrid_members]])
        learned |= {"fuxida": (net, one), "hybrid": (Hybrid(few, net, own.tuned("network_weight")), start)}
        own = replace(o, method="fuxida4dvar")
        four = four_d_var(own, s.analysed.scaled(WIDER))
        learned["fuxida4dvar"] = Hybrid(four, net, own.tuned("network_weight")), one
    return learned | {
        "climatology": (partial(constant, one.z), one),
        "persistence": (partial(constant, s.climate[order[0]]), one),
        "free": (free_run, sm.State(s.climate[order[0]])),
        "oi": (OptimalInterpolation(s.background, tolerance=1e-3), one),
        "3dvar": (ThreeDVar(s.background, tolerance=1e-2), one),
        "enkf": (ensemble.EnKF(ensemble.perturbed_observations, inflation, seed=o.seed), many),
        "etkf": (ensemble.EnKF(ensemble.square_root, inflation, rotate=True, seed=o.seed), many),
        "enkfn": (ensemble.EnKF(ensemble.finite_size(), rotate=True, seed=o.seed), many),
        "letkf": (local, many),
        "4dvar": (four_d_var(o, s.analysed), one),
    }


def four_d_var(o: Options, errors: sm.Covariance) -> FourDVar:
    """As tuned, with the covariance of the errors at the start of the assimilated windows."""
    return FourDVar(errors, o.tuned("lag"), outer=1, inner=o.tuned("iterations"), model_error=o.tuned("model_error"))


def network(path: Path, eq: sm.TwoLayerQG, model: str | None = None, blind: bool | None = None) -> FuXiDA:
    """The learned analysis of a file, trained for ``model``, one that is ``blind`` to observations or is not (None: of
    any kind)."""
    if not path.exists():
        raise Refused(f"no weights at {path}; make them with: python cases/qg_fuxi_da.py --train")
    found = FuXiDA.load(path, *testbed.shown(eq))
    if model is not None and (of := found.about.get("model", model)) != model:
        raise Refused(f"{path} was trained for the {of} model: use it with --model {of}")
    if blind is not None and blind == found.net.sees:
        raise Refused(f"{path} is of a network that sees {'observations' if blind else 'no observations, CORR'}: "
                      f"give it with --{'weights' if blind else 'corr-weights'}")  # fmt: skip
    return found
