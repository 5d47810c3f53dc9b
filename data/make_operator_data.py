"""Make training and test sets for neural operators from a seed.

    python data/make_operator_data.py --task darcy-rough [--samples 1000] [--test 100] [--points 85] [--fine 253]
                                      [--seed 0] [--out runs/operator]

Tasks: Darcy flow through two materials (darcy-smooth, darcy-rough), the multiscale trigonometric coefficient
(multiscale), waves in a box (helmholtz), forced two-dimensional turbulence (ns; --nu, --records). The recipes are those
of the published sets, with other samples. Writes ``TASK_train.nc`` and ``TASK_test.nc``: CF netCDF, ``a`` and
``u (sample, y, x)``, or ``omega (sample, time, y, x)``. Parts are kept in ``parts`` until a set is whole, so that the
same command goes on where it was stopped.

Seconds per sample on one core: darcy 0.1, multiscale 1, helmholtz 0.06, ns 4 (64 points, 20 times).
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
import xarray as xr
from tqdm import tqdm

from sciml.data import write_netcdf
from sciml.operator_data import SPLITS, Flow, elliptic_samples, flow_samples, sample_seeds

Make = Callable[[Sequence[int]], xr.Dataset]


@dataclass(frozen=True)
class Options:
    task: Literal["darcy-smooth", "darcy-rough", "multiscale", "helmholtz", "ns"]
    samples: int = 1000
    """Samples for training."""
    test: int = 100
    """Samples for testing, of other seeds."""
    points: int | None = None
    """Points in each direction that are kept (default: 85; helmholtz 101, ns 64)."""
    fine: int | None = None
    """Points in each direction on which the problem is solved (default: 253; multiscale 421, helmholtz 101, ns 128)."""
    seed: int = 0
    """Seed of all samples."""
    nu: float = 1e-5
    """Viscosity of ns."""
    records: int = 20
    """Times of ns, one time unit apart, after the start."""
    steps: int | None = None
    """Steps of ns per unit time (default: 100 for 128 points and in proportion)."""
    device: str = "cpu"
    """Where ns is computed."""
    out: Path = Path("runs/operator")
    """Folder for the files."""


def maker(o: Options) -> Make:
    """``seeds -> Dataset`` of a task."""
    if o.task != "ns":
        return lambda seeds: elliptic_samples(o.task, seeds, o.points, o.fine)
    points = o.points or 64
    flow = Flow(o.nu, o.records, points, o.fine or 2 * points, o.steps, o.device)
    return lambda seeds: flow_samples(seeds, flow)


def part(path: Path, make: Make, seeds: Sequence[int]) -> xr.Dataset:
    """Samples of these seeds, from the file of a run that was stopped if it holds them."""
    if path.exists():
        try:
            with xr.open_dataset(path, decode_times=False) as ds:
                return ds.load()
        except (OSError, ValueError):
            pass  # whole files replace files: this one is of another origin, and is made again
    ds = make(seeds)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_netcdf(ds, path)
    return ds


def make_split(o: Options, split: str, samples: int, chunk: int) -> Path:
    """Write one split, part by part."""
    make, started = maker(o), time.process_time()
    numbers = [o.task, split, o.seed, o.points, o.fine, *((o.nu, o.records, o.steps) if o.task == "ns" else ())]
    folder = o.out / "parts" / "_".join(map(str, numbers))
    parts = []
    with tqdm(total=samples, desc=f"{o.task} {split}", unit="sample", disable=not sys.stderr.isatty()) as bar:
        for start in range(0, samples, chunk):
            seeds = sample_seeds(o.seed, split, start, min(start + chunk, samples))
            parts.append(part(folder / f"{start}_{len(seeds)}.nc", make, seeds))
            bar.update(len(seeds))
    ds = xr.concat(parts, "sample", data_vars="all", coords="minimal", compat="override", join="override")
    path = o.out / f"{o.task}_{split}.nc"
    write_netcdf(ds.assign_attrs(seed=o.seed, split=split, source_command=f"python {shlex.join(sys.argv)}"), path)
    remove(folder)
    spent = (time.process_time() - started) / samples
    print(f"{path}: {samples} samples, {spent:.3g} s of processor time each")
    return path


def remove(folder: Path) -> None:
    """Remove the parts of a split, and the folder of parts if it is empty."""
    for path in folder.glob("*.nc"):
        path.unlink()
    folder.rmdir()
    if not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def run(o: Options) -> None:
    if min(o.samples, o.test) < 1 or not 0 <= o.seed < 2**31:
        raise ValueError("--samples and --test must be at least 1, --seed a whole number from 0 to 2147483647")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    for split, samples in zip(SPLITS, (o.samples, o.test), strict=True):
        make_split(o, split, samples, chunk=10 if o.task == "ns" else 50)


if __name__ == "__main__":
    try:
        run(tyro.cli(Options, description=__doc__))
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
