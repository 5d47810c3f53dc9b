r"""Derivatives of a neural field with respect to its weights, at many points at once.

A pointwise functional r of a field (a value, a derivative, a residual) has at point i the derivative

.. math:: \frac{\partial r_i}{\partial W_l} = \sum_a \delta^a_{l,i} \otimes h^a_{l-1,i}, \qquad
    \delta^a_{l,i} = \frac{\partial r_i}{\partial z^a_{l,i}},

with :math:`h_{l-1}` what goes into layer l, :math:`z_l = W_l h_{l-1} + b_l`, and a running over the coefficients of the
jet. As r_i depends on point i only, one backward pass of :math:`\sum_i r_i` gives the :math:`\delta` of all points.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from sciml.field import NeuralField
from sciml.nn.jets import Jet

Functional = Callable[[Jet], Tensor]
"""A field's jet ``(K, n, outputs)`` -> ``(rows, n)``."""


def weights(net: NeuralField) -> Tensor:
    """All of a network's weights as one vector ``(P,)``."""
    return parameters_to_vector(net.parameters()).detach().clone()


def put(net: NeuralField, theta: Tensor) -> NeuralField:
    """The network, its weights replaced by copies."""
    vector_to_parameters(theta.clone(), net.parameters())
    return net


def jacobian(net: NeuralField, positions: Jet, functional: Functional) -> tuple[Tensor, Tensor]:
    """Values ``(rows, n)`` of a functional, and derivatives ``(rows, n, P)``, P in the order of :func:`weights`."""
    taps: list[tuple[Tensor, Tensor]] = []
    with torch.enable_grad():
        values = functional(net.jet(positions, taps))
    own = list(net.encoding.parameters())
    wanted = [z for _, z in taps] + ([taps[0][0]] if own else [])
    out = values.new_zeros(*values.shape, sum(p.numel() for p in net.parameters()))
    for row, value in enumerate(values):
        deltas = torch.autograd.grad(value.sum(), wanted, retain_graph=row + 1 < len(values), allow_unused=True)
        blocks = {}
        for layer, (h, _), delta in zip((*net.layers, net.head), taps, deltas, strict=False):
            if delta is not None:
                blocks[layer.weight] = torch.einsum("kno,kni->noi", delta, h.detach())
                blocks[layer.bias] = delta[0]
        if own and deltas[-1] is not None:
            blocks |= zip(own, of_encoding(net.encoding, positions, deltas[-1]), strict=True)
        start = 0
        for p in net.parameters():
            if p in blocks:
                out[row, :, start : start + p.numel()] = blocks[p].detach().flatten(1)
            start += p.numel()
    return values.detach(), out


class Encoded(nn.Module):
    """An encoding's jet as a module's forward pass."""

    def __init__(self, encoding):
        super().__init__()
        self.encoding = encoding

    def forward(self, positions: Jet) -> Tensor:
        return self.encoding.jet(positions).c


def of_encoding(encoding: nn.Module, positions: Jet, delta: Tensor) -> list[Tensor]:
    """Derivatives ``(n, *shape)`` with respect to an encoding's own parameters."""
    module = Encoded(encoding)
    parameters = {name: p.detach() for name, p in module.named_parameters()}

    def at_point(c: Tensor, d: Tensor) -> dict[str, Tensor]:
        place = Jet(c, positions.dims, positions.order)
        return vjp(lambda p: functional_call(module, p, (place,)), parameters)[1](d)[0]

    found = vmap(at_point, in_dims=(1, 1))(positions.c, delta)
    return [found[name] for name in parameters]
