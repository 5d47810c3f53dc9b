"""Solution operators of elliptic and flow problems by MgNO beside other networks, with data of our own.

    smooth, rough   -div(a grad u) = 1 on the unit square, u = 0 on its boundary, a of two values (Li et al. 2021)
    multiscale      the same with the multiscale trigonometric coefficient
    helmholtz       wave speed -> solution of the Helmholtz problem of de Hoop et al. (2022), Neumann conditions
    ns              vorticity -> vorticity a time unit later, viscosity 1e-5; tested over ten of its own steps

Networks: mgno (ours), published (the authors' configuration), unet, and neuraloperator's fno; all have the same data,
loss, and processor time to learn in. MgNO: He, Liu & Xu 2024 (ICLR, arXiv 2310.19809). Networks that were trained on
--points are also tested on half and on twice as fine grids, through interpolation to their own grid and back, and
directly (stencils belong to a spacing: this is worse).

Expected for rough after five minutes of training with --points 64: relative L2 error 0.015 (mgno), 0.019 (published),
0.033 (fno), 0.06 (unet). Run time on one core: quick 40 s, default two minutes for the data and eight for each network.

Writes scores.nc, error.png, fields.png, summary.json, and the weights, log and picture of each network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import operators
import torch
import xarray as xr
from common import Common, Range, Refused, asked, device, folder, main, make_room
from torch import Tensor
from training import elapsed

from sciml import plot, plot_emulation, score
from sciml.data import write_netcdf
from sciml.files import refusing
from sciml.losses import relative_h1, relative_l2
from sciml.nn.boundary import resized
from sciml.nn.mgno import PUBLISHED
from sciml.objectives import Supervised
from sciml.operator_data import Flow, elliptic_samples, flow_samples, sample_seeds, stride
from sciml.surrogate import Learned, Scaling
from sciml.train import same

WALLS, PERIODIC = ("dirichlet", "dirichlet"), ("periodic", "periodic")


class Task(NamedTuple):
    """A problem, its boundary condition, and the authors' configuration for it."""

    name: str
    boundary: tuple[str, str]
    published: str
    points: int
    shown: tuple[str, str] = ("coefficient a", "solution u")
    """titles of what is given and of what is sought"""


TASKS = {
    "smooth": Task("darcy-smooth", WALLS, "darcy_smooth", 85),
    "rough": Task("darcy-rough", WALLS, "darcy_rough", 85),
    "multiscale": Task("multiscale", WALLS, "multiscale", 85),
    "helmholtz": Task("helmholtz", ("neumann", "neumann"), "darcy_rough", 101),
    "ns": Task("ns", PERIODIC, "navier_stokes", 64, ("first vorticity", "last vorticity")),
}
SCALES: dict[str, dict[str, Any]] = {
    "quick": dict(points=22, samples=32, test=8, minutes=0.08),
    "default": dict(points=None, samples=1000, test=100, minutes=8.0),
    "full": dict(points=None, samples=1000, test=100, minutes=600.0),
}
OURS: dict[str, Any] = dict(width=24, layers=4, residual=False)
"""In equal time f restricted as published, with one smoothing on each level, beat V-cycles for residuals."""
STEPS = 10
"""Times of ns"""
WRITTEN = ("scores.nc", "error.png", "fields.png", "summary.json")
CLOCKED = 4000
"""Updates by which warm-up and log of a training by the clock are laid out"""


