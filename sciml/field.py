r"""Neural fields: networks of position on a doubly periodic box, fitted to values at scattered places.

A network is a linear head on features, :math:`f(x, y) = W \phi(x, y; \theta) + b`, one row of W for each snapshot and
level: the fields of a batch share their features, and the head has a closed form. Positions are ``(..., 2)`` [x, y] in
units of the box, values ``(outputs, m)``; networks are in float64. Fits are functions ``(net, positions, values)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from sciml.fill import Interpolator
from sciml.grid import Grid
from sciml.nn.encodings import Coordinates, Function, Harmonics, Kernels, Waves, equal, linear, periodic
from sciml.nn.jets import TANH, Activation, Jet, sines

Encoding = Callable[[Grid], "Coordinates"]
Sizes = Sequence[int]
Constraint = Callable[[Jet, Jet], Jet]
"""``(positions, what the head gives) -> the field``"""


# -- networks --------------------------------------------------------------------------------------------------------
class NeuralField(nn.Module):
    """Positions ``(..., 2)`` -> values ``(..., outputs)``: an encoding, layers ``activation(W z + b)``, a linear head.

    Weights are uniform up to ``bounds`` at first, by default torch's ``n^(-1/2)`` for n inputs. A ``constraint`` such
    as :func:`dirichlet` makes the field of what the head gives.
    """

    constraint: Constraint | None = None

    def __init__(
        self, encoding: Coordinates | Harmonics, widths: Sizes, outputs: int, seed: int,
        activation: Activation = TANH, bounds: Sequence[float] = (),
    ):  # fmt: skip
        super().__init__()
        draw, sizes = torch.Generator().manual_seed(seed), [encoding.width, *widths, outputs]
        if min(sizes) < 1:
            raise ValueError(f"inputs, widths and outputs must be at least 1, got {sizes}")
        bounds = bounds or [n**-0.5 for n in sizes[:-1]]
        *layers, self.head = (linear(*size, draw) for size in zip(sizes[:-1], sizes[1:], bounds, strict=True))
        self.encoding, self.layers, self.activation = encoding, nn.ModuleList(layers), activation
        self.to(encoding.origin.device)

    def features(self, positions: Tensor) -> Tensor:
        """``(..., width)``."""
        z = self.encoding(positions.to(self.head.weight))
        for layer in self.layers:
            z = self.activation(layer(z))
        return z

    def forward(self, positions: Tensor) -> Tensor:
        out = self.head(self.features(positions))
        if self.constraint is None:
            return out
        return self.constraint(Jet(positions[None].to(out), 1, 0), Jet(out[None], 1, 0)).c[0]

    def jet(self, positions: Jet, taps: list[tuple[Tensor, Tensor]] | None = None) -> Jet:
        """Values and derivatives ``(K, ..., outputs)`` at the jet of positions.

        What goes into and comes out of every linear layer, the head last, is added to ``taps``.
        """
        z, taps = self.encoding.jet(positions), [] if taps is None else taps
        layers: list[nn.Linear] = [*self.layers, self.head]  # type: ignore[list-item]
        for layer in layers:
            x, z = z, z.linear(layer.weight, layer.bias)
            taps.append((x.c, z.c))
            z = z if layer is self.head else z.apply(self.activation.series)
        return z if self.constraint is None else self.constraint(positions, z)


class MLP(NeuralField):
    """Tanh layers on coordinates, MEDIDA's baseline, which learns small scales last (Rahaman et al. 2019, ICML)."""

    def __init__(self, grid: Grid, outputs: int, widths: Sizes = (1000,) * 4, encoding: Encoding = Coordinates, seed=0):
        super().__init__(encoding(grid), widths, outputs, seed)


class FourierFeatures(NeuralField):
    """Tanh layers on :class:`Waves` (Tancik et al. 2020, NeurIPS): MEDIDA's with 500 :func:`gaussian_waves` and four
    layers of 1000; without layers, a linear model of waves."""

    def __init__(
        self, grid: Grid, outputs: int, numbers: Tensor, amplitude: Function = equal, widths: Sizes = (), seed: int = 0
    ):  # fmt: skip
        super().__init__(Waves(grid, numbers, amplitude), widths, outputs, seed)


class Siren(NeuralField):
    """Layers ``sin(omega (W z + b))`` (Sitzmann et al. 2020, NeurIPS, section 3.2).

    Weights are uniform up to ``1 / n`` in the first layer of n inputs, up to ``sqrt(6 / n) / omega`` in others, so that
    what enters their sines is about normal with standard deviation 1. Coordinates should reach 1.
    """

    def __init__(
        self, grid: Grid, outputs: int, widths: Sizes = (256,) * 3, omega: float = 30.0,
        encoding: Encoding = periodic, seed: int = 0,
    ):  # fmt: skip
        encode = encoding(grid)
        bounds = [1 / encode.width, *(math.sqrt(6 / n) / omega for n in widths)]
        super().__init__(encode, widths, outputs, seed, sines(omega), bounds)


