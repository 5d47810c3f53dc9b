r"""MgNO: neural operators whose linear maps are multigrid cycles (He, Liu & Xu 2024, ICLR, arXiv 2310.19809).

A layer is :math:`f \mapsto \sigma(W f + B f + b)`, without lifting or projection in between (there, eqs 3 and 10).
:math:`W` is one cycle of multigrid for a convolution :math:`A * u = f` on grids of spacing h, 2h, 4h, ... : smoothing

.. math:: u \leftarrow u + S * (f - A * u),

3-wide stencils of stride 2 to the next grid, and transposed ones of width 4 back. All stencils, one for each pair of
channels, are learnt, each level and smoothing its own. :math:`B` mixes channels at each point, b is the bias function.

Beyond the paper: grids of any size in one or two dimensions; the condition of each axis (periodic, Dirichlet, Neumann)
holds in smoothing, restriction and prolongation; the residual is restricted rather than f; smoothing on the way up;
layers add to their input; bias functions of few cosines between walls, so that no weight belongs to a grid; all grids
of a cycle span the same box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciml.nn.boundary import CONV, Boundary, Stencil, checked, extended, halved, inside, padding, stretched

TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d}
WIDE = 4
"""Points of a prolongation's stencil."""


class Prolongation(nn.Module):
    """Transposed convolution of stride 2, to a grid of ``shape``, whose even points are those of the coarse one."""

    def __init__(self, inputs: int, outputs: int, boundary: Boundary, wide: int = WIDE):
        super().__init__()
        self.boundary, self.wide = boundary, wide
        self.weight = nn.Parameter(torch.empty(inputs, outputs, *(wide,) * len(boundary)))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)  # as torch's own convolutions

    def forward(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        pad = padding(self.boundary, 3, 1)
        got = [2 * n - 4 + self.wide for n in x.shape[2:]]
        more = [max(0, n - g) for n, g in zip(shape, got, strict=True)]
        x = TRANSPOSED[len(pad)](extended(x, self.boundary), self.weight, None, 2, pad, more)  # type: ignore[arg-type]
        return x[(..., *(slice(n) for n in shape))]


class Smoothing(nn.Module):
    """``u + S * (f - A * u)``, or ``S * f`` where u is zero, on ``u (b, width, ...)`` and ``f (b, inputs, ...)``."""

    def __init__(self, inputs: int, width: int, boundary: Boundary, first: bool, bias: bool):
        super().__init__()
        self.A = None if first else Stencil(width, inputs, boundary, bias=bias)
        self.S = Stencil(inputs, width, boundary, bias=bias)

    def forward(self, u: Tensor | None, f: Tensor) -> Tensor:
        if u is None or self.A is None:
            return self.S(f)
        return u + self.S(f - self.A(u))


class Cycle(nn.Module):
    """One multigrid cycle, linear: ``f (b, inputs, ...) -> u (b, width, ...)``.

    Parameters
    ----------
    smoothings : on each level, the finest first, how many before and after the coarser levels
    residual : whether ``f - A * u`` is restricted, for a correction that starts from zero; otherwise f and u are, as
        published
    held : whether u is zero at the ends of Dirichlet axes, on every level
    up : widths of the prolongations' stencils (default: 4)
    bias : whether stencils add a constant
    points : of the finest grid, where layer normalisation with weights for each of its points follows prolongations
    aligned : whether all grids span the same box: fields whose every other point would not go through one more point
        (linear interpolation), up and down. Otherwise the last wall moves by up to a cell from grid to grid
    """

    def __init__(
        self, inputs: int, width: int, smoothings: Sequence[tuple[int, int]], boundary: Boundary, residual: bool = True,
        held: bool = True, up: Sequence[int] = (), bias: bool = False, points: Sequence[int] = (), aligned: bool = True,
    ):  # fmt: skip
        super().__init__()
        levels = range(len(smoothings))
        between, up = levels[:-1], up or [WIDE] * len(levels[:-1])
        self.boundary, self.held, self.aligned = boundary, held, aligned
        zero = [residual or i == 0 for i in levels]

        def smooth(n: int, first: bool) -> nn.ModuleList:
            return nn.ModuleList(Smoothing(inputs, width, boundary, first and i == 0, bias) for i in range(n))

        def stencils(a: int, b: int, stride: int) -> nn.ModuleList:
            return nn.ModuleList(Stencil(a, b, boundary, stride) for _ in between)

        self.before = nn.ModuleList(smooth(smoothings[i][0], zero[i]) for i in levels)
        self.after = nn.ModuleList(smooth(smoothings[i][1], False) for i in levels)
        self.A = stencils(width, inputs, 1) if residual else None
        self.carry = None if residual else stencils(width, width, 2)
        self.restrict = stencils(inputs, inputs, 2)
        self.prolong = nn.ModuleList(Prolongation(width, width, boundary, w) for w in up)
        shapes = [[width, *(-(-n // 2**i) for n in points)] for i in between] if points else []
        self.norms = nn.ModuleList(nn.LayerNorm(s) for s in shapes)

    def forward(self, f: Tensor) -> Tensor:
        return self.visit(0, None, f)

    def visit(self, level: int, u: Tensor | None, f: Tensor) -> Tensor:
        """``u`` after smoothing on this level and all below."""
        for smooth in self.before[level]:  # type: ignore[attr-defined]
            u = self.kept(smooth(u, f))
        assert u is not None, "each level has a smoothing before the coarser ones"
        if level < len(self.prolong):
            r = f if self.A is None else f - self.A[level](u)
            shape = halved(u.shape[2:], self.boundary) if self.aligned else u.shape[2:]
            start = None if self.carry is None else self.carry[level](self.on(shape, u))
            coarse = self.visit(level + 1, start, self.restrict[level](self.on(shape, r)))
            u = self.kept(u + self.on(u.shape[2:], self.prolong[level](coarse, shape)))
            u = self.norms[level](u) if len(self.norms) else u
        for smooth in self.after[level]:  # type: ignore[attr-defined]
            u = self.kept(smooth(u, f))
        return u  # type: ignore[return-value]

    def on(self, shape: Sequence[int], u: Tensor) -> Tensor:
        return stretched(u, shape, self.boundary)

    def kept(self, u: Tensor) -> Tensor:
        return inside(u, self.boundary) if self.held else u


class Bias(nn.Module):
    """A function of position for each channel: cosines of up to ``modes`` half waves between walls, constant along
    periodic axes, so that it has no grid and shifts along those change nothing."""

    def __init__(self, width: int, boundary: Boundary, modes: int):
        super().__init__()
        self.counts = [1 if b == "periodic" else modes + 1 for b in boundary]
        self.weight = nn.Parameter(torch.zeros(width, *self.counts))

    def forward(self, shape: Sequence[int]) -> Tensor:
        b = self.weight
        for n, count in zip(shape, self.counts, strict=True):
            place = torch.linspace(0, torch.pi, n, dtype=b.dtype, device=b.device)
            waves = torch.cos(torch.arange(count, dtype=b.dtype, device=b.device)[:, None] * place)
            b = torch.einsum("wk...,kn->w...n", b, waves)
        return b


class Layer(nn.Module):
    """``gelu(W f + B f + b)``, added to f where ``skip`` says so and there are as many channels."""

    def __init__(self, inputs: int, width: int, cycle: Cycle, mix: bool, bias: Bias | None, skip: bool):
        super().__init__()
        self.cycle, self.bias, self.skip = cycle, bias, skip and inputs == width
        self.mix = CONV[len(cycle.boundary)](inputs, width, 1, bias=bias is None) if mix else None

    def forward(self, f: Tensor) -> Tensor:
        u = self.cycle(f)
        if self.mix is not None:
            u = u + self.mix(f)
        if self.bias is not None:
            u = u + self.bias(f.shape[2:])
        return f + F.gelu(u) if self.skip else F.gelu(u)


@dataclass(frozen=True)
class Config:
    """All that is needed to make a network again; the defaults are ours, :data:`PUBLISHED` holds the paper's.

    Parameters
    ----------
    inputs, outputs : channels
    width : channels of a layer
    layers : their number
    smoothings : on each level, before and after the coarser ones
    boundary : condition of each axis, ``("periodic", "periodic")`` or of one axis only
    residual, held, up, aligned : see :class:`Cycle`
    mix : whether layers have B
    modes : half waves of the bias function between walls; negative for a constant in B
    skip : whether layers add to their input
    add : whether the network adds to its first ``outputs`` inputs
    bias, points : constants and normalisation in cycles, as published for Navier-Stokes
    """

    inputs: int = 1
    outputs: int = 1
    width: int = 32
    layers: int = 4
    smoothings: tuple[tuple[int, int], ...] = ((1, 1),) * 5
    boundary: Boundary = ("periodic", "periodic")
    residual: bool = True
    held: bool = True
    up: tuple[int, ...] = ()
    mix: bool = True
    modes: int = 4
    skip: bool = True
    add: bool = False
    bias: bool = False
    points: tuple[int, ...] = ()
    aligned: bool = True

    def __post_init__(self):
        checked(self.boundary)
        if not all(isinstance(s, Sequence) and len(s) == 2 for s in self.smoothings):
            raise ValueError(f"smoothings are pairs for each level, before and after, got {self.smoothings}")
        if wrong := [n for n in ("inputs", "outputs", "width", "layers") if not isinstance(getattr(self, n), int)]:
            raise ValueError(f"{wrong[0]} must be a whole number, got {getattr(self, wrong[0])}")
        if min(self.inputs, self.outputs, self.width, self.layers, len(self.smoothings)) < 1:
            raise ValueError("inputs, outputs, width, layers and the number of levels must be at least 1")
        if any(a < 1 or b < 0 for a, b in self.smoothings):
            raise ValueError(f"each level needs one smoothing before the coarser ones, got {self.smoothings}")
        if self.up and (len(self.up) != len(self.smoothings) - 1 or not set(self.up) <= {3, 4}):
            raise ValueError(f"up must be 3 or 4 for each pair of levels ({len(self.smoothings) - 1}), got {self.up}")
        if self.add and self.inputs < self.outputs:
            raise ValueError(f"{self.outputs} outputs cannot add to {self.inputs} inputs")


class MgNO(nn.Module):
    """``(b, inputs, [y,] x) -> (b, outputs, [y,] x)`` on grids of any size; options as of :class:`Config`.

    On Dirichlet axes the outputs are zero at both ends where the configuration is ``held``. A shift along a periodic
    axis by whole cells of the coarsest grid shifts the outputs.

    Raises ``ValueError`` for fields of other channels or dimensions than it was made for, or fewer points than levels.

    Examples
    --------
    >>> net = sm.MgNO(2, 1, width=4, layers=1)
    >>> net(torch.zeros(3, 2, 64, 48)).shape
    torch.Size([3, 1, 64, 48])
    """

    def __init__(self, inputs: int = 1, outputs: int = 1, **options):
        super().__init__()
        self.config = c = Config(inputs, outputs, **options)

        def layer(n: int) -> Layer:
            cycle = Cycle(n, c.width, c.smoothings, c.boundary, c.residual, c.held, c.up, c.bias, c.points, c.aligned)
            bias = Bias(c.width, c.boundary, c.modes) if c.modes >= 0 else None
            return Layer(n, c.width, cycle, c.mix, bias, c.skip)

        self.layers = nn.Sequential(*(layer(c.width if i else inputs) for i in range(c.layers)))
        self.head = CONV[len(c.boundary)](c.width, outputs, 1, bias=False)

    def forward(self, f: Tensor) -> Tensor:
        """The outputs of inputs ``f``, as above."""
        c, dims = self.config, len(self.config.boundary)
        if f.ndim != dims + 2 or f.shape[1] != c.inputs:
            raise ValueError(f"fields must be (batch, {c.inputs} channels, {dims} axes), got {tuple(f.shape)}")
        if min(f.shape[2:]) < 2 ** (len(c.smoothings) - 1):
            raise ValueError(f"{len(c.smoothings)} levels need {2 ** (len(c.smoothings) - 1)} points along each axis, "
                             f"got {tuple(f.shape[2:])}; use fewer levels")  # fmt: skip
        u = self.head(self.layers(f)).float() if f.dtype != torch.float64 else self.head(self.layers(f))
        u = f[:, : c.outputs] + u if c.add else u
        return inside(u, c.boundary) if c.held else u

    def about(self) -> dict:
        """The configuration, for a file."""
        return asdict(self.config)


LEVELS = ((1, 0),) * 5 + ((2, 0),)
AS_PUBLISHED = dict(
    residual=False, held=False, modes=-1, skip=False, aligned=False, width=24, smoothings=LEVELS,
    boundary=("dirichlet", "dirichlet"),
)  # fmt: skip
PUBLISHED: dict[str, dict] = {
    "darcy_smooth": AS_PUBLISHED | dict(layers=5, up=(3, 4, 3, 3, 4)),
    "darcy_rough": AS_PUBLISHED | dict(layers=4),
    "multiscale": AS_PUBLISHED | dict(layers=4),
    "pipe": AS_PUBLISHED | dict(inputs=2, layers=5, smoothings=((1, 0),) * 4 + ((1, 1), (2, 0))),
    "navier_stokes": AS_PUBLISHED
    | dict(layers=5, width=32, boundary=("periodic", "periodic"), smoothings=((1, 0),) * 3 + ((2, 0),) * 2)
    | dict(mix=False, bias=True, points=(64, 64), add=True),
}
"""Options of the authors' configurations: 678,093, 572,661, 572,661, 783,876 and 2,885,194 weights. Prolongation wraps
around periodic axes here; it does not there."""
