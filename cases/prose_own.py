"""The equations behind a trajectory of your own: which polynomial terms, their constants with errors, and a forecast.

Terms are found by sparse regression (SINDy, Brunton, Proctor & Kutz 2016, with rates by several methods, the weak form
among them); their constants and the initial state are then fitted through a solver by multiple shooting (Bock 1983),
and terms that the data do not need are left out (Chen & Chen 2008). No network is needed. Only the first part of the
record is learned from; the rest is forecast, beside what SINDy alone finds and persistence.

    python cases/prose_own.py --data record.csv                    columns time, and one for each variable
    python cases/prose_own.py --data record.nc --variables u v     variables along time

All variables that matter must be in the record; a forcing counts as a variable. The noise of each is found. The time is
the column of that name, or the first one, or that of --time; it need not be even, and is turned into days where it
holds dates or its units say how long they are. Missing values must be cut off. Without --data a system of PROSE is
observed with noise, so that what is found can be compared with the truth.

Expected (default): all seven terms of the Lorenz (1963) system within three standard errors, no others, and an error of
its forecast of 1 % of the standard deviation over a time unit. Run time on one core: 20 s, with 1000 points 90 s.

Writes equations.json, fit.nc, fit.png and summary.json.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import prose_pictures as pictures
import torch
import xarray as xr
from common import Common, Range, Refused, asked, goes_with, main, make_room
from torch import Tensor

from sciml import plot, score
from sciml.data import write_netcdf
from sciml.equation.expression import parts
from sciml.files import refusing, replacing
from sciml.grid import seconds
from sciml.prose.ordinary import SYSTEMS
from sciml.prose.own import WELL, Identified, identify, units
from sciml.prose.refine import LEAST
from sciml.prose.sindy import METHODS, finite_difference, polynomials, sindy, support_of, terms_of, values
from sciml.prose.trajectories import integrate

SIZES: dict[str, dict[str, int]] = {"quick": dict(points=150), "default": dict(points=250), "full": dict(points=1000)}
KNOWN = ("lorenz63", "rossler", "dadras", "halvorsen", "sprott_b", "four_wing")
"""Systems of degree 2"""
SPIN_UP, SEEN = 1600, 6
"""Intervals of 0.025 time units before a system is observed; times at which it is, in that in which it changes"""
DRAWS = 100
"""Runs of a forecast's spread"""
WRITTEN = ("equations.json", "fit.nc", "fit.png", "summary.json")


@dataclass(frozen=True)
class Options(Common):
    device: Literal["auto", "cpu"] = "auto"
    """Where to compute: systems as small as these run on the CPU."""
    data: Path | None = None
    """File with the record: netCDF, or CSV whose first line names its columns (none: a system is simulated)."""
    variables: tuple[str, ...] = ()
    """What of --data to use (default: all that lie along time alone)."""
    time: str | None = None
    """Coordinate or column with the times of --data (default: time, or the first column)."""
    degree: Annotated[int, Range(1, 5)] = 2
    """Largest degree of the polynomials."""
    held: Annotated[float, Range(0, 0.9)] = 0.2
    """Last part of the record that is forecast, not learned from, as a factor of its length."""
    system: Literal[KNOWN] = "lorenz63"  # type: ignore[valid-type]
    """What is simulated without --data."""
    points: Annotated[int, Range(20, 10_000)] | None = None
    """Times at which it is seen (default: 150, 250 or 1000 with the preset)."""
    noise: Annotated[float, Range(0, 1)] = 0.02
    """Standard deviation of its noise as a factor of that of each variable."""


class Record(NamedTuple):
    """Times ``(n,)``, values ``(n, D)``, what they are called and measured in, and the truth where it is known."""

    t: Tensor
    u: Tensor
    names: tuple[str, ...]
    units: tuple[str, ...]
    span: str
    """unit of time"""
    truth: Tensor | None = None


