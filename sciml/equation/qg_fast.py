r"""Advection of layered potential vorticity with few transforms; tested equal to the term ``-J(psi, q)``.

On dealiased grids the vorticity part is written in Basdevant's (1983, JCP 50, 209) form, and the coupling of
neighbouring layers needs one Jacobian per interface, so that n layers take 2n inverse and 3n - 1 forward transforms:

.. math:: J(\psi, \nabla^2\psi) = (\partial_{xx} - \partial_{yy})(u v) + \partial_{xy}(v^2 - u^2), \qquad
          J(\psi_i, \psi_{i+1}) = u_i v_{i+1} - v_i u_{i+1}.

On aliased grids products differ from form to form; there the flux form of the term, div(u q), is kept (3n + 2n). So it
is over topography, which this form carries along for nothing.
Where no gradient is asked for, on a CPU with numba and pyfftw, all of it runs in the compiled code of ``qg_packed.py``.
Gradients come from that code, too (``qg_gradient.py``).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sciml.equation.base import apply
from sciml.equation.loops import plain, tracked
from sciml.grid import Grid

Advection = Callable[..., Tensor]


def advection(grid: Grid, invert: Tensor, S: Tensor, bottom: Tensor | None = None) -> Advection:
    """The function ``(z, linear=None) -> -J(psi, q + bottom) (+ linear z)`` for states ``z (..., n, *modes)``.

    ``invert (n, n, *modes)`` gives psi from q; ``S (n, n)`` is the stretching operator, which couples neighbours only;
    ``bottom (n, *modes)`` is vorticity that flows past without being part of the state, of topography.
    """
    exact = grid.dealias != 1
    advect = basdevant(grid, invert, S) if exact and bottom is None else flux(grid, invert, bottom)

    def torch_advection(z: Tensor, linear: Tensor | None = None) -> Tensor:
        return advect(z) if linear is None else advect(z) + apply(linear, z)

    if not plain(invert, S, bottom) or any(tracked(t) for t in (invert, S, bottom)):
        return torch_advection
    from sciml.equation import qg_packed
    from sciml.equation.qg_gradient import differentiable

    compiled = qg_packed.advection(grid, invert, S, bottom)
    followed = differentiable(grid, invert, compiled, bottom)

    def either(z: Tensor, linear: Tensor | None = None) -> Tensor:
        if plain(z, linear):
            return compiled(z, linear)
        if linear is None or not linear.requires_grad:
            return followed(z, linear)
        return followed(z, None) + apply(linear, z)

    return either


def basdevant(grid: Grid, invert: Tensor, S: Tensor) -> Callable[[Tensor], Tensor]:
    """-J(psi, q) on a dealiased grid."""
    ik, il = grid.complex(grid.ik), grid.complex(grid.il)
    across, diagonal = grid.real(grid.k**2 - grid.l**2), grid.real(grid.k * grid.l)
    below, above = torch.diagonal(S, 1)[:, None, None], torch.diagonal(S, -1)[:, None, None]
    n = S.shape[0]

    def advect(z: Tensor) -> Tensor:
        psi = apply(invert, z)
        u, v = grid.ifft(torch.cat([-il * psi, ik * psi], -3), grid.product_shape).split(n, -3)
        coupling = u[..., :-1, :, :] * v[..., 1:, :, :] - v[..., :-1, :, :] * u[..., 1:, :, :]
        products = grid.fft(torch.cat([u * v, v * v - u * u, coupling], -3))
        uv, difference, J = products.split((n, n, n - 1), -3)
        dz = across * uv + diagonal * difference
        nothing = torch.zeros_like(dz[..., :1, :, :])
        return dz + torch.cat([-below * J, nothing], -3) + torch.cat([nothing, above * J], -3)

    return advect


def flux(grid: Grid, invert: Tensor, bottom: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """-J(psi, q) = -d_x(u q) - d_y(v q), q with ``bottom``."""
    ik, il = grid.complex(grid.ik), grid.complex(grid.il)
    n = invert.shape[0]

    def advect(z: Tensor) -> Tensor:
        psi = apply(invert, z)
        q = z if bottom is None else z + bottom
        u, v, q = grid.ifft(torch.cat([-il * psi, ik * psi, q], -3), grid.product_shape).split(n, -3)
        uq, vq = grid.fft(torch.cat([u * q, v * q], -3)).split(n, -3)
        return -ik * uq - il * vq

    return advect
