"""Trained networks with what they need to be used: scaling, names, grid and time step, in one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from sciml.files import load_tensors, refusing, save_tensors
from sciml.grid import Grid
from sciml.nn.mgno import MgNO
from sciml.nn.unet import UNet
from sciml.step import State

NETWORKS: dict[str, Any] = {"MgNO": MgNO, "UNet": UNet}
"""Networks that files may name; each is made of keyword arguments that ``about`` gives."""
KIND = "trained network"


class Scaling(NamedTuple):
    """``(x - mean) / std`` of each channel, ``(channels, 1[, 1])``."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, fields: Tensor, centred: bool = True) -> Scaling:
        """From fields ``(samples, channels, ...)``; without mean where they shall stay signed (not ``centred``).

        Raises ``ValueError`` for values that are not finite, and for channels that are constant.
        """
        rest = [d for d in range(fields.ndim) if d != 1]
        mean = fields.mean(rest, keepdim=True)[0] * centred
        std = (fields - mean).square().mean(rest, keepdim=True)[0].sqrt()
        if not bool(torch.isfinite(std).all()):
            raise ValueError("the fields to scale by are not finite everywhere")
        if not bool((std > 0).all()):
            raise ValueError(f"channel {int((std <= 0).nonzero()[0, 0])} is constant: leave it out")
        return cls(mean, std)

    def scaled(self, x: Tensor) -> Tensor:
        return (x - self.mean.to(x)) / self.std.to(x)

    def unscaled(self, x: Tensor) -> Tensor:
        return x * self.std.to(x) + self.mean.to(x)


@dataclass(frozen=True)
class Learned:
    """``fields (b, inputs, [y,] x) -> (b, outputs, [y,] x)`` in their own units by a network of scaled ones.

    ``about`` is what its file says of it.

    Raises ``ValueError`` for scalings of other channels than the network's; calls refuse fields that are not finite.
    """

    net: nn.Module
    inputs: Scaling
    outputs: Scaling
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        c: Any = self.net.config
        sizes = len(self.inputs.mean), len(self.outputs.mean)
        if sizes != (c.inputs, c.outputs):
            raise ValueError(f"the network has {c.inputs} inputs and {c.outputs} outputs, the scalings are of {sizes}")

    def __call__(self, fields: Tensor) -> Tensor:
        if not bool(torch.isfinite(fields.sum())):
            raise ValueError("the fields are not finite everywhere")
        weight = next(self.net.parameters())
        out = self.net(self.inputs.scaled(fields).to(weight))
        return self.outputs.unscaled(out).to(fields.dtype)

    def save(self, path: Path, **about: Any) -> None:
        """Write weights, buffers and scalings (safetensors) with all that makes the network again, and ``about`` it.

        Raises ``ValueError`` for a network that ``NETWORKS`` does not name, which could not be read again.
        """
        if (name := type(self.net).__name__) not in NETWORKS:
            raise ValueError(f"no file could name the network: set sciml.surrogate.NETWORKS[{name!r}] = {name} first")
        net: Any = self.net
        scalings = {"inputs": self.inputs, "outputs": self.outputs}
        tensors = {f"{n}.{k}": v for n, s in scalings.items() for k, v in s._asdict().items()}
        header = {"kind": KIND, "network": name, "options": net.about(), "about": self.about | about}
        save_tensors(path, {f"net.{n}": p for n, p in net.state_dict().items()} | tensors, header)

    @classmethod
    def load(cls, path: Path) -> Learned:
        """What :meth:`save` wrote; ``ValueError`` for files of something else."""
        tensors, header = load_tensors(path, finite=True)
        if header.get("kind") != KIND or header.get("network") not in NETWORKS:
            raise ValueError(f"{path} holds no network of {', '.join(NETWORKS)}, but {header.get('kind', 'others')}")
        with refusing(path):
            options = {n: nested(v) for n, v in header["options"].items()}
            net = NETWORKS[header["network"]](**options)
            put(net, {n.removeprefix("net."): t for n, t in tensors.items() if n.startswith("net.")})
            a, b = (Scaling(tensors[f"{n}.mean"], tensors[f"{n}.std"]) for n in ("inputs", "outputs"))
        return cls(net.eval(), a, b, header["about"])


def put(net: nn.Module, state: dict[str, Tensor]) -> None:
    """Parameters and buffers into a network. Raises ``ValueError`` where they are not exactly its own."""
    own = {n: t.shape for n, t in net.state_dict().items()}
    if other := [n for n in own.keys() | state.keys() if n not in state or own.get(n) != state[n].shape]:
        raise ValueError(f"{min(other)} of the network is missing, or of another shape")
    net.load_state_dict(state)


def nested(value: Any) -> Any:
    """Lists of a header as the tuples that they were."""
    return tuple(map(nested, value)) if isinstance(value, list) else value