class NeuRBF(NeuralField):
    """:class:`Kernels` composed with sines, then tanh layers (Chen et al. 2023, ICCV, sections 3.2 and 3.3).

    Unlike there sums are over all kernels, which is smooth, what follows sees kernels too (without layers, the closed
    form of the head interpolates by radial functions), and there is no grid of features.
    """

    def __init__(
        self, grid: Grid, outputs: int, kernels: int = 500, channels: int = 16, widths: Sizes = (),
        tones: tuple[float, float] = (0.25, 4.0), overlap: float = 2.0, seed: int = 0,
    ):  # fmt: skip
        super().__init__(Kernels(grid, kernels, channels, tones, overlap, seed), widths, outputs, seed)


def dirichlet(grid: Grid, lift: Callable[[Jet], Jet] | None = None) -> Constraint:
    """Zero at the edges of the box, or the values there of a ``lift``: ``lift + (1 - a^2) (1 - b^2) N``, a and b the
    coordinates from -1 to 1 (Lagaris, Likas & Fotiadis 1998, IEEE Trans. Neural Netw. 9, 987)."""
    place = Coordinates(grid, reach=1.0)

    def constraint(positions: Jet, values: Jet) -> Jet:
        at = place.jet(positions)
        for i in range(place.dims):
            values = values * (at[i : i + 1] * at[i : i + 1] * -1.0 + 1.0)
        return values if lift is None else lift(positions) + values

    return constraint


# -- fits ------------------------------------------------------------------------------------------------------------
def fit_adam(net: NeuralField, positions: Tensor, values: Tensor, updates: int = 200_000, lr: float = 0.01) -> None:
    """MEDIDA's recipe: Adam with amsgrad on all places, loss ``mean (f - y)^2 / mean y^2``, taken per output.

    Raises ``FloatingPointError`` where it diverged.
    """
    positions, values = checked(net, positions, values)
    scale = values.square().mean(1).sqrt().clamp(min=torch.finfo(values.dtype).tiny)
    optimiser = torch.optim.Adam(net.parameters(), lr=lr, amsgrad=True)
    for _ in range(updates):
        optimiser.zero_grad(set_to_none=True)
        (net(positions) - values.T / scale).square().mean().backward()
        optimiser.step()
    with torch.no_grad():
        net.head.weight.mul_(scale[:, None])
        net.head.bias.mul_(scale)
    if not all(bool(torch.isfinite(p).all()) for p in net.parameters()):
        raise FloatingPointError(f"Adam diverged at a learning rate of {lr:g}; lower it")


@torch.no_grad()
def fit_last_layer(net: NeuralField, positions: Tensor, values: Tensor, ridge: float | None = None) -> Tensor:
    r"""Head with the least :math:`|y - \phi w - b|^2 + \lambda |w|^2` for every output.

    Without a ``ridge``, with the least ``m |y - f|^2 / (m - freedom)^2`` of every output: generalised cross-validation
    (Golub, Heath & Wahba 1979). Its root, the rms error expected at values left out, is returned, ``(outputs,)``; it is
    too small where features were trained. Raises ``ValueError`` where the ridge is 0 and values do not fix all weights.
    """
    positions, values = checked(net, positions, values)
    weight, bias, error = ridge_regression(net.features(positions), values.T, ridge)
    net.head.weight.copy_(weight.T)
    net.head.bias.copy_(bias)
    return error


def ridge_regression(features: Tensor, values: Tensor, ridge: float | None) -> tuple[Tensor, Tensor, Tensor]:
    """Weights ``(p, outputs)``, constants and expected errors ``(outputs,)`` of values ``(m, outputs)``."""
    centre, mean = features.mean(0), values.mean(0)
    x, y = features - centre, values - mean
    left, square = decomposed(x)
    m, within, least = len(x), left.T @ y, len(x) * torch.finfo(x.dtype).eps * square.max()
    if not least > 0 or (ridge == 0 and square.min() <= least**2 / square.max()):
        raise ValueError(f"{m} values do not fix the {x.shape[1]} weights of an output; give a ridge")
    tried = least * torch.logspace(0, 15, 61).to(x) if ridge is None else x.new_tensor([ridge])
    kept = tried[:, None] / (square + tried[:, None])
    free = kept.sum(1, keepdim=True) + (m - len(square) - 1)
    validated = m * (kept.square() @ within.square() + (y - left @ within).square().sum(0)) / free.square()
    best = validated.argmin(0)
    weight = x.T @ (left @ (within / (square[:, None] + tried[best])))
    return weight, mean - centre @ weight, validated.amin(0).sqrt()


def decomposed(features: Tensor) -> tuple[Tensor, Tensor]:
    """Left singular vectors ``(m, r)`` of centred features and squared singular values, r the shorter side."""
    if features.shape[1] < len(features):
        left, values, _ = torch.linalg.svd(features, full_matrices=False)
        return left, values.square()
    values, left = torch.linalg.eigh(features @ features.T)
    least = len(features) * torch.finfo(values.dtype).eps * values[-1]
    return left, torch.where(values > least, values, 0.0)  # a constant is exactly in no centred feature