# -- records ---------------------------------------------------------------------------------------------------------
def simulated(o: Options) -> Record:
    """A system of PROSE on its attractor, with noise."""
    system, n = SYSTEMS[o.system], asked(o, SIZES[o.preset])["points"]
    rhs, generator = system.written(system.centres), torch.Generator().manual_seed(o.seed)
    start = 2 * torch.rand(len(rhs), generator=generator, dtype=torch.float64) - 1
    t = torch.arange(SPIN_UP, dtype=torch.float64) * 0.025
    on = integrate(rhs, {}, start, t, substeps=16)[SPIN_UP // 2 :]
    if not on.isfinite().all():
        raise Refused(f"{o.system} blew up from the initial state of --seed {o.seed}; choose another seed")
    t = torch.arange(n, dtype=torch.float64) * units(t[SPIN_UP // 2 :], on)[0] / SEEN
    u = integrate(rhs, {}, on[-1], t, substeps=16)
    noise = torch.randn(u.shape, generator=generator, dtype=torch.float64)
    return Record(t, u + o.noise * u.std(0) * noise, system.fields, ("1",) * len(rhs), "1", u)


def read(path: Path, chosen: Sequence[str], time: str | None) -> Record:
    """A record from a file, with its times in ``time``."""
    if path.is_dir():
        raise Refused(f"{path} is a folder; give a file")
    text = path.suffix.lower() in (".csv", ".txt")
    ds = from_text(path, time) if text else along_time(path, time or "time")
    along = [str(n) for n, v in ds.data_vars.items() if v.dims == ("time",) and np.issubdtype(v.dtype, np.number)]
    if wrong := [n for n in chosen if n not in along]:
        raise Refused(f"{path} has no variable {wrong[0]} along time alone; it has {', '.join(along) or 'none'}")
    names = tuple(chosen or along)
    if not names:
        raise Refused(f"{path} has no variables along time alone")
    u = torch.stack([torch.as_tensor(ds[n].values.astype(float)) for n in names], 1)
    units = tuple(str(ds[n].attrs.get("units", "1")) for n in names)
    t, span = times(ds)
    return Record(t, u, names, units, span)


def times(ds: xr.Dataset) -> tuple[Tensor, str]:
    """Of a record, in days where their units say how long they are, and the name of their unit."""
    unit = str(ds["time"].attrs.get("units", ""))
    try:
        if unit:
            return torch.as_tensor(seconds(ds) / 86400), "days"
    except ValueError:
        pass
    return torch.as_tensor(ds["time"].values.astype(float)), unit.partition(" since ")[0] or "1"


def along_time(path: Path, time: str) -> xr.Dataset:
    """A netCDF file without axes of one point, its times named time."""
    with refusing(path):
        ds = xr.open_dataset(path, decode_times=False)
    if time not in ds.variables or ds[time].ndim != 1:
        there = ", ".join(sorted(map(str, ds.variables))) or "nothing"
        raise Refused(f"{path} has no coordinate {time}; it has {there}: name that of the times with --time")
    (axis,) = ds[time].dims
    ds = ds.squeeze([d for d, n in ds.sizes.items() if n == 1 and d != axis], drop=True)
    along = [n for n, v in ds.data_vars.items() if v.dims == (axis,) and n != time]
    return xr.Dataset({n: ("time", ds[n].values, ds[n].attrs) for n in along},
                      {"time": ("time", ds[time].values, ds[time].attrs)})  # fmt: skip


def from_text(path: Path, time: str | None) -> xr.Dataset:
    """Columns with a line of names above them; that called time, or else the first one, is the time."""
    lines = path.read_text(encoding="utf-8-sig").lstrip("# ").splitlines()
    rows = [row for row in csv.reader(lines, skipinitialspace=True) if row and not row[0].startswith("#")]
    if not rows:
        raise Refused(f"{path} is empty")
    names, *body = [[cell.strip() for cell in row] for row in rows]
    if len(names) < 2 or not body or any(len(row) != len(names) for row in body):
        raise Refused(f"{path} is no table: its first line must name two columns or more, the others hold as many "
                      "numbers, with commas between them")  # fmt: skip
    if twice := [n for n in names if names.count(n) > 1]:
        raise Refused(f"{path} has two columns called {twice[0] or 'nothing'}")
    time = time or next((n for n in names if n.lower() == "time"), names[0])
    if time not in names:
        raise Refused(f"{path} has no column {time}; it has {', '.join(names)}")
    columns = dict(zip(names, zip(*body, strict=True), strict=True))
    written = columns.pop(time)
    t, attrs = np.array([number(cell) for cell in written]), {}
    if not np.isfinite(t).any():
        try:
            dates = np.array([cell.removesuffix("Z") for cell in written], "datetime64[ms]")
        except ValueError:
            raise Refused(f"{path} holds no times in its column {time}; give numbers, or dates as 2001-01-31") from None
        t, attrs = (dates - np.datetime64(0, "ms")) / np.timedelta64(1, "D"), {"units": "days since 1970-01-01"}
    numbers = {n: np.array([number(cell) for cell in cells]) for n, cells in columns.items()}
    text = {n for n, v in numbers.items() if not np.isfinite(v).any() and any(columns[n])}
    return xr.Dataset({n: ("time", v) for n, v in numbers.items() if n not in text}, {"time": ("time", t, attrs)})


def number(cell: str) -> float:
    """A cell of a table, nan where it holds none."""
    try:
        return float(cell)
    except ValueError:
        return math.nan


def checked(record: Record, held: float) -> int:
    """How many of its times are learned from."""
    bad = ~record.u.isfinite().all(1) | ~record.t.isfinite()
    if bad.any():
        first = int(bad.nonzero()[0, 0])
        raise Refused(f"{int(bad.sum())} of {len(bad)} times lack values, the first is number {first + 1}; cut the "
                      "record where it has none missing")  # fmt: skip
    if twice := [n for n in record.names if record.names.count(n) > 1 or n.endswith(("_fit", "_std"))]:
        raise Refused(f"{twice[0]} is named twice, or as what is written; choose others with --variables")
    if still := [n for n, u in zip(record.names, record.u.T, strict=True) if (u == u[0]).all()]:
        raise Refused(f"{still[0]} is constant; choose other --variables")
    learned = len(record.t) - round(held * len(record.t))
    if learned < LEAST:
        raise Refused(f"{learned} times to learn from are too few, at least {LEAST} are needed")
    return learned


# -- methods ---------------------------------------------------------------------------------------------------------
class Method(NamedTuple):
    """Fields at all times of the record, and how many terms the equations have."""

    u: Tensor
    terms: float


def sparse(record: Record, learned: int, degree: int, methods) -> Method:
    """What SINDy alone finds, in the units of :func:`~sciml.prose.own.identify`."""
    t, u = record.t[:learned], record.u[:learned]
    span, size = units(t, u)
    s = (record.t - record.t[0]) / span
    try:
        rhs, start = sindy(s[:learned], u / size, polynomials(len(size), degree), methods=methods)
    except ValueError:
        return Method(torch.full_like(record.u, torch.nan), torch.nan)
    return Method(integrate(rhs, {}, start, s, substeps=8) * size, float(sum(len(parts(e, "add")) for e in rhs)))


def errors(method: Method, record: Record, learned: int) -> dict[str, float]:
    """Root mean squares over the part that was learned from and the rest, in standard deviations of the variables."""
    known = record.u if record.truth is None else record.truth
    miss = (method.u - known) / known[:learned].std(0)
    rest = miss[learned:].square().mean().sqrt() if learned < len(miss) else torch.tensor(torch.nan)
    return {"terms": method.terms, "fitted %": 100 * float(miss[:learned].square().mean().sqrt()),
            "forecast %": 100 * float(rest)}  # fmt: skip


# -- results ---------------------------------------------------------------------------------------------------------
def lines(found: Identified, record: Record) -> list[str]:
    """The equations with the names of the variables, constants with their standard errors."""
    rows = list(zip(found.terms, found.constants.tolist(), found.deviations.tolist(), strict=True))
    out = []
    for i, name in enumerate(record.names):
        own = [(e, c, d) for (j, e), c, d in rows if j == i]
        terms = " ".join(f"{'-' if c < 0 else '+'} ({abs(c):.4g} ± {d:.1g}) {named(str(e), record.names)}"
                         for e, c, d in own).replace(") 1 ", ") ").removesuffix(" 1")  # fmt: skip
        out.append(f"d {name}/dt = {terms.removeprefix('+ ') or '0'}")
    return out


def named(text: str, names: Sequence[str]) -> str:
    """A term with the names of the variables."""
    return re.sub(r"\bu_(\d+)\b", lambda m: names[int(m[1])], text)


def verdict(found: Identified, record: Record, fitted: Method, learned: int) -> str:
    """Whether the equations explain what was learned from."""
    u = record.u[:learned]
    share = ((fitted.u[:learned] - u).square().mean(0) / u.var(0)).nan_to_num(torch.inf)
    if float(share.max()) > 0.5:
        name = record.names[int(share.argmax())]
        return (
            f"the equations do NOT explain {name}: leave it out if it is noise, or a variable or a forcing is missing"
        )
    if found.reduced > WELL:
        return ("the equations explain the record but for more than its noise: errors are of the rest; a variable, a "
                "forcing or a higher degree may be missing")  # fmt: skip
    return "the equations explain the record within its noise"


def against_truth(found: Identified, system: str) -> dict[str, float]:
    """How many of the terms are right, missed and false, and the largest error of a right one in standard errors."""
    rhs = SYSTEMS[system].written(SYSTEMS[system].centres)
    library, states = terms_of(rhs), torch.rand(99, len(rhs), generator=torch.Generator().manual_seed(0)).double()
    there, columns = support_of(rhs, library), values(library, len(rhs))(states)
    exact = torch.linalg.lstsq(columns, values(rhs, len(rhs))(states)).solution
    true = {(i, library[k]): float(exact[k, i]) for k, i in there.nonzero().tolist()}
    own = zip(found.terms, found.constants.tolist(), found.deviations.tolist(), strict=True)
    off = [abs(c - true[term]) / d for term, c, d in own if term in true]
    return {"right": len(off), "missed": len(true) - len(off), "false": len(found.terms) - len(off),
            "off": max(off, default=0.0)}  # fmt: skip


def dataset(record: Record, found: Method, spread: Tensor, learned: int) -> xr.Dataset:
    """The record, the run of what was found through it and beyond, and its standard deviation."""
    attrs = {"units": record.span, "long_name": "time"}
    data: dict[str, Any] = {}
    for i, (name, unit) in enumerate(zip(record.names, record.units, strict=True)):
        kinds = {name: record.u, f"{name}_fit": found.u, f"{name}_std": spread}
        data |= {n: ("time", v[:, i].numpy(), {"units": unit}) for n, v in kinds.items()}
    return xr.Dataset(data, {"time": ("time", record.t.numpy(), attrs)},
                      {"Conventions": "CF-1.11", "title": "a record and the equations behind it",
                       "learned_from": f"the first {learned} times"})  # fmt: skip


def report(o: Options, out: Path, record: Record, found: Identified, methods: dict[str, Method], learned: int):
    """Print and write what was found."""
    rows, text = {n: errors(m, record, learned) for n, m in methods.items()}, lines(found, record)
    result: dict[str, Any] = {"methods": rows, "misfit": found.reduced, "equations": text}
    print("\n".join(text))
    said = verdict(found, record, methods["fitted"], learned)
    result["verdict"] = said
    print(f"{learned} of {len(record.t)} times learned from, misfit over noise {found.reduced:.3g}"
          f"{'' if record.span == '1' else f'; time in {record.span}'}\n{said}")  # fmt: skip
    if record.truth is not None:
        result["terms"] = n = against_truth(found, o.system)
        print(f"{n['right']} terms are right, within {n['off']:.2g} standard errors; {n['missed']} missed, "
              f"{n['false']} false")  # fmt: skip
    print(score.table(rows))
    terms = [{"equation": record.names[i], "term": named(str(e), record.names), "value": c, "std": d} for (i, e), c, d
             in zip(found.terms, found.constants.tolist(), found.deviations.tolist(), strict=True)]  # fmt: skip
    about: dict[str, Any] = {
        "verdict": said,
        "variables": dict(zip(record.names, record.units, strict=True)),
        "time": record.span,
    }
    with replacing(out / "equations.json") as partial:
        partial.write_text(json.dumps(about | {"equations": text, "terms": terms}, indent=2) + "\n")
    return result


def run(o: Options, out: Path) -> dict[str, Any]:
    goes_with(o, o.data is not None, "--data", "variables", "time")
    goes_with(o, o.data is None, "a simulated system, without --data", "system", "points", "noise")
    record = simulated(o) if o.data is None else read(o.data, o.variables, o.time)
    learned = checked(record, o.held)
    make_room(out, WRITTEN, o)
    found = identify(record.t[:learned], record.u[:learned], o.degree)
    states, spread = found.predict(record.t, DRAWS, o.seed)
    methods = {
        "fitted": Method(states, float(len(found.terms))),
        "SINDy, all rates": sparse(record, learned, o.degree, METHODS),
        "SINDy, differences": sparse(record, learned, o.degree, (finite_difference,)),
        "persistence": Method(record.u[learned - 1].expand_as(record.u), torch.nan),
    }
    ds = dataset(record, methods["fitted"], spread, learned)
    write_netcdf(ds, out / "fit.nc")
    plot.save(pictures.record(ds, record.names, learned), out / "fit.png")
    return report(o, out, record, found, methods, learned)


if __name__ == "__main__":
    main(run, Options)
