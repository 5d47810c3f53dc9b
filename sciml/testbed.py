"""The quasi-geostrophic satellite test bed: models, channels and instruments behind ``data/qg_satellite.nc``.

The truth is ``eddy`` (64 x 64 points, 1000 km) over a rough bottom. *perfect* is the model that made it; *imperfect*
has no topography, a larger deformation radius and half the bottom drag. Errors of this flow double only every 25 to 30
days, so that windows of five days with sparse observations are needed to tell methods apart.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciml.assim.base import Covariance, Space, covariance
from sciml.assim.network import Inputs, first_guess
from sciml.equation.layered import TwoLayerQG
from sciml.equation.presets import preset
from sciml.grid import Grid
from sciml.initial import random_field, random_pv
from sciml.instruments import Clouds, Instrument, both_sides, points, scan, simulate, swath, track
from sciml.observe import Channel, Operator, Quantity, Window, footprint, level, radiance, speed, ssh, velocity, windows
from sciml.rollout import rollout
from sciml.step import State, Step, rk4

DAY = 86400.0
DT = 28800.0
"""s; a third of a day"""
WINDOW = 15
"""steps of an assimilation window: five days"""
F0 = 1e-4
STD = (1600.0, 340.0)
"""m2 s-1: round values of the climatological standard deviation of psi in both layers"""
ROUGHNESS = 1e-6
"""s-1: standard deviation of ``f0 h / H2``"""
CHANNELS: tuple[dict[str, Any], ...] = (
    dict(name="ssh", kind="ssh", sigma=1.6e-3, units="m", f0=F0),
    dict(name="swath_ssh", kind="ssh", sigma=2.4e-3, units="m", f0=F0),
    dict(name="tb_upper", kind="radiance", sigma=0.5, units="K", weights=(1.0, 0.5), scale=3200.0, footprint=40e3),
    dict(name="tb_mixed", kind="radiance", sigma=0.5, units="K", weights=(0.6, 2.0), scale=3200.0, footprint=50e3),
    dict(name="tb_lower", kind="radiance", sigma=0.5, units="K", weights=(0.2, 4.0), scale=3200.0, footprint=60e3),
)
"""Noise is a tenth (swath: 0.15) of the standard deviation of the sea-surface height, 0.05 of a radiance's range."""


def model(kind: str = "perfect", **changes) -> TwoLayerQG:
    """The ``perfect`` or the ``imperfect`` model; ``changes`` are parameters or grid options of the preset."""
    if kind not in ("perfect", "imperfect"):
        raise ValueError(f"the model is 'perfect' or 'imperfect', got {kind!r}")
    if kind == "imperfect":
        return preset("eddy", 64, **({"rd": 16e3, "rek": 0.5 * 5.787e-7} | changes))  # type: ignore[return-value]
    flat = preset("eddy", 64, **changes)
    return preset("eddy", 64, **({"topography": topography(flat.grid)} | changes))  # type: ignore[return-value]


def topography(grid: Grid) -> Tensor:
    """``f0 h / H2`` [s-1] with wavelengths of about 200 km; always the same."""
    h = random_field(grid, lambda K: torch.exp(-((K * 60e3) ** 2) / 2), seed=12345)
    return h * (ROUGHNESS / h.std())


def states(eq: TwoLayerQG, q: Tensor) -> Tensor:
    """States of ``eq`` with the flow that the perfect model has for PV ``q`` on the grid [s-1].

    Observations see the flow; a model with another deformation radius has other PV for it.
    """
    true = model(device=eq.grid.device, dtype=eq.grid.dtype)
    z = true.init(eq.grid.real(q))
    same = torch.equal(eq.grid.real(eq.stretch), true.grid.real(true.stretch))
    return z if same else eq.pv(true.grid.ifft(true.psi(z)))


def stepper(eq: TwoLayerQG) -> Step:
    """The time step of the truth and of the assimilation."""
    return rk4(eq, DT)


