"""A network as an analysis: FuXi-DA cycled like every other method.

The background trajectory is compared with all observations of the window at their own times; innovations are gathered
in cells of the grid, by frame and channel, with mask, count, age and error, and the network makes an increment of the
fields at the end of the window from them (Xu et al. 2025, npj Clim. Atmos. Sci. 8, 156; inputs and cycling are ours).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sciml.assim.base import Analysed, Covariance, Space, forecast, innovations, restarted, single
from sciml.assim.gridded import FirstGuess
from sciml.files import load_tensors, refusing, save_tensors
from sciml.nn.fuxida import Config, FuXiDANet
from sciml.observations import names
from sciml.observe import Operator, Window
from sciml.step import State, Step

PLANES = ("value", "mask", "count", "age", "sigma")
"""What is known of each cell of a frame and channel."""
KIND = "fuxida"
"""of weights, in their files"""
ROOT = "first.root"
"""name of the background covariance's root in these files"""
LARGE = 30.0
"""Innovations count as no larger than this, in units of their errors."""


class Memory(NamedTuple):
    """What the analysis carries from cycle to cycle."""

    hidden: Tensor
    """of the network"""
    sigma: Tensor
    """standard deviation of the error of the last analysis, ``(lev, y, x)``, in the unit of the fields"""


class Cells(NamedTuple):
    """Where the observations of a window fall, and all planes but that of the values; cells are numbered in the order
    ``(frame, channel, y, x)``."""

    index: Tensor
    """cell of each observation"""
    share: Tensor
    """weight of each observation in the mean of its cell"""
    fixed: Tensor
    """all planes but the first, ``(planes - 1, frame * channel * y * x)``"""


