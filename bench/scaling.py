"""How cost and error grow: solver with points and members, assimilation with members, networks with samples, processes.

    python bench/scaling.py [--only solver members assimilation samples processes] [--out docs/images/scaling.png]

Times are of the processor (of the clock for processes), medians of repeats, as ratios to the first of a row: absolute
times say little of another machine. Run it with nothing else running. The table goes to standard output.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

import sciml as sm
from sciml import plot
from sciml.losses import relative_l2
from sciml.nn.mgno import MgNO
from sciml.objectives import Supervised
from sciml.operator_data import elliptic_samples, sample_seeds
from sciml.surrogate import Learned, Scaling
from sciml.train import fit

ROOT = Path(__file__).resolve().parents[1]
Curve = tuple[str, str, list[int], list[float]]
"""what is counted, what is measured, numbers, values"""


def seconds(work: Callable[[], object], repeats: int = 9) -> float:
    """Median processor time of a call."""
    work()
    spent = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        spent.append(time.process_time() - started)
    return statistics.median(spent)


# -- curves ----------------------------------------------------------------------------------------------------------
def stepping(nx: int, members: int | None = None) -> Callable[[], object]:
    """So many steps of the two-layer model that a call takes some milliseconds."""
    eq = sm.TwoLayerQG.preset("eddy", nx)
    step = sm.ab3(eq, 7200.0 * 64 / max(nx, 64))
    state = step.init(sm.random_pv(eq, seed=0, members=members, speed=0.02))
    held = [state]
    n = max(1, 2**16 // (nx * nx * (members or 1)))

    def work() -> None:
        for _ in range(n):
            held[0] = step(held[0])

    work.steps = n  # type: ignore[attr-defined]
    return work


def solver() -> Curve:
    sizes = [32, 64, 128, 256, 512, 1024]
    works = [stepping(nx) for nx in sizes]
    return "points along an axis", "time of a step of the solver", sizes, [seconds(w) / w.steps for w in works]


def members() -> Curve:
    numbers = [1, 2, 4, 8, 16, 32, 64]
    works = [stepping(64, n) for n in numbers]
    return "members", "time of a step of an ensemble, 64 x 64 points", numbers, [seconds(w) / w.steps for w in works]


def assimilation() -> Curve:
    """One window of the LETKF on the sample data, forecast and analysis."""
    sys.path.insert(0, str(ROOT / "cases"))
    import qg_assimilate as case
    from methods import build

    numbers, found = [10, 20, 40, 80], []
    for n in numbers:
        o = case.Options(members=n, days=20.0)
        s = case.prepare(o)
        analysis, start = build(o, s)["letkf"]
        found.append(seconds(lambda a=analysis, start=start, s=s: a(start, s.windows[0], s.step, None), 5))
    return "members", "time of a cycle of the LETKF", numbers, found


def samples(updates: int = 600, points: int = 32, seeds: Sequence[int] = (0, 1)) -> Curve:
    """Darcy flow through a rough medium; test errors of MgNO after equally many updates, median over seeds."""
    numbers = [32, 64, 128, 256, 512, 1024]
    train = elliptic_samples("darcy-rough", sample_seeds(0, "train", 0, numbers[-1]), points, 2 * points - 1)
    test = elliptic_samples("darcy-rough", sample_seeds(0, "test", 0, 200), points, 2 * points - 1)
    (x, y), (tx, ty) = ([torch.as_tensor(ds[n].values)[:, None] for n in "au"] for ds in (train, test))
    found = []
    for n in numbers:
        errors = []
        for seed in seeds:
            torch.manual_seed(seed)
            net = MgNO(1, 1, boundary=("dirichlet", "dirichlet"), width=16, layers=3, residual=False)
            learned = Learned(net, Scaling.of(x[:n]), Scaling.of(y[:n], False))
            objective = Supervised(learned, x[:n], y[:n], relative_l2, 8, autocast=True, seed=seed)
            net.load_state_dict(fit(net, objective, updates), strict=False)
            with torch.no_grad():
                errors.append(float(relative_l2(learned(tx), ty).mean()))
        print(f"{n} samples: errors {', '.join(f'{e:.4f}' for e in errors)}", flush=True)
        found.append(statistics.median(errors))
    return "training samples", f"relative error of MgNO after {updates} updates (Darcy, rough)", numbers, found


def processes() -> list[Curve]:
    """Ensemble members over dask and a training under torchrun, by one process and by two."""
    out = []
    lines = {
        "time of 8 members over dask": "cases/qg_two_layer.py --nx 128 --spinup-days 0 --days 40 --every-days 20 "
        "--members 8 --format zarr --overwrite --cluster",
        "time of a training under torchrun, 16 samples an update": "cases/mgno_darcy.py --preset quick "
        "--networks mgno --points 64 --samples 64 --updates 60 --data {data} --batch",
    }
    with tempfile.TemporaryDirectory() as folder:
        for what, line in lines.items():
            spent, line = [], line.format(data=folder)
            for n in (1, 2):
                spent.append(math.inf)
                for _ in range(2):
                    spent[-1] = min(spent[-1], launched(line, n, Path(folder)))
            out.append(("processes", what, [1, 2], spent))
    return out


def launched(line: str, n: int, folder: Path) -> float:
    """Seconds of a command that ``n`` processes share, less those of the same with nothing to do."""
    command, *arguments = line.split()
    here = folder / f"{Path(command).stem}-{time.monotonic_ns()}"
    if "--cluster" in line:
        from distributed import Client, LocalCluster

        with LocalCluster(n_workers=n, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster):
            return clocked([command, *arguments, cluster.scheduler_address, "--out", str(here)])
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
    both = [[*start, command, *arguments, str(16 // n), "--out", str(here / k), "--seed", "0"] for k in ("a", "b")]
    both[1] = [a if a != "60" else "2" for a in both[1]]
    clocked(both[1])  # makes the data
    long, short = clocked(both[0]), clocked([a.replace(str(here / "b"), str(here / "c")) for a in both[1]])
    return long - short


def clocked(arguments: list[str]) -> float:
    """Seconds of a Python command."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'cases'}"}
    started = time.monotonic()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, check=True, capture_output=True)
    return time.monotonic() - started


