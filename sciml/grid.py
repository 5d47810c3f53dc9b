"""Rectangular periodic boxes: axes, wavenumbers, transforms, dealiasing, change of resolution."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import xarray as xr
from torch import Tensor

COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
SPANS = {"s": 1.0, "sec": 1.0, "second": 1.0, "min": 60.0, "minute": 60.0, "h": 3600.0, "hr": 3600.0, "hour": 3600.0,
         "d": 86400.0, "day": 86400.0, "1": 1.0, "": 1.0}  # fmt: skip
"""Seconds in a unit of time, by its names in CF (UDUNITS), without the s of the plural; without units a number stays"""


@dataclass(frozen=True)
class Grid:
    r"""Periodic box of ``ny x nx`` points (any size, even or odd) and the Fourier modes kept on it.

    A real field ``f`` of shape ``(..., ny, nx)`` has coefficients ``fh`` of shape ``(..., *grid.modes)``,

    .. math:: f(x, y) = \sum_{k,l} \hat f(k, l)\, e^{i (k (x - x_0) + l (y - y_0))},

    so that a coefficient is an amplitude and does not depend on the resolution. Spectra are stored as ``(k, l)``, with
    ``k >= 0`` only and ``l = 0 ... M, -M ... -1``, and only the modes that the dealiasing rule keeps are stored at all.

    Parameters
    ----------
    nx, ny : points in x and y (``ny=None``: as many as nx)
    Lx, Ly : lengths of the box (``Ly=None``: square cells), in metres unless the equation says otherwise
    dealias : 2/3 keeps the modes below a third of the sampling wavenumber, which makes products of two fields exact;
        3/2 keeps all modes below Nyquist and forms products on a grid 3/2 as fine (also exact);
        1 keeps everything and lets products alias (pyqg's choice, to be used with a filter). Orszag (1971).
    x0, y0 : coordinates of the first point (default: half a cell, points are cell centres)

    Examples
    --------
    >>> grid = sm.Grid(32, 16, Lx=2 * torch.pi, Ly=torch.pi)
    >>> x, y = grid.axes()
    >>> wave = torch.sin(3 * x) + 0 * y
    >>> bool((grid.ifft(grid.ik * grid.fft(wave)) - 3 * torch.cos(3 * x)).abs().max() < 1e-12)
    True
    """

    nx: int
    ny: int = None  # type: ignore[assignment]  # filled in below
    Lx: float = 2 * math.pi
    Ly: float = None  # type: ignore[assignment]
    dealias: float = 2 / 3
    x0: float = None  # type: ignore[assignment]
    y0: float = None  # type: ignore[assignment]
    dtype: torch.dtype = torch.float64
    device: str = "cpu"

    def __post_init__(self):
        fill = object.__setattr__
        if self.ny is None:
            fill(self, "ny", self.nx)
        for n in ("nx", "ny"):
            if int(getattr(self, n)) != getattr(self, n) or getattr(self, n) < 1:
                raise ValueError(f"{n} must be a positive whole number, got {getattr(self, n)}")
            fill(self, n, int(getattr(self, n)))
        if self.Ly is None:
            fill(self, "Ly", self.Lx * self.ny / self.nx)
        if not (0 < self.Lx < math.inf and 0 < self.Ly < math.inf):
            raise ValueError(f"Lx and Ly must be positive lengths, got {self.Lx} and {self.Ly}")
        if not any(math.isclose(self.dealias, d, rel_tol=1e-3) for d in (1, 2 / 3, 3 / 2)):
            raise ValueError(f"dealias must be 1, 2/3 or 3/2, got {self.dealias}")
        if self.dtype not in COMPLEX:
            raise ValueError(f"dtype must be torch.float32 or torch.float64, got {self.dtype}")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError):
            raise ValueError(f"this machine has no device {self.device!r}; use 'cpu', or one that it has") from None
        fill(self, "x0", self.dx / 2 if self.x0 is None else self.x0)
        fill(self, "y0", self.dy / 2 if self.y0 is None else self.y0)

    # -- points ------------------------------------------------------------------------------------------------------
    @property
    def dx(self) -> float:
        return self.Lx / self.nx

    @property
    def dy(self) -> float:
        return self.Ly / self.ny

    @property
    def box(self) -> tuple[float, float, float, float]:
        """West, east, south and north edge, half a cell before the first points included."""
        return self.x0 - self.dx / 2, self.x0 + self.Lx, self.y0 - self.dy / 2, self.y0 + self.Ly

    @property
    def shape(self) -> tuple[int, int]:
        """Points ``(ny, nx)``."""
        return self.ny, self.nx

    @property
    def cdtype(self) -> torch.dtype:
        """Complex type of the coefficients."""
        return COMPLEX[self.dtype]

    @cached_property
    def product_shape(self) -> tuple[int, int]:
        """Points on which products of fields are formed."""
        if self.dealias <= 1:
            return self.shape
        ny, nx = (2 * math.ceil(3 * n / 4) if n > 1 else 1 for n in self.shape)
        return ny, nx

    def axes(self, shape: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """Coordinates ``x (1, nx)`` and ``y (ny, 1)`` of this grid, or of ``shape`` points of the same box."""
        ny, nx = shape or self.shape
        x = self.x0 + torch.arange(nx, dtype=torch.float64) * (self.Lx / nx)
        y = self.y0 + torch.arange(ny, dtype=torch.float64) * (self.Ly / ny)
        return self.real(x[None, :]), self.real(y[:, None])

    @property
    def x(self) -> Tensor:
        return self.axes()[0]

    @property
    def y(self) -> Tensor:
        return self.axes()[1]

    def real(self, a) -> Tensor:
        """``a`` as a tensor of this grid's real type and device."""
        a = a if isinstance(a, Tensor) else torch.as_tensor(np.array(a), dtype=self.dtype)
        return a.to(dtype=self.dtype, device=self.device)

    def complex(self, a) -> Tensor:
        """``a`` as a tensor of this grid's complex type and device."""
        a = a if isinstance(a, Tensor) else torch.as_tensor(a, dtype=self.cdtype)
        return a.to(dtype=self.cdtype, device=self.device)

    # -- modes -------------------------------------------------------------------------------------------------------
    @cached_property
    def cut(self) -> tuple[int, int]:
        """Largest index kept in x and in y."""
        if self.dealias < 1:
            return (self.nx - 1) // 3, (self.ny - 1) // 3
        odd = int(self.dealias > 1)  # exact products leave no room for the Nyquist mode
        return (self.nx - odd) // 2, (self.ny - odd) // 2

    @cached_property
    def modes(self) -> tuple[int, int]:
        """Shape ``(k, l)`` of a stored spectrum."""
        mx, my = self.cut
        return mx + 1, (self.ny if self.dealias == 1 else 2 * my + 1)

    @cached_property
    def k(self) -> Tensor:
        """Angular wavenumbers in x, float64, shape ``(modes[0], 1)``."""
        n = torch.arange(self.modes[0], dtype=torch.float64, device=self.device)
        return (2 * math.pi / self.Lx * n)[:, None]

    @cached_property
    def l(self) -> Tensor:  # noqa: E743
        """Angular wavenumbers in y, float64, shape ``(1, modes[1])``."""
        n = torch.fft.fftfreq(self.modes[1], 1 / self.modes[1], dtype=torch.float64, device=self.device)
        return (2 * math.pi / self.Ly * n)[None, :]

    @cached_property
    def ik(self) -> Tensor:
        """Multiplier of d/dx; zero at the Nyquist wavenumber, whose derivative is not a function of the grid."""
        return 1j * torch.where(self._nyquist[1], 0.0, self.k)

    @cached_property
    def il(self) -> Tensor:
        """Multiplier of d/dy; zero at the Nyquist wavenumber."""
        return 1j * torch.where(self._nyquist[0], 0.0, self.l)

    @cached_property
    def _nyquist(self) -> tuple[Tensor, Tensor]:
        def at(axis, n, length):
            return (2 * axis.abs() * length / (2 * math.pi)).round() == n

        return at(self.l, self.ny, self.Ly), at(self.k, self.nx, self.Lx)

    @cached_property
    def K2(self) -> Tensor:
        """``k^2 + l^2``, float64."""
        return self.k**2 + self.l**2

    @cached_property
    def invK2(self) -> Tensor:
        """``1 / (k^2 + l^2)``, zero at the mean."""
        return torch.where(self.K2 > 0, 1 / torch.where(self.K2 > 0, self.K2, 1.0), 0.0)

    @cached_property
    def weight(self) -> Tensor:
        """How often a stored mode counts in a sum over all wavevectors: 2, but 1 for k = 0 and k = Nyquist."""
        w = torch.full((self.modes[0], 1), 2.0, dtype=torch.float64, device=self.device)
        w[0, 0] = 1
        if self.nx % 2 == 0 and self.modes[0] == self.nx // 2 + 1:
            w[-1, 0] = 1
        return w

    # -- transforms --------------------------------------------------------------------------------------------------
    def fft(self, f: Tensor) -> Tensor:
        """Coefficients of a field given on any number of points of this box (truncated to the modes kept)."""
        columns, rows = self.modes
        fh = torch.fft.rfft(f, norm="forward")[..., :columns].mT
        if f.shape[-2] < rows or fh.shape[-2] < columns:
            raise ValueError(f"{f.shape[-2]} x {f.shape[-1]} points cannot give {rows} x {columns} modes; use resample")
        fh = torch.fft.fft(fh, norm="forward")
        return fh if fh.shape[-1] == rows else keep_low(fh, rows)

    def ifft(self, fh: Tensor, shape: tuple[int, int] | None = None) -> Tensor:
        """Field on this grid's points, or on ``shape`` points of the same box, at least as many as there are modes."""
        ny, nx = shape or self.shape
        columns, rows = fh.shape[-2:]
        if rows > ny or columns > nx // 2 + 1:
            raise ValueError(f"{ny} x {nx} points cannot hold {rows} x {columns} modes; use resample to coarsen")
        if rows < ny:
            if rows % 2 == 0:
                raise ValueError("a Nyquist mode does not continue to a finer grid; use resample, which drops it")
            half = (rows + 1) // 2
            gap = fh.new_zeros((*fh.shape[:-1], ny - rows))
            fh = torch.cat([fh[..., :half], gap, fh[..., half:]], dim=-1)
        return torch.fft.irfft(torch.fft.ifft(fh, norm="forward").mT, n=nx, norm="forward")

    def project(self, f: Tensor) -> Tensor:
        """``f`` without the modes that this grid does not keep."""
        return self.ifft(self.fft(f))

    def mean_square(self, fh: Tensor) -> Tensor:
        """Domain mean of ``f^2`` from its coefficients (Parseval)."""
        return (self.weight * fh.abs() ** 2).sum((-2, -1))

    # -- other grids -------------------------------------------------------------------------------------------------
    def resized(self, nx: int, ny: int | None = None) -> Grid:
        """The same box with other numbers of points; its first point stays a cell centre if it is one here."""
        ny = ny or (1 if self.ny == 1 else round(self.ny * nx / self.nx))
        centred = math.isclose(self.x0, self.dx / 2) and math.isclose(self.y0, self.dy / 2)
        origin = {"x0": None, "y0": None} if centred else {}
        return replace(self, nx=nx, ny=ny, **origin)

    def resample(self, f: Tensor, to: Grid) -> Tensor:
        """Coarsen or refine a field by spectral truncation or zero padding (the Nyquist mode is dropped)."""
        if not (math.isclose(self.Lx, to.Lx) and math.isclose(self.Ly, to.Ly)):
            raise ValueError(f"grids cover different boxes: {self.Lx} x {self.Ly} and {to.Lx} x {to.Ly}")
        mx = (min(self.nx, to.nx) - 1) // 2
        my = (min(self.ny, to.ny) - 1) // 2
        fh = torch.fft.fft(torch.fft.rfft(f, norm="forward")[..., : mx + 1].mT, norm="forward")
        fh = keep_low(fh, 2 * my + 1)
        n = torch.fft.fftfreq(2 * my + 1, 1 / (2 * my + 1), dtype=torch.float64, device=f.device)
        m = torch.arange(mx + 1, dtype=torch.float64, device=f.device)[:, None]
        shift = n * (to.y0 - self.y0) / self.Ly + m * (to.x0 - self.x0) / self.Lx
        return to.ifft(fh * torch.exp(2j * math.pi * shift).to(fh.dtype))

    def coords(self, units: str = "m") -> dict[str, xr.DataArray]:
        """CF coordinates ``y`` and ``x`` for a Dataset."""

        def axis(name, values, length):
            attrs = {"units": units, "axis": name.upper(), "long_name": f"{name} coordinate", "period": length}
            return xr.DataArray(values, dims=name, attrs=attrs)

        x, y = self.axes()
        return {
            "y": axis("y", y[:, 0].double().cpu().numpy(), self.Ly),
            "x": axis("x", x[0].double().cpu().numpy(), self.Lx),
        }

    @classmethod
    def from_coords(cls, ds: xr.Dataset | xr.DataArray, **options) -> Grid:
        """The grid of a Dataset's ``x`` and ``y`` coordinates, which must be evenly spaced.

        The period is the coordinate's attribute ``period`` where it has one, otherwise n times the spacing.
        """
        found = {}
        for name in ("x", "y"):
            if name not in ds.coords:
                raise ValueError(f"no coordinate {name!r} in the data set; it has {sorted(map(str, ds.coords))}")
            v = np.asarray(ds[name].values, dtype=float)
            step = np.diff(v)
            if v.size < 2 and "period" not in ds[name].attrs:
                raise ValueError(f"coordinate {name!r} has one point and no attribute 'period': its length is unknown")
            if v.size > 1 and not np.allclose(step, step[0], rtol=1e-4, atol=0):
                raise ValueError(f"coordinate {name!r} is not evenly spaced; interpolate to an even grid first")
            length = float(ds[name].attrs.get("period", v.size * step[0] if v.size > 1 else 0))
            if v.size > 1 and not math.isclose(length, v.size * step.mean(), rel_tol=1e-3):
                raise ValueError(f"coordinate {name!r} covers {v.size * step.mean():g} of its period {length:g}")
            found |= {f"n{name}": v.size, f"L{name}": length, f"{name}0": float(v[0])}
        return cls(**found, **options)


def seconds(ds: xr.Dataset | xr.DataArray) -> np.ndarray:
    """Times ``(time,)`` of a Dataset in seconds: numbers by their units, ``days since 2001-01-01`` or just ``h``; dates
    of any calendar, as xarray decodes them, counted from the first.

    Raises ``ValueError`` where there is no coordinate ``time``, or its units are not known.
    """
    if "time" not in ds.coords:
        raise ValueError(f"no coordinate 'time' in the data set; it has {sorted(map(str, ds.coords))}")
    time = np.atleast_1d(ds["time"].values)
    if np.issubdtype(time.dtype, np.timedelta64):
        return time / np.timedelta64(1, "s")
    if np.issubdtype(time.dtype, np.datetime64):
        return (time - time[0]) / np.timedelta64(1, "s")
    if not np.issubdtype(time.dtype, np.number):  # dates of other calendars
        return np.array([(t - time[0]).total_seconds() for t in time])
    units = str(ds["time"].attrs.get("units", "")).partition(" since ")[0].strip().lower()
    span = SPANS.get(units, SPANS.get(units.removesuffix("s")))
    if span is None:
        raise ValueError(f"the times are in {units!r}; they must be dates, or in seconds, minutes, hours or days")
    return span * time.astype(float)


def keep_low(fh: Tensor, n: int) -> Tensor:
    """The ``n`` (odd) lowest of the wavenumbers ``0 ... M, -M ... -1`` along the last axis."""
    return torch.cat([fh[..., : (n + 1) // 2], fh[..., fh.shape[-1] - n // 2 :]], dim=-1)