@dataclass(frozen=True)
class Inputs:
    """How a network is shown backgrounds and observations.

    Parameters
    ----------
    space : states as fields ``(..., lev, y, x)``, to which increments are added, and back
    fields : by name, what is shown of the state at the start and at the end of the window: fields of a state; the first
        of them is that of ``space``
    std : climatological standard deviations of these, by level
    channels, sigma : names of the channels in the order of the planes, and the errors that count as usual
    frames : parts of the window
    planes : what is shown of the observations in each frame and channel, of ``PLANES`` (the paper: values alone)
    harmonics : waves around the box whose sines and cosines are shown too, so that a network may learn errors of its
        model that stay in place (the paper shows latitude and longitude)
    first : a classical increment that is shown, too
    length : seconds of the windows of the training, which others are compared with (0: any)
    """

    space: Space
    fields: Mapping[str, Callable[[Tensor], Tensor]]
    std: Mapping[str, tuple[float, ...]]
    channels: tuple[str, ...]
    sigma: tuple[float, ...]
    frames: int = 2
    planes: tuple[str, ...] = PLANES
    harmonics: int = 0
    first: FirstGuess | None = None
    length: float = 0.0

    def __post_init__(self):
        if not self.fields or list(self.fields) != list(self.std) or len(self.channels) != len(self.sigma):
            raise ValueError("a network needs fields with a standard deviation each, and channels with an error each")
        if self.planes[:1] != PLANES[:1] or not set(self.planes) <= set(PLANES):
            raise ValueError(f"the planes are value and some of {', '.join(PLANES[1:])}, got {', '.join(self.planes)}")

    def scale(self, field: str | None = None) -> Tensor:
        """Standard deviation ``(lev, 1, 1)`` of a field (of the first one)."""
        return self.space.grid.real(self.std[field or next(iter(self.fields))])[:, None, None]

    @property
    def levels(self) -> int:
        """Of the increment."""
        return len(next(iter(self.std.values())))

    @property
    def backgrounds(self) -> int:
        """Number of planes of backgrounds."""
        return 2 * sum(len(s) for s in self.std.values()) + 4 * self.harmonics + self.levels * (self.first is not None)

    @property
    def seen(self) -> int:
        """Number of planes of observations."""
        return len(self.planes) * self.frames * len(self.channels)

    def cells(self, window: Window, keep: np.ndarray | None = None, noisier: float = 1.0) -> Cells:
        """Cells of the observations of a window, which depend on no state; only those that ``keep`` selects count, with
        errors ``noisier`` times as large as stated."""
        grid, obs = self.space.grid, window.obs
        known = names(obs, "channel")
        if strange := {known[int(c)] for c in np.unique(obs["channel"])} - set(self.channels):
            raise ValueError(
                f"the network knows the channels {', '.join(self.channels)}, not {', '.join(sorted(strange))}"
            )
        number = np.array([self.channels.index(n) if n in self.channels else -1 for n in known], int)
        channel = number[obs["channel"].values.astype(int)]
        length = window.steps * window.dt
        if self.length and abs(length - self.length) > 1e-6 * self.length:
            raise ValueError(f"the network was trained with windows of {self.length:g} s, this one has {length:g} s")
        part = (obs["time"].values - window.start) / length
        frame = np.clip(np.ceil(part * self.frames).astype(int) - 1, 0, self.frames - 1)
        row = np.rint((obs["y"].values - grid.y0) / grid.dy).astype(int) % grid.ny
        column = np.rint((obs["x"].values - grid.x0) / grid.dx).astype(int) % grid.nx
        size = self.frames * len(self.channels) * grid.ny * grid.nx
        index = ((frame * len(self.channels) + channel) * grid.ny + row) * grid.nx + column
        used = np.ones(len(index)) if keep is None else keep.astype(float)
        usual = np.array(self.sigma)[channel]
        weight = used * (usual / (noisier * obs["sigma"].values)) ** 2
        total, count = (np.bincount(index, w, minlength=size) for w in (weight, used))
        share = weight / np.maximum(total, 1e-12)[index]
        mask = count > 0
        age = np.bincount(index, share * (1 - part), minlength=size)
        sigma = np.where(mask, -0.5 * np.log(np.where(mask, total, 1.0)), 0.0)
        about = {"mask": mask, "count": np.log1p(count), "age": age, "sigma": sigma}
        fixed = np.array([about[n] for n in self.planes[1:]], np.float32).reshape(-1, size)
        device = grid.device
        return Cells(
            torch.as_tensor(index, device=device), grid.real(share).float(), torch.as_tensor(fixed, device=device)
        )

    def observations(self, cells: Cells, departures: Tensor) -> Tensor:
        """Planes ``(planes, y, x)`` of departures ``(observations)`` in units of their errors."""
        grid = self.space.grid
        value = cells.share * (departures.float() / 3).clamp(-LARGE / 3, LARGE / 3)
        values = value.new_zeros(cells.fixed.shape[1]).index_add(0, cells.index, value)
        return torch.cat([values[None], cells.fixed]).reshape(-1, *grid.shape)

    def background(self, states: Tensor) -> Tensor:
        """Planes ``(..., c, y, x)`` of a trajectory: its end and its start."""
        planes = [self.scaled(name, z) for z in (states[-1], states[0]) for name in self.fields]
        waves = self.waves()
        return torch.cat([*planes, waves.expand(*planes[0].shape[:-3], *waves.shape)], -3).float()

    def guess(self, z: Tensor, seen: Tensor) -> list[Tensor]:
        """The classical increment, if it is shown, from planes of observations ``(batch, planes, y, x)``, scaled."""
        if self.first is None:
            return []
        parts = seen.unflatten(1, (len(self.planes), self.frames, len(self.channels)))
        value, mask, count, sigma = (parts[:, self.planes.index(n)] for n in ("value", "mask", "count", "sigma"))
        precision = mask * torch.exp(-2 * sigma)
        departure = 3 * value * (torch.expm1(count) / precision.clamp(min=1e-12)).sqrt()
        total = precision.sum(1)
        mean = (precision * departure).sum(1) / total.clamp(min=1e-12)
        real = self.space.grid.real
        return [(self.first(z, real(mean), real(total)) / self.scale()).float()]

    def scaled(self, field: str, z: Tensor) -> Tensor:
        """A field of states over its climatological standard deviation."""
        values, expected = self.fields[field](z), len(self.std[field])
        if values.shape[-3] != expected:
            raise ValueError(
                f"the network knows {expected} levels of {field}, this model has {values.shape[-3]}; train one for it"
            )
        return values / self.scale(field)

    def waves(self) -> Tensor:
        """Sines and cosines ``(4 harmonics, y, x)`` with one to ``harmonics`` waves around the box."""
        grid = self.space.grid
        along = 2 * torch.pi * torch.arange(grid.nx) / grid.nx
        across = (2 * torch.pi * torch.arange(grid.ny) / grid.ny)[:, None]
        found = [
            turn(n * angle).expand(grid.shape)
            for n in range(1, self.harmonics + 1)
            for angle in (along, across)
            for turn in (torch.sin, torch.cos)
        ]
        return grid.real(torch.stack(found) if found else torch.zeros(0, *grid.shape))

    def labels(self) -> list[tuple]:
        """What each plane is that the network takes: those of the background, then those of the observations."""
        known = [(at, n, lev) for at in ("end", "start") for n, std in self.std.items() for lev in range(len(std))]
        waves = [("wave", i) for i in range(4 * self.harmonics)]
        first = [("first", i) for i in range(self.levels * (self.first is not None))]
        return known + waves + first + list(product(self.planes, range(self.frames), self.channels))

    def about(self) -> dict[str, Any]:
        """All but the functions: what a file of weights must say of its inputs."""
        names = ("std", "channels", "sigma", "frames", "planes", "harmonics", "length")
        return {n: getattr(self, n) for n in names} | {"first": self.first.iterations if self.first else 0}