@dataclass(frozen=True)
class Options(Common):
    task: Literal["smooth", "rough", "multiscale", "helmholtz", "ns"] = "rough"
    """What to learn."""
    networks: tuple[Literal["mgno", "published", "unet", "fno"], ...] = ("mgno", "published", "unet")
    """What to train; fno needs neuraloperator (make bench/.neuralop/installed)."""
    loss: Literal["h1", "l2"] = "h1"
    """Relative L2, or relative H1 with gradients in a box of side 2 pi, as published; errors are always of both."""
    minutes: Annotated[float, Range(0, 1e5, open=True)] | None = None
    """Time for the training of each network, as a factor of a minute: of the processor, by the clock on a GPU (default:
    with the preset)."""
    updates: Annotated[int, Range(2, 100_000_000)] | None = None
    """Updates of each training, instead of --minutes."""
    points: Annotated[int, Range(16, 1_024)] | None = None
    """Points along an axis (default: 85; helmholtz 101, ns 64; quick 22)."""
    samples: Annotated[int, Range(1, 1_000_000)] | None = None
    """Samples for training (default: 1000, quick 32)."""
    test: Annotated[int, Range(1, 1_000_000)] | None = None
    """Samples for tests (default: 100, quick 8)."""
    batch: Annotated[int, Range(1, 100_000)] = 8
    """Samples in an update."""
    lr: Annotated[float, Range(0, 1, open=True)] = 3e-3
    """Largest learning rate, as a factor of one."""
    autocast: bool = True
    """Convolutions in bfloat16 for the first four fifths of a training, where the processor has it."""
    data_seed: Annotated[int, Range(0, 2**31 - 1)] = 0
    """Seed of the data sets; --seed is of first weights and the order of samples."""
    resume: bool = False
    """Go on with interrupted trainings in --out; networks that are there are not trained again."""
    data: Path | None = None
    """Folder of the data sets, made where they are missing (default: runs/operator). TASK_train.nc and TASK_test.nc
    in it, as data/make_operator_data.py and sciml.operator_files make them, are used as they are."""

    @property
    def name(self) -> str:
        return f"mgno_darcy-{self.task}"

    @property
    def scale(self) -> dict[str, Any]:
        """Sizes of the preset, replaced by what was asked for."""
        scale = asked(self, SCALES[self.preset])
        return scale | {"points": scale["points"] or TASKS[self.task].points}


# -- data ------------------------------------------------------------------------------------------------------------
def sets(o: Options) -> Path:
    return folder(o.data or Path("runs") / "operator", "--data")


def ready(o: Options, which: str) -> Path | None:
    """A data set that is there already, with points of its own."""
    path = sets(o) / f"{TASKS[o.task].name}_{which}.nc"
    return path if path.exists() else None


def opened(path: Path) -> xr.Dataset:
    """Samples of a file."""
    with refusing(path):
        ds = xr.open_dataset(path, decode_times=False, engine="netcdf4")
    if "omega" not in ds and not {"a", "u"} <= set(ds.variables):
        raise Refused(f"{path} holds no samples: it needs a and u, or omega; remove it, and it is made again")
    return ds


def split(o: Options, which: str, points: int, n: int) -> xr.Dataset:
    """n samples of one split with ``points`` along an axis: of a set that is there, of a file made before, or made."""
    task, periodic = TASKS[o.task].name, o.task == "ns"
    if path := ready(o, which):
        ds = opened(path)
        if ds.sizes["sample"] < n:
            asked_by = {"train": "samples", "test": "test"}[which]
            raise Refused(f"{path} holds {ds.sizes['sample']} samples: ask for no more with --{asked_by}")
        s = stride(ds.sizes["x"], points, periodic)
        return ds.isel(sample=slice(n), y=slice(None, None, s), x=slice(None, None, s))
    finest = 4 * int(o.scale["points"]) - 3  # of training and of tests
    fine = {"ns": 2 * points, "helmholtz": points}.get(o.task, finest)
    path = sets(o) / f"{task}_{points}_{fine}_{n}_{o.data_seed}_{which}.nc"
    if not path.exists():
        print(f"making {path}", flush=True)
        seeds = sample_seeds(o.data_seed, which, 0, n)
        if periodic:
            made = flow_samples(seeds, Flow(records=STEPS, points=points, fine=fine))
        else:
            made = elliptic_samples(task, seeds, points, fine)
        write_netcdf(made, path)
    return opened(path)


def pairs(ds: xr.Dataset, stride: int = 1) -> tuple[Tensor, Tensor]:
    """Inputs and outputs ``(samples, 1, y, x)``; of ns those of each time."""
    if "omega" in ds:
        w = torch.as_tensor(ds["omega"].values)[:, :, ::stride, ::stride]
        return w[:, :-1].flatten(0, 1)[:, None], w[:, 1:].flatten(0, 1)[:, None]
    a, u = (torch.as_tensor(ds[n].values)[:, None, ::stride, ::stride] for n in "au")
    return a, u


class Test(NamedTuple):
    """Of one grid; ``steps`` of the network are scored together. ``through`` is the grid on which the network is used,
    that of its training if fields are interpolated to it and back."""

    points: int
    x: Tensor
    y: Tensor
    steps: int = 1
    through: int | None = None

    @property
    def name(self) -> str:
        return f"{self.points} points" + (", direct" if self.through is None else "")