# -- output ----------------------------------------------------------------------------------------------------------
def table(curves: Sequence[Curve]) -> str:
    """Markdown, a row a curve: numbers and values over the first (errors as they are)."""
    rows = []
    for counted, measured, numbers, values in curves:
        shown = [v if "error" in measured else v / values[0] for v in values]
        pairs = ", ".join(f"{n}: {v:.3g}" for n, v in zip(numbers, shown, strict=True))
        rows.append(f"| {measured} | {counted} | {pairs} | {slope(numbers, values):.2f} |")
    return "\n".join(["| measured | against | values (times over the first) | exponent |", "|---|---|---|---|", *rows])


def slope(numbers: Sequence[int], values: Sequence[float]) -> float:
    """Exponent of the power law through the last three points."""
    x, y = (np.log(np.asarray(v, float)[-3:]) for v in (numbers, values))
    return float(np.polyfit(x, y, 1)[0])


def picture(curves: Sequence[Curve]):
    """A panel a curve of three points or more, with the power law of its last three."""
    curves = [c for c in curves if len(c[2]) > 2]
    figure, axes = plot.pyplot().subplots(1, len(curves), figsize=(3.4 * len(curves), 3.2), layout="constrained")
    for ax, (counted, measured, numbers, values) in zip(np.atleast_1d(axes), curves, strict=True):
        shown = np.asarray(values) / (1.0 if "error" in measured else values[0])
        p = slope(numbers, values)
        draw = ax.semilogx if "error" in measured else ax.loglog
        draw(numbers, shown, "o-", ms=4)
        draw(numbers[-3:], shown[-1] * (np.asarray(numbers[-3:]) / numbers[-1]) ** p, "k:", label=f"power {p:.2f}")
        first = "relative L2 error" if "error" in measured else f"time / time of {numbers[0]}"
        ax.set(xlabel=counted, ylabel=first, xticks=numbers, xticklabels=[str(n) for n in numbers])
        ax.set_title(measured.split(" after")[0].replace("time of a ", ""), fontsize=9)
        ax.minorticks_off()
        if "error" in measured:
            ax.set_ylim(bottom=0)
        ax.legend(frameon=False)
    return figure


CURVES = {
    "solver": solver,
    "members": members,
    "assimilation": assimilation,
    "samples": samples,
    "processes": processes,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CURVES, default=list(CURVES))
    parser.add_argument("--out", type=Path, default=None)
    o = parser.parse_args()
    torch.set_num_threads(1)
    curves: list[Curve] = []
    for name in o.only:
        found = CURVES[name]()
        curves += found if isinstance(found, list) else [found]
    print(table(curves))
    if o.out is not None:
        plot.save(picture(curves), o.out)


if __name__ == "__main__":
    main()