def first_guess(inputs: Inputs, root: Tensor, operator: Operator, iterations: int) -> FirstGuess:
    """The classical increment for the channels of ``inputs`` and the root of a background covariance.

    Raises ``ValueError`` for a covariance of another grid, and where the operator lacks a channel.
    """
    grid, known = inputs.space.grid, {c.name: c.quantity for c in operator.channels}
    if root.shape[-2:] != grid.modes:
        raise ValueError(f"the background covariance has {tuple(root.shape[-2:])} modes, the grid {tuple(grid.modes)}")
    if missing := set(inputs.channels) - set(known):
        raise ValueError(f"the operator lacks the channels {', '.join(sorted(missing))} of the network")
    quantities = [known[c] for c in inputs.channels]
    return FirstGuess(Covariance(grid, grid.real(root)), inputs.space.read, quantities, inputs.sigma, iterations)


def measured(inputs: Inputs) -> dict[str, list[float]]:
    """Mean and standard deviation of what each channel of the classical increment measures of fixed waves: operators
    that differ give others under the same names."""
    if inputs.first is None:
        return {}
    grid, scale = inputs.space.grid, 2 * inputs.scale()
    x, y = (2 * torch.pi * torch.arange(n) / n for n in (grid.nx, grid.ny))
    waves = [torch.cos((2 + lev) * x) * torch.cos((3 + lev) * y + 1.0)[:, None] for lev in range(len(scale))]
    seen = [quantity(scale * grid.real(torch.stack(waves))) for quantity in inputs.first.quantities]
    return {name: [float(f.mean()), float(f.std())] for name, f in zip(inputs.channels, seen, strict=True)}