def channel(grid: Grid, definition: dict[str, Any]) -> Channel:
    """A channel from its definition, as files carry it.

    Kinds: ``ssh`` (f0), ``level`` (lev), ``u``, ``v``, ``speed`` (lev), ``radiance`` (weights, scale); each may have a
    ``footprint`` [m].
    """
    if not isinstance(definition, dict) or not {"name", "kind", "sigma", "units"} <= definition.keys():
        raise ValueError(f"the definition of a channel needs name, kind, sigma and units, got {definition}")
    d = dict(definition)
    name, kind, sigma, units = (d.pop(key) for key in ("name", "kind", "sigma", "units"))
    radius = d.pop("footprint", 0.0)
    if not all(isinstance(a, str) for a in (name, kind, units)):
        raise ValueError(f"name, kind and units of a channel must be text, got {name!r}, {kind!r} and {units!r}")
    makers = {
        "ssh": ssh,
        "level": level,
        "u": lambda **p: velocity(grid, "u", **p),
        "v": lambda **p: velocity(grid, "v", **p),
        "speed": lambda **p: speed(grid, **p),
        "radiance": radiance,
    }
    if kind not in makers:
        raise ValueError(f"channel {name!r} is of the unknown kind {kind!r}; there are {', '.join(makers)}")
    try:
        quantity: Quantity = makers[kind](**d)
        return Channel(name, footprint(quantity, grid, radius) if radius else quantity, sigma, units)
    except (TypeError, ValueError) as error:
        raise ValueError(f"channel {name!r} of kind {kind} is not defined right: {error}") from None


def operator(eq: TwoLayerQG, definitions: Sequence[dict[str, Any]] = CHANNELS) -> Operator:
    """What these channels see of states of ``eq``. Raises ``ValueError`` for channels that it does not understand or
    whose layers the model does not have."""
    found = tuple(channel(eq.grid, d) for d in definitions)
    flow = eq.grid.real(torch.zeros(2, *eq.grid.shape))
    for c in found:
        try:
            c.quantity(flow)
        except (IndexError, TypeError, ValueError) as error:
            raise ValueError(f"channel {c.name!r} cannot be seen in this model: {error}") from None
    return Operator(eq.grid, lambda z: eq.grid.ifft(eq.psi(z)), found)


def operator_of(obs: xr.Dataset, eq: TwoLayerQG) -> Operator:
    """The operator that an observation file describes in its attribute ``channels``."""
    if "channels" not in obs.attrs:
        raise ValueError("the observations do not say what their channels measure: the attribute 'channels' is missing")
    try:
        definitions = json.loads(obs.attrs["channels"])
    except (TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"the attribute 'channels' of the observations is no list of channels: {error}") from None
    if not isinstance(definitions, list):
        raise ValueError("the attribute 'channels' of the observations is no list of channels")
    return operator(eq, definitions)


def shown(eq: TwoLayerQG) -> tuple[Space, dict[str, Callable[[Tensor], Tensor]], Operator]:
    """What a learned analysis corrects, the streamfunction, the fields that it is shown, and what channels measure."""

    def psi(z: Tensor) -> Tensor:
        return eq.grid.ifft(eq.psi(z))

    return Space(eq.grid, psi, eq.pv), {"psi": psi, "q": eq.read}, operator(eq)


def inputs(eq: TwoLayerQG, climate: Tensor, harmonics: int = 0, root: Tensor | None = None) -> Inputs:
    """For a network on this test bed, scaled by climatological states ``(samples, n, *modes)``; with the root of a
    background covariance it is shown a classical increment, too."""
    space, fields, H = shown(eq)
    std = {n: tuple(read(climate - climate.mean(0)).std((0, 2, 3)).tolist()) for n, read in fields.items()}
    channels, sigma = zip(*((c["name"], c["sigma"]) for c in CHANNELS), strict=True)
    found = Inputs(space, fields, std, channels, sigma, harmonics=harmonics, length=WINDOW * DT)
    return found if root is None else replace(found, first=first_guess(found, root, H, 4))