def resolutions(o: Options, n: int) -> list[int]:
    """Points along an axis of tests: n, half and twice as fine ones, of these such that have the walls, and that a set
    which is there has."""
    more = int(o.task != "ns")  # both walls are points
    found = [n, *([] if (n - more) % 2 else [(n + more) // 2]), *([] if o.task == "helmholtz" else [2 * n - more])]
    if path := ready(o, "test"):
        intervals = opened(path).sizes["x"] - more
        found = [p for p in found if p <= intervals + more and intervals % (p - more) == 0]
    return found


def tests(o: Options, n: int, test: int) -> list[Test]:
    """Test samples with n points along an axis, half and twice as many."""
    sizes, found = resolutions(o, n), []
    if n not in sizes:
        raise Refused(f"{ready(o, 'test')} has no grid of {n} points; choose --points among those that it has")
    ds = split(o, "test", max(sizes), test)
    for size in sorted(sizes, reverse=True):
        s = stride(max(sizes), size, o.task == "ns")
        if o.task == "ns":
            w = torch.as_tensor(ds["omega"].values)[:, :, ::s, ::s]
            steps = min(STEPS, w.shape[1] - 1)
            found.append(Test(size, w[:, :1], w[:, 1 : steps + 1], steps))
        else:
            found.append(Test(size, *pairs(ds, s)))
    return found


# -- training and scores ---------------------------------------------------------------------------------------------
def network(o: Options, name: str, task: Task, points: int) -> torch.nn.Module:
    """A network by name with its options for the task."""
    deepest = max(2, int(np.log2(points / 3)) + 1)
    levels = min(6 if points > 64 else 5, deepest)
    if name == "mgno":
        smoothings = ((1, 0),) * (levels - 1) + ((2, 0),)
        return operators.make("mgno", o.seed, 1, 1, boundary=task.boundary, smoothings=smoothings, **OURS)
    if name == "published":
        options = dict(PUBLISHED[task.published]) | {"boundary": task.boundary, "up": ()}
        options["smoothings"] = options["smoothings"][-levels:]
        options |= {"points": (points, points)} if options.get("points") else {}
        return operators.make("mgno", o.seed, 1, 1, **options)
    if name == "unet":
        return operators.make("unet", o.seed, 1, 1, boundary=task.boundary)
    modes = min(32, points // 2)
    return operators.make("fno", o.seed, 1, 1, n_modes=(modes, modes), positional=task.boundary != PERIODIC)


def learn(o: Options, out: Path, name: str, x: Tensor, y: Tensor) -> Learned:
    """A trained network; with ``--resume`` it is read where ``out`` has it."""
    path, task, where = out / f"{name}.safetensors", TASKS[o.task], device(o.device)
    settings = {n: getattr(o, n) for n in ("task", "seed", "loss", "batch", "lr", "autocast", "data_seed")}
    settings |= {n: o.scale[n] for n in ("points", "samples")}
    settings |= operators.length(o.updates, o.scale["minutes"])
    if path.exists():
        same(path, Learned.load(path).about, settings)
    else:
        zero = "dirichlet" in task.boundary  # which must stay so
        net, x, y = network(o, name, task, x.shape[-1]).to(where), x.to(where), y.to(where)
        learned = Learned(net, Scaling.of(x), Scaling.of(y, not zero))
        loss = relative_h1(task.boundary, (2 * np.pi,) * 2) if o.loss == "h1" else relative_l2
        objective = Supervised(learned, x, y, loss, o.batch, autocast=o.autocast, seed=o.seed)
        probes = {0: 1.0} if not o.autocast else {0: 0.8, 1: 0.2}
        plan, precise = out / f"{name}.json", (lambda update: update == 1)
        seconds, clocked = 60 * o.scale["minutes"], where != "cpu" and o.updates is None
        if clocked:
            updates, part = CLOCKED, elapsed(seconds)
        else:
            updates = o.updates or operators.planned(plan, net, Precise(objective, precise), seconds, probes)
            part = lambda update: update / updates  # noqa: E731
        switched = Precise(objective, lambda update: part(update) >= 0.8)
        about = operators.trained(name, out, net, switched, updates, o.lr, o.seed, seconds if clocked else None,
                                  settings)  # fmt: skip
        length = {"minutes": seconds / 60, "device": where} if clocked else {"updates": about["updates"]}
        made = {"seed": o.seed, "points": o.scale["points"], "batch": o.batch, "lr": o.lr, **length}
        command = operators.command(o, name, **made)
        learned.save(path, command=command, settings=settings, **about)
    return Learned.load(path)


class Precise:
    """An objective in single precision from some update on."""

    def __init__(self, objective: Supervised, single):
        self.objective, self.single, self.autocast = objective, single, objective.autocast

    def __call__(self, update: int) -> Tensor:
        self.objective.autocast = self.autocast and not self.single(update)
        return self.objective(update)

    def state(self):
        return self.objective.state()

    def restore(self, state) -> None:
        self.objective.restore(state)


@torch.no_grad()
def predicted(learned: Learned, test: Test, boundary: tuple[str, str]) -> Tensor:
    """``(samples, steps, y, x)``."""
    found, shape = [], test.x.shape[2:]
    x = resized(test.x, (test.through,) * 2 if test.through else shape, boundary)
    for _ in range(test.steps):
        x = torch.cat([learned(part) for part in x.split(20)])
        found.append(resized(x, shape, boundary))
    return torch.cat(found, 1)


def errors(o: Options, learned: Learned, test: Test) -> dict[str, np.ndarray]:
    """Relative errors of each sample, L2 and H1; of ns of all steps together. Not a number where there are none."""
    try:
        u = predicted(learned, test, TASKS[o.task].boundary)
    except ValueError as error:  # a grid that is too coarse for the levels, or steps that blew up
        print(f"{test.name}: {error}")
        return dict.fromkeys(("l2", "h1"), np.full(len(test.x), np.nan))
    h1 = relative_h1(TASKS[o.task].boundary)
    return {"l2": relative_l2(u, test.y).numpy(), "h1": h1(u, test.y).numpy()}


def run(o: Options, out: Path) -> dict[str, Any]:
    scale, n = o.scale, o.scale["points"]
    operators.check(o)
    if scale["samples"] < o.batch:
        raise Refused(f"--samples must be at least --batch, got {scale['samples']} and {o.batch}")
    torch.set_flush_denormal(True)
    torch.backends.cudnn.benchmark = True  # batches are all of one shape
    x, y = pairs(split(o, "train", n, scale["samples"]))
    checks = tests(o, n, scale["test"])
    make_room(out, (*WRITTEN, *operators.WRITTEN), o)
    learned = {name: learn(o, out, name, x, y) for name in o.networks}
    checks += [t._replace(through=n) for t in checks]
    found = {name: {t.name: errors(o, one, t) for t in checks} for name, one in learned.items()}
    return report(o, out, n, learned, found, checks)


def report(o: Options, out: Path, n: int, learned: dict[str, Learned], found, checks: Sequence[Test]) -> dict[str, Any]:
    """Print, draw, write."""
    rows, here = {}, f"{n} points"
    for name, one in found.items():
        own = one[here]
        rows[name] = {"weights": float(operators.count(learned[name].net)), "L2": float(own["l2"].mean()),
                      "H1": float(own["h1"].mean())}  # fmt: skip
        rows[name] |= {p: float(e["l2"].mean()) for p, e in one.items() if not p.startswith(here)}
    print(f"relative errors of {checks[0].x.shape[0]} test samples, trained with {n} x {n} points")
    print(score.table(rows))
    if o.task != "ns" and not n % 2:
        print(f"no test on half as fine a grid: every other one of {n} points lacks a wall, of {n + 1} not")
    names = xr.DataArray(list(found), dims="network", attrs={"units": "1"})
    data = {
        k: (("network", "sample"), np.stack([e[here][k] for e in found.values()]), {"units": "1"}) for k in ("l2", "h1")
    }
    write_netcdf(xr.Dataset(data, {"network": names}, {"Conventions": "CF-1.11"}), out / "scores.nc")
    plot.save(plot_emulation.errors({name: e[here]["l2"] for name, e in found.items()}, "relative L2 error"),
              out / "error.png")  # fmt: skip
    test = next(t for t in checks if t.name == here)
    one = test._replace(x=test.x[:1], y=test.y[:1])
    shown = {name: predicted(net, one, TASKS[o.task].boundary)[0, -1].numpy() for name, net in learned.items()}
    plot.save(plot_emulation.solutions(one.x[0, 0].numpy(), one.y[0, -1].numpy(), shown, TASKS[o.task].shown),
              out / "fields.png")  # fmt: skip
    return {"networks": rows, "points": n}


if __name__ == "__main__":
    main(run, Options)