@dataclass(frozen=True)
class FuXiDA:
    """Background plus the network's increment; see :class:`Inputs`.

    A network of ``observations=0`` is shown none (the paper's CORR).

    Examples
    --------
    >>> from sciml import testbed
    >>> ocean = testbed.model()
    >>> network = sm.FuXiDA.load("data/weights/fuxida_qg.safetensors", *testbed.shown(ocean))
    >>> import xarray as xr
    >>> obs = xr.open_dataset("data/qg_satellite.nc", decode_times=False)
    >>> windows = sm.windows(obs, testbed.operator_of(obs, ocean), 0.0, testbed.DT, testbed.WINDOW, 2)
    >>> start = sm.State(0 * ocean.init(sm.random_pv(ocean, seed=0)))
    >>> psi = lambda z: ocean.grid.ifft(ocean.psi(z))
    >>> found = sm.cycle(testbed.stepper(ocean), network, windows, start, psi)
    >>> found.spread.shape  # the error that it states, (cycle, lev, y, x)
    torch.Size([2, 2, 64, 64])
    """

    net: FuXiDANet
    inputs: Inputs
    about: Mapping[str, Any] = field(default_factory=dict)
    """what the file of its weights says of their training"""

    def __post_init__(self):
        c, i = self.net.config, self.inputs
        if (c.background, c.outputs) != (i.backgrounds, i.levels) or c.observations not in (0, i.seen):
            raise ValueError(
                f"the network takes {c.background} background channels and {c.observations} planes of observations and "
                f"gives {c.outputs} fields; these inputs have {i.backgrounds} and {i.seen}, and {i.levels} levels"
            )

    def save(self, path: Path, **about: Any) -> None:
        """Write weights (safetensors) with all that is needed to use them, and ``about`` them."""
        first, grid = self.inputs.first, self.inputs.space.grid
        header = {"kind": KIND, "network": asdict(self.net.config), "inputs": self.inputs.about(),
                  "grid": {"dx": grid.dx, "dy": grid.dy}, "measured": measured(self.inputs),
                  "about": {**self.about, **about}}  # fmt: skip
        save_tensors(path, self.net.state_dict() | ({ROOT: first.covariance.root} if first else {}), header)

    @classmethod
    def load(
        cls, path: Path, space: Space, fields: Mapping[str, Callable[[Tensor], Tensor]], operator: Operator
    ) -> FuXiDA:
        """What :meth:`save` wrote, for states of ``space``; ``operator`` says what the channels measure.

        Raises ``ValueError`` for files that are damaged or of something else, and for other ``fields``, another
        spacing of the grid or channels that measure something else than in the training; other numbers of levels,
        unknown channels and other lengths of windows are refused when it is used.
        """
        tensors, header = load_tensors(path, finite=True)
        if header.get("kind") != KIND:
            raise ValueError(f"{path} holds no weights of this network but {header.get('kind', 'something else')}")
        with refusing(path):
            said: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in header["inputs"].items()}
            std = {n: tuple(v) for n, v in said.pop("std").items()}
            config = Config(**header["network"] | {"widths": tuple(header["network"]["widths"])})
        if list(std) != list(fields):
            raise ValueError(
                f"{path} is of a network for the fields {', '.join(std)}, not for {', '.join(fields)}; train another"
            )
        grid = space.grid
        for axis, trained in header.get("grid", {}).items():
            if abs((own := getattr(grid, axis)) - trained) > 1e-3 * trained:
                raise ValueError(
                    f"{path} is of a network for {axis} = {trained:g}, this grid has {own:g}; train another"
                )
        with refusing(path):
            iterations, root = said.pop("first", 0), tensors.pop(ROOT, None)
            inputs = Inputs(space, fields, std, **said)
        if iterations and root is not None:
            inputs = replace(inputs, first=first_guess(inputs, root, operator, iterations))
            seen = measured(inputs)
            for name, trained in header.get("measured", {}).items():
                if any(
                    abs(a - b) > 2e-3 * (abs(b) + abs(trained[1])) for a, b in zip(seen[name], trained, strict=True)
                ):
                    raise ValueError(f"{path} is of a network for which channel {name} measures something else than "
                                     "with this operator; train another")  # fmt: skip
        with refusing(path):
            net = FuXiDANet(config).to(grid.device)
            net.load_state_dict(tensors)
        return cls(net.eval(), inputs, header.get("about", {}))

    def __call__(self, background: State, window: Window, step: Step, memory: Memory | None = None) -> Analysed:
        if memory is not None and not isinstance(memory, Memory):
            raise ValueError(f"the memory, a {type(memory).__name__}, is of another method; start with None")
        states, end, equivalents = forecast(step, single(background), window)
        with torch.no_grad():
            cells = self.inputs.cells(window)
            z, new = self.increment(states[:, None], [cells], [innovations(window, equivalents)], memory)
        kept = Memory(new.hidden, new.sigma[0])
        unknown = torch.full_like(equivalents, torch.nan)  # there is no analysed trajectory
        state = restarted(end, z[0])
        return Analysed(state, end, equivalents, kept, analysis_equivalents=unknown, spread=kept.sigma)

    def companions(
        self, window: Window, result: Analysed, states: Tensor, equivalents: Tensor, memory: Memory | None = None
    ) -> tuple[Tensor, Memory]:
        """Analyses ``(batch, n, *modes)`` of other trajectories ``(steps + 1, batch, n, *modes)``, each with what its
        own last one left in ``memory``."""
        cells, departures = self.inputs.cells(window), innovations(window, equivalents)
        with torch.no_grad():
            return self.increment(states, [cells] * len(departures), list(departures), memory)

    def increment(
        self, states: Tensor, cells: Sequence[Cells], departures: Sequence[Tensor], memory: Memory | None
    ) -> tuple[Tensor, Memory]:
        """Analyses ``(batch, n, *modes)`` of trajectories ``(steps + 1, batch, n, *modes)``, each with the cells and
        the departures, in units of their errors, of its own window."""
        inputs, space = self.inputs, self.inputs.space
        pairs = zip(cells, departures, strict=True)
        seen = torch.stack([inputs.observations(c, d) for c, d in pairs]) if self.net.sees else None
        shown = inputs.background(states)
        if seen is not None:
            shown = torch.cat([shown, *inputs.guess(states[-1].detach(), seen.detach())], 1)
        out = self.net(shown, seen, None if memory is None else memory.hidden)
        scale = inputs.scale()
        z = states[-1] + space.write(scale * out.mean)
        return z, Memory(out.memory, scale * out.log_sigma.clamp(-8, 3).exp())
