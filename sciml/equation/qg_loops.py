"""The pointwise work of ``qg_fast.py`` in compiled loops (numba), each array read and written once."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from sciml.grid import Grid


def advection(grid: Grid, invert: Tensor, S: Tensor):
    """``(z, linear=None) -> -J(psi, q) (+ linear z)`` for states ``z (..., n, *modes)`` on the CPU."""
    ny, nx = grid.product_shape
    rows, cols = grid.modes
    n = S.shape[0]
    exact = grid.dealias != 1
    inputs, outputs = (2 * n, 3 * n - 1) if exact else (3 * n, 2 * n)
    A = invert.contiguous().numpy()
    k, l = (grid.real(a.imag).flatten().numpy() for a in (grid.ik, grid.il))  # noqa: E741
    below, above = (torch.diagonal(S, o).contiguous().numpy() for o in (1, -1))
    zero = np.zeros((n, n, 0, 0), dtype=np.dtype(str(grid.cdtype).removeprefix("torch.")))
    to_spectra, multiply = (velocity_spectra, products) if exact else (velocity_pv_spectra, flux_products)

    def advect(z: Tensor, linear: Tensor | None = None) -> Tensor:
        z = z.detach().resolve_conj().contiguous()
        batch = z.shape[:-3]
        b = batch.numel()
        state = z.view(b, n, rows, cols).numpy()
        spectra = torch.empty(b, inputs, ny, cols, dtype=z.dtype)
        to_spectra(state, A, k, l, spectra.numpy())
        at_points = torch.fft.irfft(torch.fft.ifft(spectra, dim=-2, norm="forward"), n=nx, norm="forward")
        product = torch.empty(b, outputs, ny, nx, dtype=at_points.dtype)
        multiply(at_points.view(b, inputs, ny * nx).numpy(), product.view(b, outputs, ny * nx).numpy(), n)
        spectra = torch.fft.fft(torch.fft.rfft(product, norm="forward")[..., :cols], dim=-2, norm="forward")
        dz = torch.empty_like(z)
        out = dz.view(b, n, rows, cols).numpy()
        L = zero if linear is None else linear.numpy()
        if exact:
            collect(spectra.numpy(), state, L, k, l, below, above, out)
        else:
            collect_flux(spectra.numpy(), state, L, k, l, out)
        return dz

    return advect


@njit(cache=True)
def _row(r, rows, ny):
    """Row of a padded spectrum that holds the stored row r."""
    return r if r < (rows + 1) // 2 else ny - rows + r


@njit(cache=True, fastmath={"contract"})
def velocity_spectra(z, A, k, l, out):  # noqa: E741
    """Padded coefficients of u_1 .. u_n, v_1 .. v_n."""
    batch, n, rows, cols = z.shape
    ny = out.shape[2]
    for b in range(batch):
        for i in range(n):
            out[b, i, (rows + 1) // 2 : ny - rows // 2] = 0
            out[b, n + i, (rows + 1) // 2 : ny - rows // 2] = 0
            for r in range(rows):
                s = _row(r, rows, ny)
                for c in range(cols):
                    re, im = A[i, 0, r, c] * z[b, 0, r, c].real, A[i, 0, r, c] * z[b, 0, r, c].imag
                    for j in range(1, n):
                        re += A[i, j, r, c] * z[b, j, r, c].real
                        im += A[i, j, r, c] * z[b, j, r, c].imag
                    out[b, i, s, c] = complex(l[r] * im, -l[r] * re)
                    out[b, n + i, s, c] = complex(-k[c] * im, k[c] * re)


@njit(cache=True, fastmath={"contract"})
def velocity_pv_spectra(z, A, k, l, out):  # noqa: E741
    """Padded coefficients of u, v and q."""
    batch, n, rows, _ = z.shape
    ny = out.shape[2]
    velocity_spectra(z, A, k, l, out)
    for b in range(batch):
        for i in range(n):
            out[b, 2 * n + i, (rows + 1) // 2 : ny - rows // 2] = 0
            for r in range(rows):
                out[b, 2 * n + i, _row(r, rows, ny)] = z[b, i, r]


@njit(cache=True, fastmath={"contract"})
def products(f, out, n):
    """uv, v^2 - u^2, and J(psi_i, psi_i+1) at points."""
    batch, _, points = f.shape
    for b in range(batch):
        for i in range(n):
            u, v, uv, difference = f[b, i], f[b, n + i], out[b, i], out[b, n + i]
            for p in range(points):
                uv[p] = u[p] * v[p]
                difference[p] = (v[p] - u[p]) * (v[p] + u[p])
        for i in range(n - 1):
            u, v, u_below, v_below, J = f[b, i], f[b, n + i], f[b, i + 1], f[b, n + i + 1], out[b, 2 * n + i]
            for p in range(points):
                J[p] = u[p] * v_below[p] - v[p] * u_below[p]


@njit(cache=True, fastmath={"contract"})
def flux_products(f, out, n):
    """uq and vq at points."""
    batch, _, points = f.shape
    for b in range(batch):
        for i in range(n):
            u, v, q, uq, vq = f[b, i], f[b, n + i], f[b, 2 * n + i], out[b, i], out[b, n + i]
            for p in range(points):
                uq[p] = u[p] * q[p]
                vq[p] = v[p] * q[p]


@njit(cache=True, fastmath={"contract"})
def collect(f, z, L, k, l, below, above, out):  # noqa: E741
    """(k^2 - l^2) uv + k l (v^2 - u^2) -+ S J, and L z where L is not empty."""
    batch, n, rows, cols = z.shape
    ny = f.shape[2]
    for b in range(batch):
        for i in range(n):
            for r in range(rows):
                s = _row(r, rows, ny)
                uv, difference, dz = f[b, i, s], f[b, n + i, s], out[b, i, r]
                for c in range(cols):
                    dz[c] = (k[c] * k[c] - l[r] * l[r]) * uv[c] + (k[c] * l[r]) * difference[c]
                if i + 1 < n:
                    for c in range(cols):
                        dz[c] -= below[i] * f[b, 2 * n + i, s, c]
                if i > 0:
                    for c in range(cols):
                        dz[c] += above[i - 1] * f[b, 2 * n + i - 1, s, c]
    add_linear(L, z, out)


@njit(cache=True, fastmath={"contract"})
def collect_flux(f, z, L, k, l, out):  # noqa: E741
    """-i k (uq) - i l (vq), and L z where L is not empty."""
    batch, n, rows, cols = z.shape
    ny = f.shape[2]
    for b in range(batch):
        for i in range(n):
            for r in range(rows):
                s = _row(r, rows, ny)
                uq, vq, dz = f[b, i, s], f[b, n + i, s], out[b, i, r]
                for c in range(cols):
                    re, im = k[c] * uq[c].real + l[r] * vq[c].real, k[c] * uq[c].imag + l[r] * vq[c].imag
                    dz[c] = complex(im, -re)
    add_linear(L, z, out)


@njit(cache=True, fastmath={"contract"})
def add_linear(L, z, out):
    """out += L z."""
    if L.shape[2] == 0:
        return
    batch, n, rows, cols = z.shape
    for b in range(batch):
        for i in range(n):
            for j in range(n):
                for r in range(rows):
                    M, state, dz = L[i, j, r], z[b, j, r], out[b, i, r]
                    for c in range(cols):
                        dz[c] += M[c] * state[c]
