"""Flows in two layers, and models of them that lack something: MEDIDA's published cases, and more on ``eddy``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sciml.equation.base import Term
from sciml.equation.presets import preset
from sciml.equation.qg import QuasiGeostrophic
from sciml.initial import random_field


class System(NamedTuple):
    """A truth, a model of it, and scales in the units of the model."""

    truth: QuasiGeostrophic
    model: QuasiGeostrophic
    dt: float
    spin_up: float
    """time to the first sample"""
    apart: float
    """time between samples"""
    cut: float
    """wavenumber up to which noise and gaps leave something to be seen"""


Changes = tuple[Mapping[str, Any], tuple[Term, ...]]
"""of the model's parameters, and terms that it has instead"""


def slower(part: float) -> tuple[Term, ...]:
    """Takes a part of the advection of PV away."""
    return tuple(Term(f"q{i}", "slower", f"{part}*J(psi{i}, q{i})") for i in (1, 2))  # type: ignore[arg-type]


JET: Mapping[str, Changes] = {
    "1": (dict(relax=0.11, relax_jet=0.11), ()),
    "2": (dict(relax=0.11, relax_jet=0.11, rek=0.37), ()),
    "3": (dict(relax=0.0, relax_jet=0.0), ()),
    "4": ({}, slower(0.5)),
    "5": (dict(relax=0.11, relax_jet=0.11, rek=0.37), slower(1.0)),
    "6": (dict(rek=0.37), ()),
    "7": (dict(rek=0.0), ()),
    "8": (dict(relax_jet=0.0), ()),
    "9": (dict(beta=0.0), ()),
}
"""1001 to 1009 of the released code of MEDIDA-QG, JAMES 16(3), e2023MS004033."""

EDDY: Mapping[str, Changes] = {
    "drag": (dict(rek=0.5 * 5.787e-7), ()),
    "no_drag": (dict(rek=0.0), ()),
    "beta": (dict(beta=0.0), ()),
    "shear": (dict(U1=0.02), ()),
    "advection": ({}, slower(0.5)),
    "topography": ({}, (Term("q2", "flat", "J(psi2, eta)"),)),  # type: ignore[arg-type]
}
"""For ``eddy`` over a rough bottom. A model without topography has a term that takes it away, so that the library can
name the field."""


def jet(case: str, nx: int = 96) -> System:
    """Nondimensional, 46 by 68, on ``nx`` by ``2 nx`` points."""
    return System(*lacking("relaxation_jet", nx, {}, JET[case]), 2.4 / nx, 250.0, 10.0, 1.5)


def eddy(case: str, nx: int = 64) -> System:
    """SI units. Products are free of aliasing, and hyperviscosity stands in for the preset's filter, which acts once a
    step and so makes models of different steps different."""
    common = dict(dealias=1.5, topography=rough(nx), filterfac=0.0, nu=5e-5 / (math.pi * nx / 1e6) ** 8)
    return System(*lacking("eddy", nx, common, EDDY[case]), 7200.0, 3600 * 86400.0, 50 * 86400.0, 8e-5)


def lacking(
    name: str, nx: int, common: Mapping[str, Any], changes: Changes
) -> tuple[QuasiGeostrophic, QuasiGeostrophic]:
    """A preset as truth, and as a model with changes."""
    return preset(name, nx, **common), preset(name, nx, **{**common, **changes[0]}) + changes[1]


def rough(nx: int) -> Tensor:
    """PV [s-1] of a bottom with wavelengths of about 200 km."""
    grid = preset("eddy", nx, dealias=1.5).grid
    h = random_field(grid, lambda K: torch.exp(-((K * 60e3) ** 2) / 2), seed=12345)
    return h * (1e-6 / h.std())


SYSTEMS: Mapping[str, Callable[..., System]] = {c: partial(jet, c) for c in JET} | {c: partial(eddy, c) for c in EDDY}
"""``SYSTEMS[case](nx)``"""
