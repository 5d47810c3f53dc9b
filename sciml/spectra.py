"""Spectra and spectral budgets of quasi-geostrophic flow, from a running model or from a Dataset.

Every spectrum is a density over the isotropic angular wavenumber k: its sum times the bin width is the domain mean of
the quantity (Parseval), with kinetic energy ``1/2 |u|^2``, enstrophy ``1/2 q^2`` and available potential energy
``-1/2 sum_i (H_i/H) psi_i (S psi)_i``. Energy terms are positive where they feed the eddies at k.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciml.data import coordinates, dimensionless, member_coordinate, model_attributes
from sciml.data import from_dataset as fields_at
from sciml.equation.base import Term, apply
from sciml.equation.expression import Field, J, lap
from sciml.equation.qg import QuasiGeostrophic
from sciml.grid import Grid, seconds
from sciml.record import Means

DESCRIPTIONS = {
    "KEspec": ("m3 s-2", "eddy kinetic energy spectrum of the layer"),
    "Ensspec": ("m s-2", "enstrophy spectrum of the layer, 1/2 q^2"),
    "APEspec": ("m3 s-2", "available potential energy spectrum"),
    "KEflux": ("m3 s-3", "transfer of energy to k by advection of relative vorticity"),
    "APEflux": ("m3 s-3", "transfer of energy to k by advection of stretching vorticity"),
    "APEgenspec": ("m3 s-3", "generation of eddy energy from the mean flow"),
    "KEfrictionspec": ("m3 s-3", "energy change by bottom drag"),
    "filter": ("m3 s-3", "energy change by small-scale dissipation (filter, viscosity)"),
    "residual": ("m3 s-3", "mean change of energy less all terms of the budget"),
    "EKE": ("m2 s-2", "eddy kinetic energy of the layer, domain mean"),
    "APEgen": ("m2 s-3", "generation of eddy energy from the mean flow, domain mean"),
    "EKEdiss": ("m2 s-3", "energy lost to bottom drag, domain mean"),
}
"""Units and long names; budget terms not listed here are named as the equation names them."""

NO_BUDGET = ("KEspec", "Ensspec", "APEspec", "EKE", "APEgen", "EKEdiss", "residual")
BUDGET = {
    "mean_advection": "APEgenspec",
    "pv_gradient": "APEgenspec",
    "drag": "KEfrictionspec",
    "viscosity": "filter",
}
"""Where a term of the equation goes in the budget; advection is split in two, others keep their names."""

Values = Mapping[str, Tensor]


def isotropic(grid: Grid, density: Tensor) -> tuple[Tensor, Tensor]:
    """Sum ``(..., *grid.modes)`` over rings of the larger wavenumber spacing: ``k`` (rad/m) and densities ``(..., k)``.

    ``density`` counts every wavevector (see :attr:`Grid.weight`); ``spectrum.sum() * k[1] == density.sum()``.

    Examples
    --------
    >>> grid = sm.Grid(32, 32, Lx=1.0, Ly=1.0)
    >>> f = torch.randn(32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> fh = grid.fft(f)
    >>> k, spectrum = sm.spectra.isotropic(grid, grid.weight * fh.abs() ** 2)
    >>> bool(abs(spectrum.sum() * k[1] - grid.ifft(fh).square().mean()) < 1e-12)
    True
    """
    dk = 2 * math.pi / min(grid.Lx if grid.nx > 1 else math.inf, grid.Ly if grid.ny > 1 else math.inf)
    ring = (grid.K2.sqrt() / dk).round().long().flatten()
    n = int(ring.max()) + 1
    out = torch.zeros(*density.shape[:-2], n, dtype=torch.float64, device=density.device)
    out.index_add_(-1, ring, density.flatten(-2).double())
    return dk * torch.arange(n, dtype=torch.float64), out / dk


def energy_budget(eq: QuasiGeostrophic, z: Tensor, dt: float | None = None, t: float = 0.0) -> dict[str, Tensor]:
    """Rate of change of energy per stored wavevector by every process, ``(..., *modes)``, named as in the files.

    The filter acts once a step, so that its rate needs ``dt``: it is the energy that it takes from the state one
    Euler step ahead. White noise feeds energy at the rate its ``input`` states, on average.
    """
    out: dict[str, Tensor] = {}

    def add(name: str, dz: Tensor) -> None:
        rate = eq.energy_spectrum(z, dz)
        out[name] = out[name] + rate if name in out else rate

    layers = range(1, eq.n + 1)
    relative = [Term(f"q{i}", "KEflux", -J(Field(f"psi{i}"), lap(Field(f"psi{i}")))) for i in layers]
    stretching = [
        Term(f"q{i}", "APEflux", -J(Field(f"psi{i}"), Field(f"q{i}") - lap(Field(f"psi{i}")))) for i in layers
    ]
    add("KEflux", eq.evaluate(z, relative))
    add("APEflux", eq.evaluate(z, stretching))
    for name, dz in eq.by_term(z, t).items():
        if name != "advection":
            add(BUDGET.get(name, name), dz)
    if eq.filter is not None and dt is not None:
        ahead = z + dt * eq.tendency(z, t)
        kept = eq.filter**2 - 1
        rate = kept * eq.energy_spectrum(ahead, ahead) / (2 * dt)
        out["filter"] = out.get("filter", 0) + rate
    if eq.noise is not None and hasattr(eq.noise, "input"):
        out["forcing"] = eq.noise.input.expand(z.shape[:-3] + eq.grid.modes)
    return out


def diagnostics(eq: QuasiGeostrophic, z: Tensor, dt: float | None = None, t: float = 0.0) -> dict[str, Tensor]:
    """All spectra, budget terms and scalars of a state, float64; spectra have a last axis over k.

    ``dt`` is needed for the rate at which a filter takes energy, ``t`` for terms that depend on time.
    """
    weight, h = eq.grid.weight, eq.fraction
    psi = eq.psi(z)
    kinetic = kinetic_energy(eq, psi)
    stretching = apply(eq.S[:, :, None, None], psi)
    potential = -0.5 * weight * (h[:, None, None] * (psi.conj() * stretching).real).sum(-3)
    budget = energy_budget(eq, z, dt, t)
    densities = {
        "KEspec": kinetic,
        "Ensspec": 0.5 * weight * z.abs().double() ** 2,
        "APEspec": potential,
        **budget,
    }
    out = {name: isotropic(eq.grid, d)[1] for name, d in densities.items()}
    none = torch.zeros(z.shape[:-3], dtype=torch.float64, device=z.device)
    out["EKE"] = kinetic.sum((-2, -1))
    out["APEgen"] = budget["APEgenspec"].double().sum((-2, -1))
    out["EKEdiss"] = -budget["KEfrictionspec"].double().sum((-2, -1)) if "KEfrictionspec" in budget else none
    return out


def budget_names(names) -> list[str]:
    """Those of the names that are terms of the energy budget."""
    return [n for n in names if n not in NO_BUDGET]


def residual(eq: QuasiGeostrophic, mean: Values, first: Values, last: Values, elapsed: float) -> Tensor:
    """Change of the energy spectrum over ``elapsed`` seconds, less the mean of all budget terms."""
    change = (energy_spectrum(eq, last) - energy_spectrum(eq, first)) / elapsed
    return change - sum(mean[n] for n in budget_names(mean))


def kinetic_energy(eq: QuasiGeostrophic, psi: Tensor) -> Tensor:
    """Of each stored wavevector of each layer, ``(..., n, *modes)``; its sum is the domain mean."""
    slopes = eq.grid.ik.abs() ** 2 + eq.grid.il.abs() ** 2  # K2, but for the Nyquist modes of aliased grids
    return 0.5 * eq.grid.weight * slopes * psi.abs().double() ** 2


def energy_spectrum(eq: QuasiGeostrophic, d: Values) -> Tensor:
    """Total energy spectrum from the values that :func:`diagnostics` returns."""
    return (eq.fraction[:, None] * d["KEspec"]).sum(-2) + d["APEspec"]


def dataset(eq: QuasiGeostrophic, values: Values) -> xr.Dataset:
    """CF Dataset of the values that :func:`diagnostics` returns, or of their means."""
    k = isotropic(eq.grid, torch.zeros(eq.grid.modes))[0].numpy()
    per_layer = ("KEspec", "Ensspec", "EKE")
    out = {}
    for name, v in values.items():
        tail = (("lev",) if name in per_layer else ()) + (("k",) if v.ndim and v.shape[-1] == len(k) else ())
        members = v.ndim - len(tail)
        units, text = DESCRIPTIONS.get(name, ("m3 s-3", f"energy change by {name}"))
        out[name] = (("member",) * members + tail, v.cpu().numpy(), {"units": units, "long_name": text})
    k_attrs = {"units": "rad m-1", "long_name": "isotropic angular wavenumber", "spacing": float(k[1])}
    coords = {"k": ("k", k, k_attrs), "lev": coordinates(eq)["lev"]}
    if any("member" in dims for dims, *_ in out.values()):
        coords["member"] = member_coordinate(values["APEgen"].shape[0])
    ds = xr.Dataset(out, coords, {"Conventions": "CF-1.11", **model_attributes(eq)})
    return dimensionless(ds) if eq.nondimensional else ds


def from_dataset(ds: xr.Dataset, eq: QuasiGeostrophic, dt: float | None = None) -> xr.Dataset:
    """Time-mean spectra and budget of the variable ``q (..., time, lev, y, x)`` of a Dataset, with its residual.

    ``dt`` is the time step of the run, needed for the energy that a filter takes. Raises ``ValueError`` where the
    Dataset is not on the model's grid.
    """
    if "q" not in ds or 0 in ds["q"].shape:
        raise ValueError("the Dataset has no values of 'q', the potential vorticity, as to_dataset writes it")
    if not bool(np.isfinite(ds["q"]).all()):
        raise ValueError("'q' is not finite everywhere; select the times before that, or fill the gaps")
    if dt is not None and not dt > 0:
        raise ValueError(f"dt must be positive, got {dt}")
    if eq.filter is not None and dt is None:
        warnings.warn("without dt the budget lacks the energy that the filter takes", stacklevel=2)
    ds = ds if "time" in ds["q"].dims else ds.expand_dims("time")
    times = seconds(ds) if "time" in ds.coords else np.zeros(ds.sizes["time"])
    means = Means()
    for i, t in enumerate(times):
        means = means.plus(diagnostics(eq, eq.init(fields_at(ds, eq, i)), dt, float(t)))
    values = means.mean()
    if len(times) > 1 and times[-1] > times[0]:
        values["residual"] = residual(eq, values, means.first, means.last, times[-1] - times[0])
    return dataset(eq, values)
