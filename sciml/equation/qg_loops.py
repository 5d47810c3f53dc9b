"""Compiled loops (numba): the pointwise work of ``qg_packed.py``, and the steppers' weighted sums."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numba import njit
from torch import Tensor

compiled = njit(cache=True, nogil=True, fastmath={"contract", "nsz", "arcp"}, error_model="numpy")


def array(t: Tensor) -> np.ndarray:
    """The contiguous numbers of a tensor."""
    if t.requires_grad or t.is_conj() or not t.is_contiguous():
        t = t.detach().resolve_conj().contiguous()
    return t.numpy()


@compiled
def velocity(z, A, k, l, out):  # noqa: E741
    """Coefficients of ``u + i v = i (d_x + i d_y) psi`` of every layer, at all k; psi = A z."""
    members, n, columns, rows = z.shape
    up, ny = (rows + 1) // 2, out.shape[2]  # rows l >= 0; the others go to the end, behind a gap of zeros
    out[:, :, up : ny - rows + up] = 0
    psi, mirror, w = np.empty(rows, z.dtype), np.empty(rows, z.dtype), np.empty(rows, z.dtype)
    for f in range(members * n):
        m, i = divmod(f, n)
        for c in range(columns):
            for r in range(rows):
                psi[r] = A[i, 0, c, r] * z[m, 0, c, r]
            for j in range(1, n):
                row, state = A[i, j, c], z[m, j, c]
                for r in range(rows):
                    psi[r] += row[r] * state[r]
            mirror[0] = psi[0]
            for r in range(1, rows):
                mirror[r] = psi[rows - r]
            other = out.shape[1] - c
            if c == 0 or other < columns:  # k = 0 and Nyquist: real fields have no other half
                for r in range(rows):
                    psi[r] = 0.5 * complex(psi[r].real + mirror[r].real, psi[r].imag - mirror[r].imag)
            else:
                for r in range(rows):
                    p, q = mirror[r].real, mirror[r].imag
                    w[r] = complex(k[c] * p - l[r] * q, -k[c] * q - l[r] * p)
                out[f, other, :up] = w[:up]
                out[f, other, ny - rows + up :] = w[up:]
            for r in range(rows):
                p, q = psi[r].real, psi[r].imag
                w[r] = complex(l[r] * q - k[c] * p, -k[c] * q - l[r] * p)
            out[f, c, :up] = w[:up]
            out[f, c, ny - rows + up :] = w[up:]


@compiled
def turn(f, out, first, columns, nx):
    """Rows k (0 .. K, -K .. -1) of some y into a row for each y, with zeros for the k that are not kept."""
    fields, rows, _ = f.shape
    gap = nx - rows
    for i in range(fields):
        for y in range(out.shape[1]):
            out[i, y, columns : columns + gap] = 0
        for c in range(rows):
            to = c if c < columns else c + gap
            row = f[i, c, first : first + out.shape[1]]
            for y in range(row.size):
                out[i, y, to] = row[y]


@compiled
def turn_back(f, out, first, columns, nx):
    """The reverse of ``turn``."""
    fields, rows, _ = out.shape
    gap = nx - rows
    for i in range(fields):
        for c in range(rows):
            source = c if c < columns else c + gap
            row = out[i, c, first : first + f.shape[1]]
            for y in range(row.size):
                row[y] = f[i, y, source]


@compiled
def turn_real(f, out, first, width, nx):
    """Rows k >= 0 of real fields into rows of ``f(y) + i f(y + half)`` at all k."""
    fields, columns, _ = f.shape
    half = out.shape[1]
    for i in range(fields):
        for c in range(columns):
            row = f[i, c, first : first + width]
            for y in range(half):
                a = row[y]
                b = row[y + half] if y + half < width else 0 * a
                if c == 0 or 2 * c == nx:
                    out[i, y, c] = complex(a.real, b.real)
                else:
                    out[i, y, c] = complex(a.real - b.imag, a.imag + b.real)
                    out[i, y, nx - c] = complex(a.real + b.imag, b.real - a.imag)


@compiled
def turn_real_back(f, out, first, width, nx):
    """The reverse of ``turn_real``."""
    fields, columns, _ = out.shape
    half = f.shape[1]
    for i in range(fields):
        for c in range(columns):
            row = out[i, c, first : first + width]
            other = nx - c if c > 0 else 0
            for y in range(half):
                a, b = f[i, y, c], f[i, y, other]
                row[y] = complex(0.5 * (a.real + b.real), 0.5 * (a.imag - b.imag))
                if y + half < width:
                    row[y + half] = complex(0.5 * (a.imag + b.imag), 0.5 * (b.real - a.real))


@compiled
def square(w, J, n):
    """``w^2`` of each layer in place, and ``J = u_i v_i+1 - v_i u_i+1`` of each interface, two halves as one."""
    fields, width, nx = w.shape
    for f in range(fields):
        m, i = divmod(f, n)
        if i + 1 < n:
            here, next, coupling = w[f], w[f + 1], J[m * (n - 1) + i]
            half = len(coupling)
            for y in range(half):
                other = y + half if y + half < width else y
                couple(here[y], next[y], here[other], next[other], coupling[y])
        for y in range(width):
            row = w[f, y]
            for x in range(nx):
                u, v = row[x].real, row[x].imag
                row[x] = complex((u - v) * (u + v), 2 * u * v)


@compiled
def couple(a, b, c, d, out):
    """a x b + i c x d, where a x b is the determinant of two vectors."""
    for x in range(out.size):
        first = a[x].real * b[x].imag - a[x].imag * b[x].real
        out[x] = complex(first, c[x].real * d[x].imag - c[x].imag * d[x].real)


@compiled
def multiply(w, q, n):
    """``w q`` of each layer in place; q has two halves as one."""
    fields, width, nx = w.shape
    half = q.shape[1]
    for f in range(fields):
        for y in range(width):
            row, factor = w[f, y], q[f, y].real if y < half else q[f, y - half].imag
            for x in range(nx):
                row[x] = complex(row[x].real * factor[x], row[x].imag * factor[x])


@compiled
def collect(F, J, factor, exact, below, above, out):
    """``a F +- conj(a F')``, where ``F'(k, l) = F(-k, -l)``, and ``-+ S J`` between neighbours where ``exact``."""
    members, n, columns, rows = out.shape
    up, ny = (rows + 1) // 2, F.shape[2]
    here, mirror = np.empty(rows, F.dtype), np.empty(rows, F.dtype)
    for f in range(members * n):
        m, i = divmod(f, n)
        for c in range(columns):
            target, a = out[m, i, c], factor[c]
            other = F.shape[1] - c
            other = F[f, c if c == 0 or other < columns else other]
            here[:up], here[up:] = F[f, c, :up], F[f, c, ny - rows + up :]
            mirror[0] = other[0]
            for r in range(1, rows - up + 1):
                mirror[r] = other[ny - r]
            for r in range(rows - up + 1, rows):
                mirror[r] = other[rows - r]
            if exact:
                for r in range(rows):
                    p, q = here[r].real + mirror[r].real, here[r].imag - mirror[r].imag
                    s, t = here[r].real - mirror[r].real, here[r].imag + mirror[r].imag
                    target[r] = complex(a[r].real * p - a[r].imag * t, a[r].real * q + a[r].imag * s)
            else:
                for r in range(rows):
                    target[r] = a[r] * here[r] - np.conj(a[r] * mirror[r])
            if exact and i + 1 < n:
                add_product(target, -below[i], J[m * (n - 1) + i, c], up)
            if exact and i > 0:
                add_product(target, above[i - 1], J[m * (n - 1) + i - 1, c], up)


@compiled
def add_product(out, factor, padded, up):
    """out += factor times the kept coefficients of a padded row."""
    for r in range(up):
        out[r] += factor * padded[r]
    gap = padded.size - out.size
    for r in range(up, out.size):
        out[r] += factor * padded[gap + r]


@compiled
def apply_linear(L, z, out):
    """out += L z."""
    members, n, columns, rows = z.shape
    for m in range(members):
        for i in range(n):
            for c in range(columns):
                target = out[m, i, c]
                for j in range(n):
                    row, state = L[i, j, c], z[m, j, c]
                    for r in range(rows):
                        target[r] += row[r] * state[r]


def add_up(z: Tensor, fs: Sequence[Tensor], weights: Sequence[float], factor: Tensor | None) -> Tensor:
    """``factor (z + sum_i weights_i fs_i)`` for up to four ``fs``; ``factor`` has the shape of the last axes of z."""
    out = torch.empty_like(z, memory_format=torch.contiguous_format)
    a, b, c, d = (array(f) for f in (*fs, *[fs[0]] * (4 - len(fs))))
    w = small_array(tuple(weights), z.dtype)
    mask = w[:0] if factor is None else array(factor)
    summed(array(z), a, b, c, d, out.numpy(), w, mask)
    return out


@cache
def small_array(values: tuple[float, ...], dtype: torch.dtype) -> np.ndarray:
    """The values as reals of the precision of the complex ``dtype``."""
    return np.array(values, np.float32 if dtype == torch.complex64 else np.float64)


@compiled
def summed(z, a, b, c, d, out, w, factor):
    z, a, b, c, d, out, factor = z.ravel(), a.ravel(), b.ravel(), c.ravel(), d.ravel(), out.ravel(), factor.ravel()
    if w.size == 1:
        for s in range(z.size):
            out[s] = z[s] + w[0] * a[s]
    elif w.size == 2:
        for s in range(z.size):
            out[s] = z[s] + w[0] * a[s] + w[1] * b[s]
    elif w.size == 3:
        for s in range(z.size):
            out[s] = z[s] + w[0] * a[s] + w[1] * b[s] + w[2] * c[s]
    else:
        for s in range(z.size):
            out[s] = z[s] + w[0] * a[s] + w[1] * b[s] + w[2] * c[s] + w[3] * d[s]
    period = factor.size
    if period:
        for first in range(0, z.size, period):
            part = out[first : first + period]
            for p in range(period):
                part[p] *= factor[p]