def network(H: Operator, rng: np.random.Generator | None = None) -> list[Instrument]:
    """Three altimeters, a wide swath and a three-channel radiometer that clouds hide; with ``rng`` on other orbits, at
    other times and with other clouds, for training."""
    grid, known = H.grid, {c.name: c for c in H.channels}
    days, place, cloudy = [3.33 + 0.23 * i for i in range(3)], [0.37 * i for i in range(3)], 0.3
    phases = [*(i + 0.3 for i in range(3)), 2.2, 1.7]
    if rng is not None:
        days, place, cloudy = rng.uniform(2.5, 5.0, 3), rng.uniform(0, 1, 3), rng.uniform(0.1, 0.6)
        phases = rng.uniform(0, 5, 5)
    altimeters = [
        Instrument(
            f"altimeter_{i + 1}",
            track(grid, days[i] * DAY, 15e3, 17 + 2 * i, 5, phase=phases[i] * DAY, x0=place[i] * grid.Lx),
            (known["ssh"],), correlated=0.3, correlation_time=60.0,
        )
        for i in range(3)
    ]  # fmt: skip
    across = both_sides(20e3, 120e3, 20e3)
    wide = swath(grid, 10 * DAY, 20e3, across, repeat=13, skip=4, phase=phases[3] * DAY)
    radiometer = scan(grid, 5 * DAY, 125e3, phase=phases[4] * DAY)
    return [
        *altimeters,
        Instrument("swath", wide, (known["swath_ssh"],), correlated=0.5, correlation_time=30.0),
        Instrument(
            "radiometer", radiometer, tuple(known[c] for c in ("tb_upper", "tb_mixed", "tb_lower")),
            drift=0.1, clouds=Clouds(cloudy, 200e3),
        ),
    ]  # fmt: skip


def spun_up(step: Step, seed: int, days: float, members: int | None = None) -> State:
    """State after ``days`` from random eddies, with its clock at zero."""
    state = step.init(random_pv(step.equation, seed=seed, members=members))  # type: ignore[arg-type]
    with torch.no_grad():
        for _ in range(round(days * DAY / step.dt)):
            state = step(state)
    return State(state.z)


# -- a small one -----------------------------------------------------------------------------------------------------
class Twin(NamedTuple):
    """A twin experiment: model, step, truth at the ends of windows, their observations, prior states."""

    eq: TwoLayerQG
    step: Step
    truth: Tensor
    """``(windows, n, *modes)``"""
    windows: list[Window]
    prior: Tensor
    """other random states ``(40, n, *modes)``, for ensembles and covariances"""

    @property
    def B(self) -> Covariance:
        """Of the prior."""
        return covariance(self.eq.grid, self.prior - self.prior.mean(0))

    @property
    def space(self) -> Space:
        return Space(self.eq.grid, self.psi, self.eq.pv)

    def psi(self, z: Tensor) -> Tensor:
        """Streamfunction on the grid."""
        return self.eq.grid.ifft(self.eq.psi(z))

    def error(self, z: Tensor) -> float:
        """Root mean square error of psi over the prior's standard deviation, at the last window's end."""
        return float((self.psi(z[-1] - self.truth[-1]).square().mean() / self.psi(self.prior).square().mean()).sqrt())


def twin(n: int = 2, nx: int = 16, seed: int = 0) -> Twin:
    """``eddy`` from random eddies; its surface height is seen at 100 places twice a day, in ``n`` windows of five days.

    It takes a second, for examples and tests; the test bed proper is ``data/qg_satellite.nc``.
    """
    eq: Any = preset("eddy", nx)
    step = stepper(eq)
    path = rollout(step, n * WINDOW, every=1, save=lambda state: state.z)(random_pv(eq, seed=seed)).fields
    height = Channel("ssh", ssh(F0), sigma=2e-3, units="m")
    rng = np.random.default_rng(seed)
    buoys = Instrument("buoys", points(*rng.uniform(0, eq.grid.Lx, (2, 100)), every=DAY / 2), (height,))
    H = Operator(eq.grid, lambda z: eq.grid.ifft(eq.psi(z)), (height,))
    seen = simulate(H, [buoys], path, 0.0, step.dt, seed)
    prior = eq.init(random_pv(eq, seed=seed + 1, members=40))
    return Twin(eq, step, path[WINDOW::WINDOW], windows(seen, H, 0.0, step.dt, WINDOW, n), prior)
