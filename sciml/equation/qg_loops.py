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
def velocity(z, A, k, l, first, high, ny, out):  # noqa: E741
    """Rows of ``u + i v = i (d_x + i d_y) psi`` of every layer at k = first .., then at -high .. -1; psi = A z."""
    members, n, _, rows = z.shape
    up = (rows + 1) // 2  # rows l >= 0; the others go to the end, behind a gap of zeros
    columns = out.shape[1] - max(0, high - max(first, 1) + 1)
    psi, mirror, w = np.empty(rows, z.dtype), np.empty(rows, z.dtype), np.empty(rows, z.dtype)
    for f in range(members * n):
        m, i = divmod(f, n)
        for c in range(first, first + columns):
            for r in range(rows):
                psi[r] = A[i, 0, c, r] * z[m, 0, c, r]
            for j in range(1, n):
                row, state = A[i, j, c], z[m, j, c]
                for r in range(rows):
                    psi[r] += row[r] * state[r]
            mirror[0] = psi[0]
            for r in range(1, rows):
                mirror[r] = psi[rows - r]
            if c == 0 or c > high:  # k = 0 and Nyquist: real fields have no other half
                for r in range(rows):
                    psi[r] = 0.5 * complex(psi[r].real + mirror[r].real, psi[r].imag - mirror[r].imag)
            else:
                for r in range(rows):
                    p, q = mirror[r].real, mirror[r].imag
                    w[r] = complex(k[c] * p - l[r] * q, -k[c] * q - l[r] * p)
                spread(w, out[f, columns + high - c], up, ny)
            for r in range(rows):
                p, q = psi[r].real, psi[r].imag
                w[r] = complex(l[r] * q - k[c] * p, -k[c] * q - l[r] * p)
            spread(w, out[f, c - first], up, ny)


@compiled
def spread(kept, out, up, ny):
    """The kept coefficients into a row, with zeros for the others."""
    out[:up] = kept[:up]
    out[up : ny - kept.size + up] = 0
    out[ny - kept.size + up : ny] = kept[up:]