@dataclass(frozen=True)
class Surrogate:
    """A network as a time step: fields ``(..., n, ny, nx)`` on ``grid`` plus the increment that it learned.

    The state holds fields in units of their standard deviations, in the network's precision, and of their waves those
    that the grid keeps: where its dealiasing rule is 2/3, what a network makes near the cutoff is dropped at each step,
    which otherwise piles up over thousands of them. Increments have no mean over the box where ``conserving``, as PV in
    a periodic box has none. ``names`` are those of the channels, ``dt`` in s.

    Examples
    --------
    >>> emulator = sm.Surrogate.load("data/weights/mgno_qg.safetensors")
    >>> run = sm.rollout(emulator, 3)(sm.random_pv(sm.preset("eddy", nx=64), seed=0))  # six days
    >>> emulator.names, run.fields.shape
    (('q1', 'q2'), torch.Size([4, 2, 64, 64]))
    """

    learned: Learned
    """of the increment over ``dt``"""
    grid: Grid
    dt: float
    names: tuple[str, ...]
    conserving: bool = True

    def init(self, fields: Tensor, time: float = 0.0, seed: int = 0) -> State:
        """Raises ``ValueError`` for fields of other channels, of another grid, or not finite."""
        wanted = (len(self.names), *self.grid.shape)
        if tuple(fields.shape[-3:]) != wanted:
            raise ValueError(f"the surrogate was trained for fields (..., {', '.join(map(str, wanted))}) of "
                             f"{', '.join(self.names)}, got {tuple(fields.shape)}")  # fmt: skip
        if not bool(torch.isfinite(fields).all()):
            raise ValueError("the fields are not finite everywhere")
        weight = next(self.learned.net.parameters())
        return State(self.kept(self.learned.inputs.scaled(fields).to(weight)), float(time))

    def kept(self, z: Tensor) -> Tensor:
        """The waves that the grid keeps."""
        if self.grid.dealias >= 1:
            return z
        return self.grid.ifft(self.grid.fft(z.to(self.grid.dtype))).to(z.dtype)

    def __call__(self, state: State) -> State:
        with torch.no_grad():
            return State(self.advanced(state.z), state.time + self.dt)

    def advanced(self, z: Tensor) -> Tensor:
        """Scaled fields one step later; gradients flow."""
        flat = z.reshape(-1, *z.shape[-3:])
        change = self.learned.net(flat).to(z.dtype) * (self.learned.outputs.std / self.learned.inputs.std).to(z)
        if self.conserving:
            change = change - change.mean((-2, -1), keepdim=True)
        return self.kept(flat + change).reshape(z.shape)

    def read(self, state: State) -> Tensor:
        """Fields in their own units, ``(..., n, ny, nx)``."""
        return self.learned.inputs.unscaled(state.z)

    def save(self, path: Path, **about: Any) -> None:
        """Write the network with its scalings, grid and time step, and ``about`` it; see :meth:`Learned.save`."""
        g = self.grid
        grid = dict(nx=g.nx, ny=g.ny, Lx=g.Lx, Ly=g.Ly, dealias=g.dealias, x0=g.x0, y0=g.y0)
        own = dict(grid=grid, dt=self.dt, names=self.names, conserving=self.conserving)
        self.learned.save(path, surrogate=own, **about)

    @classmethod
    def load(cls, path: Path) -> Surrogate:
        """What :meth:`save` wrote; ``ValueError`` for files of something else."""
        learned = Learned.load(path)
        if "surrogate" not in learned.about:
            raise ValueError(f"{path} holds a network that is no time step")
        with refusing(path):
            own = learned.about["surrogate"]
            return cls(learned, Grid(**own["grid"]), own["dt"], tuple(own["names"]), own["conserving"])


class Windows(NamedTuple):
    """Stretches of runs ``(runs, times, channels, y, x)``, ``every`` records from one state to the next."""

    runs: Tensor
    every: int

    @classmethod
    def of(cls, runs: Sequence[xr.Dataset], every: int = 1, name: str = "q") -> tuple[Windows, Grid, float]:
        """From a variable ``(time, lev, y, x)`` of runs of equal length, their grid, and the time between states in s.

        Raises ``ValueError`` where the variable is missing, or times are not evenly spaced.
        """
        if isinstance(runs, xr.Dataset) or not runs:
            raise ValueError("runs are a list of at least one Dataset, as to_dataset makes them")
        runs = [ds.isel(member=i) for ds in runs for i in range(ds.sizes.get("member", 0))] + [
            ds for ds in runs if "member" not in ds.dims
        ]
        if missing := [i for i, ds in enumerate(runs) if name not in ds]:
            there = ", ".join(map(str, runs[missing[0]].data_vars))
            raise ValueError(f"run {missing[0]} has no variable {name!r}, but {there}; choose one with name=")
        steps = np.concatenate([np.diff(ds["time"].values) for ds in runs])
        if not len(steps) or not np.allclose(steps, steps[0], rtol=1e-6):
            raise ValueError("the times of the runs are not evenly spaced")
        values = [np.array(ds[name].transpose("time", "lev", "y", "x").values, dtype=np.float32) for ds in runs]
        if len({v.shape for v in values}) > 1:
            raise ValueError(f"the runs differ in shape: {', '.join(sorted({str(v.shape) for v in values}))}")
        fields = torch.stack([torch.as_tensor(v) for v in values])
        return cls(fields, every), Grid.from_coords(runs[0], dealias=1), every * float(steps[0])

    def count(self, ahead: int) -> int:
        """How many stretches of ``ahead`` steps there are."""
        return self.runs.shape[0] * max(0, self.runs.shape[1] - ahead * self.every)

    def __call__(self, numbers: Sequence[int], ahead: int) -> Tensor:
        """Stretches ``(b, ahead + 1, channels, y, x)`` by number."""
        per_run = self.runs.shape[1] - ahead * self.every
        span = torch.arange(0, ahead * self.every + 1, self.every)
        return torch.stack([self.runs[i // per_run, i % per_run + span] for i in numbers])

    def scalings(self) -> tuple[Scaling, Scaling]:
        """Of the states, without mean, and of the increments from each to the next."""
        x = self.runs
        steps = x[:, self.every :] - x[:, : -self.every]
        return Scaling.of(x.flatten(0, 1), False), Scaling.of(steps.flatten(0, 1), False)
