"""Trained networks with what they need to be used: scaling, names, grid and time step, in one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from sciml.files import load_tensors, refusing, save_tensors
from sciml.grid import Grid, seconds
from sciml.nn.mgno import MgNO
from sciml.nn.unet import UNet
from sciml.step import State, Step

NETWORKS: dict[str, Any] = {"MgNO": MgNO, "UNet": UNet}
"""Networks that files may name; each is made of keyword arguments that ``about`` gives."""
KIND = "trained network"
SAMPLE = 64
"""Stretches of which the errors of a classical step are scaled"""


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

    Raises ``ValueError`` for scalings of other channels than the network's; calls refuse fields of other channels or
    axes, and such that are not finite.
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
        fields = torch.as_tensor(fields)
        channels, axes = len(self.inputs.mean), self.inputs.mean.ndim - 1
        if fields.ndim != axes + 2 or fields.shape[1] != channels:
            raise ValueError(f"fields must be (batch, {channels} channels, {axes} axes), got {tuple(fields.shape)}")
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

    With a classical ``step`` the network corrects that instead: it is shown the fields and by how much the step, taken
    as often as fits into dt, changes them, and gives what is to be added to that,

    .. math:: q(t + dt) = M(q) + N(q, M(q) - q).

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
    step: Step | None = None

    def __post_init__(self):
        n, step = len(self.names), self.step
        wanted, what = (n, "") if step is None else (2 * n, " that corrects a step")
        if (len(self.learned.inputs.mean), len(self.learned.outputs.mean)) != (wanted, n):
            raise ValueError(f"a surrogate of {n} fields{what} needs a network of {wanted} inputs and {n} outputs")
        if step is None:
            return
        shape, fits = step.equation.grid.shape, np.isclose(self.every * step.dt, self.dt, rtol=1e-9)
        if shape != self.grid.shape or not fits:
            raise ValueError(f"a step of {step.dt:g} s on a grid of {shape} points does not go into {self.dt:g} s on "
                             f"one of {self.grid.shape}")  # fmt: skip

    @property
    def every(self) -> int:
        """How often the classical step is taken in one of these."""
        return 0 if self.step is None else round(self.dt / self.step.dt)

    @cached_property
    def states(self) -> Scaling:
        """Of the fields."""
        return Scaling(*(s[: len(self.names)] for s in self.learned.inputs))

    def init(self, fields: Tensor, time: float = 0.0, seed: int = 0) -> State:
        """Raises ``ValueError`` for fields of other channels, of another grid, or not finite."""
        fields, wanted = torch.as_tensor(fields), (len(self.names), *self.grid.shape)
        if tuple(fields.shape[-3:]) != wanted:
            raise ValueError(f"the surrogate was trained for fields (..., {', '.join(map(str, wanted))}) of "
                             f"{', '.join(self.names)}, got {tuple(fields.shape)}")  # fmt: skip
        if not bool(torch.isfinite(fields).all()):
            raise ValueError("the fields are not finite everywhere")
        weight = next(self.learned.net.parameters())
        return State(self.kept(self.states.scaled(fields).to(weight)), float(time))

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
        start, shown = flat, flat
        if self.step is not None:
            start = self.stepped(flat)
            scale = self.states.std / self.learned.inputs.std[len(self.names) :]
            shown = torch.cat([flat, (start - flat) * scale.to(flat)], 1)
        change = self.learned.net(shown).to(z.dtype) * (self.learned.outputs.std / self.states.std).to(z)
        if self.conserving:
            change = change - change.mean((-2, -1), keepdim=True)
        return self.kept(start + change).reshape(z.shape)

    def stepped(self, z: Tensor) -> Tensor:
        """Scaled fields after the classical step has been taken as often as fits into dt."""
        assert self.step is not None
        with torch.autocast(z.device.type, enabled=False):  # transforms need single precision
            return self.states.scaled(stepped(self.step, self.states.unscaled(z), self.every)).to(z)

    def read(self, state: State) -> Tensor:
        """Fields in their own units, ``(..., n, ny, nx)``."""
        return self.states.unscaled(state.z)

    def save(self, path: Path, **about: Any) -> None:
        """Write the network with its scalings, grid and time step, and ``about`` it; see :meth:`Learned.save`."""
        g = self.grid
        grid = dict(nx=g.nx, ny=g.ny, Lx=g.Lx, Ly=g.Ly, dealias=g.dealias, x0=g.x0, y0=g.y0)
        own = dict(grid=grid, dt=self.dt, names=self.names, conserving=self.conserving, every=self.every)
        self.learned.save(path, surrogate=own, **about)

    @classmethod
    def load(cls, path: Path, step: Step | None = None) -> Surrogate:
        """What :meth:`save` wrote, with the classical ``step`` that it corrects, if it does, which files do not hold.

        Raises ``ValueError`` for files of something else, and where a step is missing, too many, or another one.
        """
        learned = Learned.load(path)
        if "surrogate" not in learned.about:
            raise ValueError(f"{path} holds a network that is no time step")
        corrects = bool(learned.about["surrogate"].get("every"))
        if corrects and step is None:
            raise ValueError(f"{path} corrects a classical model: give its step, Surrogate.load(path, step)")
        if step is not None and not corrects:
            raise ValueError(f"{path} corrects no classical model: load it without a step")
        with refusing(path):
            own = learned.about["surrogate"]
            return cls(learned, Grid(**own["grid"]), own["dt"], tuple(own["names"]), own["conserving"], step)


def often(step: Step | None, grid: Grid, dt: float) -> int:
    """How many times ``step`` is taken until ``dt``; 0 without one. Raises ``ValueError`` where it does not go into dt,
    or is of another grid."""
    if step is None:
        return 0
    shape, times = step.equation.grid.shape, round(dt / step.dt)
    if shape != grid.shape or not np.isclose(times * step.dt, dt, rtol=1e-9):
        raise ValueError(f"a step of {step.dt:g} s on a grid of {shape} points does not go into {dt:g} s on one of "
                         f"{grid.shape}")  # fmt: skip
    return times


def stepped(step: Step, fields: Tensor, times: int) -> Tensor:
    """Fields after ``step`` has been taken ``times`` times, in its precision."""
    state = step.init(fields.to(step.equation.grid.dtype))
    for _ in range(times):
        state = step(state)
    return step.read(state)


class Windows(NamedTuple):
    """Stretches of runs ``(runs, times, channels, y, x)``, ``every`` records from one state to the next."""

    runs: Tensor
    every: int

    @classmethod
    def of(cls, runs: Sequence[xr.Dataset], every: int = 1, name: str = "q") -> tuple[Windows, Grid, float]:
        """From a variable ``(time, [lev,] y, x)`` of runs of equal length, their grid, and the time between states [s].

        Raises ``ValueError`` where the variable is missing, or times are not evenly spaced (see
        :func:`sciml.grid.seconds` for their units).
        """
        if isinstance(runs, xr.Dataset) or not runs:
            raise ValueError("runs are a list of at least one Dataset, as to_dataset makes them")
        runs = [ds.isel(member=i) for ds in runs for i in range(ds.sizes.get("member", 0))] + [
            ds for ds in runs if "member" not in ds.dims
        ]
        if missing := [i for i, ds in enumerate(runs) if name not in ds]:
            there = ", ".join(map(str, runs[missing[0]].data_vars))
            raise ValueError(f"run {missing[0]} has no variable {name!r}, but {there}; choose one with name=")
        steps = np.concatenate([np.diff(seconds(ds)) for ds in runs])
        if not len(steps) or not np.allclose(steps, steps[0], rtol=1e-6):
            raise ValueError("the times of the runs are not evenly spaced")
        values = [channels(ds[name]) for ds in runs]
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

    def scalings(self, centred: bool = False, step: Step | None = None, times: int = 0) -> tuple[Scaling, Scaling]:
        """Of a network's inputs and outputs: the states, without mean unless ``centred``, and the increments from each
        to the next, without; where it corrects a ``step``, taken ``times`` times, of its errors instead."""
        x = self.runs
        states = Scaling.of(x.flatten(0, 1), centred)
        if step is None:
            return states, Scaling.of((x[:, self.every :] - x[:, : -self.every]).flatten(0, 1), False)
        some = np.unique(np.linspace(0, self.count(1) - 1, SAMPLE).astype(int)).tolist()
        pairs = self(some, 1).to(step.equation.grid.dtype)
        with torch.no_grad():
            found = stepped(step, pairs[:, 0], times)
        changes, errors = (Scaling.of(d.float(), False) for d in (found - pairs[:, 0], pairs[:, 1] - found))
        return Scaling(*(torch.cat(s) for s in zip(states, changes, strict=True))), errors


def channels(v: xr.DataArray) -> np.ndarray:
    """A variable of one grid as ``(time, channels, y, x)`` in single precision, its levels, if any, as channels."""
    levels = [d for d in v.dims if d not in ("time", "y", "x")]
    if len(levels) > 1 or not {"time", "y", "x"} <= set(v.dims):
        raise ValueError(f"{v.name} must have the dimensions time, y, x and at most one more, got {v.dims}; select one")
    values = np.array(v.transpose("time", *levels, "y", "x").values, dtype=np.float32)
    return values if levels else values[:, None]