@compiled
def spread_rows(z, out, first, ny):
    """Kept coefficients of the rows k = first .. of every field into padded rows."""
    members, n, _, rows = z.shape
    for f in range(members * n):
        m, i = divmod(f, n)
        for c in range(out.shape[1]):
            spread(z[m, i, first + c], out[f, c], (rows + 1) // 2, ny)


@compiled
def turn(f, out, ny, places):
    """Rows with y along them into rows with x along them; row c goes to column places[c]."""
    fields, rows, _ = f.shape
    for i in range(fields):
        for y in range(ny):
            row = out[i, y]
            for c in range(rows):
                row[places[c]] = f[i, c, y]


@compiled
def turn_back(f, out, first, places):
    """The reverse of ``turn``, of the values y = first ..."""
    fields, width, _ = f.shape
    for i in range(fields):
        for c in range(places.size):
            row, source = out[i, c, first : first + width], places[c]
            for y in range(width):
                row[y] = f[i, y, source]


@compiled
def turn_real(f, out, first, ny, nx):
    """Rows k = first .. of real fields into rows ``f(2 y) + i f(2 y + 1)``, at k and -k."""
    fields, columns, _ = f.shape
    for i in range(fields):
        for y in range(0, ny, 2):
            row = out[i, y // 2]
            for c in range(columns):
                k, a = first + c, f[i, c, y]
                b = f[i, c, y + 1] if y + 1 < ny else 0 * a
                if k == 0 or 2 * k == nx:
                    row[k] = complex(a.real, b.real)
                else:
                    row[k] = complex(a.real - b.imag, a.imag + b.real)
                    row[nx - k] = complex(a.real + b.imag, b.real - a.imag)


@compiled
def turn_real_back(f, out, first, ny, nx):
    """The reverse of ``turn_real``, of the values y = first ..."""
    fields, pairs, _ = f.shape
    for i in range(fields):
        for c in range(out.shape[1]):
            row = out[i, c, first:ny]
            for p in range(pairs):
                a, b = f[i, p, c], f[i, p, nx - c if c > 0 else 0]
                row[2 * p] = complex(0.5 * (a.real + b.real), 0.5 * (a.imag - b.imag))
                if 2 * p + 1 < row.size:
                    row[2 * p + 1] = complex(0.5 * (a.imag + b.imag), 0.5 * (b.real - a.real))


@compiled
def products(w, J, n, squares):
    """``J = u_i v_i+1 - v_i u_i+1`` of each interface, two rows as one, and with ``squares`` ``w^2`` of each layer in
    place."""
    fields, width, nx = w.shape
    for f in range(fields):
        m, i = divmod(f, n)
        if i + 1 < n:
            here, next, coupling = w[f], w[f + 1], J[m * (n - 1) + i]
            for y in range(0, width, 2):
                other = min(y + 1, width - 1)
                couple(here[y], next[y], here[other], next[other], coupling[y // 2])
        for y in range(width if squares else 0):
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
    """``w q`` of each layer in place; q has two rows as one."""
    fields, width, nx = w.shape
    for f in range(fields):
        for y in range(width):
            row, factor = w[f, y], q[f, y // 2].imag if y % 2 else q[f, y // 2].real
            for x in range(nx):
                row[x] = complex(row[x].real * factor[x], row[x].imag * factor[x])


@compiled
def collect(F, J, factor, exact, below, above, first, high, ny, z, L, out):
    """``a F +- conj(a F') + L z``, with ``F'(k, l) = F(-k, -l)``; where ``exact``, neighbours exchange ``S J``."""
    members, n, _, rows = out.shape
    up = (rows + 1) // 2
    columns = F.shape[1] - max(0, high - max(first, 1) + 1)
    here, mirror = np.empty(rows, F.dtype), np.empty(rows, F.dtype)
    for f in range(members * n):
        m, i = divmod(f, n)
        for c in range(first, first + columns):
            target, a = out[m, i, c], factor[c]
            row = F[f, c - first]
            other = row if c == 0 or c > high else F[f, columns + high - c]
            here[:up], here[up:] = row[:up], row[ny - rows + up : ny]
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
                add_product(target, -below[i], J[m * (n - 1) + i, c - first, :ny], up)
            if exact and i > 0:
                add_product(target, above[i - 1], J[m * (n - 1) + i - 1, c - first, :ny], up)
            for j in range(len(L)):
                row, state = L[i, j, c], z[m, j, c]
                for r in range(rows):
                    target[r] += row[r] * state[r]


@compiled
def collect_real(J, scale, first, ny, out):
    """``scale J`` of rows k = first .. of one field a member."""
    rows = out.shape[3]
    for m in range(out.shape[0]):
        for c in range(J.shape[1]):
            target = out[m, 0, first + c]
            target[:] = 0
            add_product(target, scale, J[m, c, :ny], (rows + 1) // 2)


@compiled
def add_product(out, factor, padded, up):
    """out += factor times the kept coefficients of a padded row."""
    for r in range(up):
        out[r] += factor * padded[r]
    gap = padded.size - out.size
    for r in range(up, out.size):
        out[r] += factor * padded[gap + r]


def matrix_product(M: Tensor, z: Tensor) -> Tensor:
    """Matrix per wavevector ``(m, n, *modes)`` times complex states ``(..., n, *modes)``."""
    (m, n), size = M.shape[:2], M.shape[2] * M.shape[3]
    out = torch.empty(*z.shape[:-3], m, *z.shape[-2:], dtype=torch.promote_types(M.dtype, z.dtype))
    multiplied(array(M).reshape(m, n, size), array(z).reshape(-1, n, size), out.numpy().reshape(-1, m, size))
    return out


@compiled
def multiplied(M, z, out):
    for s in range(out.shape[0]):
        for i in range(out.shape[1]):
            target, row, state = out[s, i], M[i, 0], z[s, 0]
            for p in range(target.size):
                target[p] = row[p] * state[p]
            for j in range(1, z.shape[1]):
                row, state = M[i, j], z[s, j]
                for p in range(target.size):
                    target[p] += row[p] * state[p]


def add_up(z: Tensor, fs: Sequence[Tensor], weights: Sequence[float], factor: Tensor | None) -> Tensor:
    """``factor (z + sum_i weights_i fs_i)`` for up to four ``fs``; ``factor`` has the shape of the last axes of z."""
    out = torch.empty_like(z, memory_format=torch.contiguous_format)
    arrays = [array(f) for f in fs]
    a, b, c, d = arrays + arrays[:1] * (4 - len(fs))
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
