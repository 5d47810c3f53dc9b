"""Neural-field steps of the package's equations, and of flow on the sphere."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from sciml.equation.base import Equation
from sciml.equation.expression import Field, expand, lap
from sciml.field import NeuralField
from sciml.insr.domain import Box, Domain, Sphere, unit_vectors
from sciml.insr.step import Advance, NeuralStep, Source
from sciml.insr.systems import Derivative, System, primitives, rotating_sphere, series, strong
from sciml.insr.tangent import tangent
from sciml.insr.weights import weights


def insr(
    equation: Equation, net: NeuralField, dt: float, method: Advance | None = None, *,
    form: Callable[..., System] = strong, samples: int | None = None, domain: Domain | None = None,
    iterations: int = 300, projected: bool = False,
) -> NeuralStep:  # fmt: skip
    """A neural field as the spatial discretisation of an equation: no mesh, no training data (Chen et al. 2023, ICML).

    ``init`` fits the network to a start, calls advance its weights by ``dt``, ``read`` samples what the equation
    steps on its grid, ``sample`` any expression anywhere. The field is periodic where the network's encoding is.

    Raises ``ValueError`` for a network, samples or a step that cannot work, and for equations that have no pointwise
    reading.

    Parameters
    ----------
    net : a network with one output for each of the form's ``fields``, in float64
    dt : time between two states [s, or the equation's unit]
    method : how weights advance (default: :func:`~sciml.insr.tangent.tangent`, or :func:`~sciml.insr.refit.refit`),
        also within :func:`~sciml.insr.restart.restarting`, :func:`~sciml.insr.refined.refined` or
        :func:`~sciml.insr.splitting.strang`
    form : :func:`~sciml.insr.systems.strong`, or :func:`~sciml.insr.systems.momentum` for two-dimensional flow that is
        nearly steady (energy is kept; where vortices move its steps are short)
    samples : nodes of the quadrature (default: twice the weights), at least as many as weights over rows
    domain : where nodes lie (default: midpoints of even cells of the equation's grid)
    iterations : at most, of the fit of the start
    projected : whether the fit ends by variable projection, which gets far nearer to a start that the network can hold
        and costs no more; rough ones gain nothing

    Examples
    --------
    >>> from sciml.field import Siren
    >>> eq = sm.equation.Advection(grid=sm.Grid(64, 1, Lx=2.0, Ly=1.0), U=1.0)
    >>> net = Siren(eq.grid, 1, (6, 6), omega=1.0, seed=0)
    >>> step = sm.insr(eq, net, dt=0.1, samples=200, iterations=50)
    >>> end = sm.rollout(step, 2)(torch.sin(math.pi * eq.grid.x)[None]).fields[-1]
    >>> bool((end - torch.sin(math.pi * (eq.grid.x - 0.2))).abs().max() < 1e-2)
    True
    """
    system, grid = form(equation), equation.grid
    points = torch.stack(torch.broadcast_tensors(*grid.axes()), -1).reshape(-1, 2)
    output = points, tuple(map(expand, primitives(equation).values())), grid.shape

    def source(fields: Tensor) -> Callable[[Tensor], Derivative]:
        own = equation.fields(equation.init(fields))
        return lambda x: lambda name, m, n: series(grid, own[name], m, n, x)

    step = built(system, net, domain or Box(grid), dt, method, samples, source, output, iterations)
    return replace(step, projected=projected)


def insr_on_sphere(
    Omega: float, net: NeuralField, dt: float, method: Advance | None = None, *,
    samples: int | None = None, shape: tuple[int, int] = (90, 180), iterations: int = 300,
) -> NeuralStep:  # fmt: skip
    """The barotropic vorticity equation on the unit sphere, which turns at the rate ``Omega``.

    The network takes unit vectors and gives the streamfunction (:func:`~sciml.nn.encodings.harmonics`); ``init`` takes
    a function of unit vectors, ``read`` gives vorticity on ``shape`` latitudes (from the south) and longitudes.
    """
    lat = math.pi * ((torch.arange(shape[0], dtype=torch.float64) + 0.5) / shape[0] - 0.5)
    lon = 2 * math.pi * torch.arange(shape[1], dtype=torch.float64) / shape[1]
    points = unit_vectors(lon[None, :], lat[:, None]).reshape(-1, 3)
    output = points, (expand(lap(Field("psi"))),), shape

    def source(fields: Tensor) -> Callable[[Tensor], Derivative]:
        raise ValueError("on the sphere the start must be a function of unit vectors, such as rossby_haurwitz")

    return built(rotating_sphere(Omega), net, Sphere(), dt, method, samples, source, output, iterations)


def built(
    system: System, net: NeuralField, domain: Domain, dt: float, method: Advance | None, samples: int | None,
    source: Source, output, iterations: int,
) -> NeuralStep:  # fmt: skip
    """After checks."""
    P = sum(p.numel() for p in net.parameters())
    if net.head.out_features != len(system.fields):
        raise ValueError(f"the network has {net.head.out_features} outputs, the equation needs {len(system.fields)}: "
                         f"{', '.join(system.fields)}")  # fmt: skip
    if net.head.weight.dtype != torch.float64:
        raise ValueError("least squares in the weights of a network need float64; use net.double()")
    if not all(bool(torch.isfinite(p).all()) for p in net.parameters()):
        raise ValueError("a weight of the network is not finite")
    if not 0 < dt < math.inf:
        raise ValueError(f"dt must be a positive number, got {dt}")
    samples = 2 * P if samples is None else samples
    for name, value, least in (("samples", samples, 1), ("iterations", iterations, 0)):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value}")
    if samples * len(system.left) < P:
        raise ValueError(f"{samples} samples of {len(system.left)} rows do not fix {P} weights: use at least "
                         f"{math.ceil(1.5 * P / len(system.left))}, or a smaller network")  # fmt: skip
    own = deepcopy(net)  # whose weights are replaced at each step
    return NeuralStep(system, own, domain, dt, method or tangent(), samples, source, output, iterations, weights(net))