def fit_projected(net: NeuralField, positions: Tensor, values: Tensor, iterations: int = 30) -> Tensor:
    """Features trained by L-BFGS with the head eliminated (variable projection: Golub & Pereyra 1973).

    What falls is the square error of :func:`fit_last_layer` over the variance of each output, meaned, with one ridge
    for all, trained too. Many trained weights overfit it in many iterations.
    """
    positions, values = checked(net, positions, values)
    target = (values - values.mean(1, keepdim=True)).T
    target = target / target.square().mean(0).sqrt().clamp(min=torch.finfo(target.dtype).tiny)
    log_ridge = nn.Parameter(target.new_tensor(math.log(1e-6)))
    hidden = [p for name, p in net.named_parameters() if not name.startswith("head.")]
    optimiser = torch.optim.LBFGS([*hidden, log_ridge], max_iter=iterations, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        try:
            loss = cross_validation(net.features(positions), target, log_ridge.exp()).mean().log()
        except torch.linalg.LinAlgError:  # a step too far, for the line search to shorten
            return target.new_tensor(100.0)
        loss.backward()
        return loss

    optimiser.step(closure)
    return fit_last_layer(net, positions, values)


def cross_validation(features: Tensor, target: Tensor, ridge: Tensor) -> Tensor:
    """``m |y - f|^2 / (m - freedom)^2`` of centred targets, ``(outputs,)``; the ridge is over the mean diagonal."""
    features, (m, p) = features - features.mean(0), features.shape
    gram = features.T @ features if p < m else features @ features.T
    size = gram.diagonal().mean()
    ridge = (ridge + m**2 * torch.finfo(gram.dtype).eps) * size
    constant = 0.0 if p < m else size  # without it the larger matrix is singular
    factor = torch.linalg.cholesky(gram + constant + ridge * torch.eye(len(gram)).to(gram))
    if p < m:
        half = torch.linalg.solve_triangular(factor, features.T, upper=False)
        residual, free = target - half.T @ (half @ target), m - 1 - half.square().sum()
    else:
        inverse = ridge * torch.cholesky_inverse(factor)
        residual, free = inverse @ target, inverse.trace() - ridge / (ridge + m * size)
    return m * residual.square().sum(0) / free.square()


def checked(net: NeuralField, positions: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the network's type. Raises ``ValueError`` for shapes that do not fit, NaNs and less than 3 places."""
    m, outputs = len(positions), net.head.out_features
    if positions.shape != (m, 2) or m < 3:
        raise ValueError(f"positions must have the shape (m, 2), m at least 3, got {tuple(positions.shape)}")
    if values.shape != (outputs, m):
        raise ValueError(f"values must have the shape ({outputs}, {m}), got {tuple(values.shape)}")
    if not bool(torch.isfinite(positions).all() & torch.isfinite(values).all()):
        raise ValueError("a position or a value is not finite; leave out sensors without one")
    return positions.to(net.head.weight), values.to(net.head.weight)


# -- fields ----------------------------------------------------------------------------------------------------------
def neural(
    grid: Grid, network: Callable[[int], NeuralField], fit: Callable[[NeuralField, Tensor, Tensor], object]
) -> Interpolator:
    """Interpolator by a new ``network(outputs)``, fitted to all of a batch at once. It does not use ``sigma``."""

    def fill(positions, values, sigma=0.0):
        flat = values.reshape(-1, values.shape[-1])
        net = network(len(flat))
        fit(net, positions, flat)
        return on_grid(net, grid).reshape(*values.shape[:-1], *grid.shape)

    return fill


@torch.no_grad()
def on_grid(net: NeuralField, grid: Grid, chunk: int = 1024) -> Tensor:
    """Values ``(outputs, ny, nx)`` at the points of a grid, float64."""
    points = torch.stack(torch.broadcast_tensors(*grid.axes()), -1).reshape(-1, 2)
    return torch.cat([net(part) for part in points.split(chunk)]).double().T.reshape(-1, *grid.shape)


def derivatives(net: NeuralField, positions: Tensor, names: Sequence[str]) -> Callable[[str, int, int], Tensor]:
    """``(name, m, n) -> d^(m+n) f / dx^m dy^n`` at positions ``(..., 2)``, for ``pointwise``; ``names`` of outputs.

    An order is one backward pass through the order below it, which is kept. Weights can be differentiated.
    """
    points = positions.detach().to(net.head.weight).requires_grad_()
    return differentiated(dict(zip(names, net(points).unbind(-1), strict=True)), points)


def differentiated(values: Mapping[str, Tensor], points: Tensor) -> Callable[[str, int, int], Tensor]:
    """The same of any values ``(...)`` that were computed from points ``(..., 2)``, each from its own."""
    known: dict[tuple[str, int, int], Tensor] = {}

    def gradient(name: str, m: int, n: int) -> Tensor:
        if (name, m, n) not in known:
            (known[name, m, n],) = torch.autograd.grad(derivative(name, m, n).sum(), points, create_graph=True)
        return known[name, m, n]

    def derivative(name: str, m: int, n: int) -> Tensor:
        if m == n == 0:
            return values[name]
        return gradient(name, m - 1, n)[..., 0] if m else gradient(name, 0, n - 1)[..., 1]

    return derivative
