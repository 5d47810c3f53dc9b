r"""The closed loop: truth, observations, assimilation, error discovery, a better forecast.

A truth (quasi-geostrophic turbulence over a rough bottom) is seen by three altimeters, a swath and a radiometer. The
model has half of its bottom drag and none of its topography,

    d q2/dt lacks  -1/2 r lap(psi2)  -J(psi2, eta) ,

and assimilates what they see, by a filter of 20 members (LETKF) or by a network (FuXi-DA). MEDIDA finds what is missing
in the innovations of the model's own cycle (sciml/discover/innovations.py): more than 30 candidates in each layer take
the same way through forecasts and analyses as the error does. The corrected model is cycled again, on later windows
that nothing was learned from, beside the imperfect model, the perfect one, and the imperfect one with a neural
corrector (MgNO) that was trained on the same filter's increments. PROSE fits an equation to the analyses alone. At last
all run freely: in the climate that was seen, and with a stronger mean shear or more drag than was.

References: Mojgani, Chattopadhyay & Hassanzadeh (2024), JAMES 16, e2023MS004033; Hunt et al. (2007), Physica D 230,
112; Farchi et al. (2021), QJRMS 147, 3067; Ljung (1999), System Identification, section 7.2. Expected: both terms and
no others, within 10 %; the gap to the perfect model closed by more than 80 %.

Writes found.json, analysis.nc, climate.nc, loop.png, summary.json. Run time on one core: quick two minutes, default
a quarter of an hour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import loop_pictures
import medida_qg
import numpy as np
import xarray as xr
from common import Common, Range, Refused, asked, main, make_room
from loop_corrections import Climate, Corrector, Stepper, climate, distance, held, learned, read
from loop_world import Score, World, assimilation, changed, closed, cycled, folded, scored, world

import sciml as sm
from sciml import plot, score, testbed
from sciml.data import attributes, coordinates, write_netcdf
from sciml.discover.discovery import Discovery
from sciml.discover.innovations import medida_cycled
from sciml.discover.library import coefficients

HELD = "correlation of increments with what is missing"
WRITTEN = ("found.json", "analysis.nc", "climate.nc", "loop.png", "summary.json")


class Scale(NamedTuple):
    """How much of everything."""

    learn: int
    """windows of five days to learn from"""
    test: int
    shares: tuple[float, ...]
    inner: int
    updates: int
    rounds: int
    """of the neural corrector"""
    days: float
    """of climates"""


SCALES = {
    "quick": Scale(22, 9, (0.02,), 2, 5, 1, 60.0),
    "default": Scale(40, 24, (0.05, 0.01), 4, 300, 2, 1080.0),
    "full": Scale(120, 90, (0.05, 0.01), 6, 2000, 3, 7200.0),
}


@dataclass(frozen=True)
class Options(Common):
    device: Literal["auto", "cpu"] = "auto"
    """Where to compute: this case runs on the CPU."""
    drag: Annotated[float, Range(0.1, 2)] = 0.5
    """Bottom drag of the model, as a factor of the truth's, from 0.1 to 2."""
    topography: Annotated[float, Range(-1, 2)] = 0.0
    """Topography of the model, as a factor of the truth's, from -1 to 2."""
    method: Literal["letkf", "fuxida"] = "fuxida"
    """The assimilation whose innovations MEDIDA reads; both are scored."""
    members: Annotated[int, Range(2, 90)] | None = None
    """Size of the filter's ensemble (default 20; quick 16, full 40)."""
    learn: Annotated[int, Range(7, 2_000)] | None = None
    """Windows of five days that are learned from (default 40; quick 22, full 120)."""
    test: Annotated[int, Range(6, 2_000)] | None = None
    """Later windows for scores (default 24; quick 9, full 90)."""
    change: Annotated[float, Range(0, 2)] = 0.3
    """How much stronger shear or drag is in climates that were not seen, a factor from 0 to 2."""
    neural: bool = True
    """Train a neural corrector, too."""
    prose: bool = True
    """Have PROSE fit an equation to the analyses, too (never with the preset quick)."""


def checked(o: Options) -> tuple[Options, Scale]:
    """Options with all that depends on the preset. Raises ``Refused`` for those that cannot be."""
    if o.drag == 1 and o.topography == 1:
        raise Refused("--drag 1 --topography 1 is the perfect model, which lacks nothing")
    members = o.members or {"quick": 16, "default": 20, "full": 40}[o.preset]
    o = Options(**{**vars(o), "members": members})
    return o, Scale(**asked(o, SCALES[o.preset]._asdict()))


# -- discovery -------------------------------------------------------------------------------------------------------
def discovered(o: Options, w: World, scale: Scale) -> Discovery:
    """What the model lacks, from its own cycles through the first windows."""
    library = sm.terms(w.model).without("1")
    fields = ("q2",) if o.preset == "quick" else None

    def assimilate(eq: sm.Equation):
        return assimilation(o, w, eq, o.method)

    return medida_cycled(w.model, testbed.stepper, assimilate, library, w.climate[::8], fields=fields,  # type: ignore[arg-type]
                         shares=scale.shares, inner=scale.inner, skip=min(5, scale.learn // 4))  # fmt: skip


def compared(w: World, found: Discovery) -> dict[str, Any]:
    """What was found beside what is missing."""
    exact = coefficients(found.library, w.truth, w.model, w.climate[:2])
    exact = exact[[w.model.prognostic.index(f) for f in found.fits]]
    return medida_qg.compared(found.library, found, exact)


# -- cycles and climates ---------------------------------------------------------------------------------------------
def models(w: World, found: Discovery, corrector: Corrector | None) -> dict[str, tuple[sm.Equation, Stepper]]:
    """Equation and stepper of every model that is compared."""
    plain: dict[str, tuple[sm.Equation, Stepper]] = {
        "imperfect": (w.model, testbed.stepper),  # type: ignore[dict-item]
        "corrected": (w.model + found, testbed.stepper),  # type: ignore[dict-item]
        "perfect": (w.truth, testbed.stepper),  # type: ignore[dict-item]
    }
    return plain if corrector is None else plain | {"neural": (w.model, corrector.step)}


def cycles_of(o: Options, w: World, compared: Mapping[str, tuple[sm.Equation, Stepper]]) -> tuple[dict, xr.Dataset]:
    """Scores by method and model on the later windows, and the analyses; infinite where a cycle fails."""
    scores: dict[str, dict[str, Score]] = {"letkf": {}, "fuxida": {}}
    kept: dict[str, Any] = {"truth": w.psi(w.states[w.learn :])}
    for method, own in scores.items():
        for name, (eq, stepper) in compared.items():
            step = stepper(eq)
            try:
                record = cycled(o, w, step, method)
                own[name], kept[f"{method}_{name}"] = scored(w, step, record), w.psi(record.analysis)
            except sm.BlowUp as error:
                print(f"{method}, {name}: {error}")
                own[name] = Score([np.inf] * 2, [[np.inf] * 2] * 3, [0.0, 5.0, 10.0])
    data = {
        f"psi_{n}": (("time", "lev", "y", "x"), a.numpy().astype(np.float32), attributes("psi"))
        for n, a in kept.items()
    }
    times = testbed.WINDOW * testbed.DT * (w.learn + 1 + np.arange(len(kept["truth"])))
    since = {"units": "s", "long_name": "time since the start of the truth", "axis": "T"}
    ds = xr.Dataset(data, coordinates(w.truth) | {"time": ("time", times, since)})
    return scores, ds.assign_attrs(Conventions="CF-1.11", title="analyses of a closed loop", seed=o.seed)


def climates_of(
    o: Options, w: World, compared: Mapping[str, tuple[sm.Equation, Stepper]], days: float
) -> dict[str, dict[str, Climate | None]]:
    """Of every model, as seen and with what was not; the truth stands first, then again from other states."""
    found: dict[str, dict[str, Climate | None]] = {}
    for how in ("as seen", "shear", "drag"):

        def other(eq: sm.Equation, how: str = how) -> sm.Equation:
            return folded(eq if how == "as seen" else changed(o, eq, w.truth, how))

        truth = testbed.stepper(other(w.truth))  # type: ignore[arg-type]
        own = {"truth": climate(w, truth, days), "truth again": climate(w, truth, days, start=1)}
        more = {n: (eq, stepper) for n, (eq, stepper) in compared.items() if n != "perfect"}
        found[how] = own | {n: climate(w, stepper(other(eq)), days) for n, (eq, stepper) in more.items()}
    return found


def spectra_file(found: Mapping[str, Mapping[str, Climate | None]]) -> xr.Dataset:
    """Spectra of kinetic energy of all climates."""
    whole = {f"{how}_{n}".replace(" ", "_"): c for how, own in found.items() for n, c in own.items() if c is not None}
    unit = {"units": "m3 s-2", "long_name": "eddy kinetic energy spectrum of the layer"}
    k = next(iter(whole.values())).k
    coords = {"k": ("k", k, {"units": "rad m-1"}), "lev": ("lev", [1, 2], {"units": "1"})}
    ds = xr.Dataset({n: (("lev", "k"), c.spectrum, unit) for n, c in whole.items()}, coords)
    return ds.assign_attrs(Conventions="CF-1.11", title="climates of a closed loop")


def readings(o: Options, w: World, every: Mapping[str, tuple[sm.Equation, Stepper]]) -> dict[str, Any]:
    """Drag [s-1] and topography [1] that PROSE fits to analyses of the last windows, with standard errors."""
    found: dict[str, Any] = {"truth": {"drag": float(w.truth.rek), "topography": 1.0}}
    rough = float(w.truth.grid.ifft(w.truth.fixed["eta"]).std()) * testbed.DAY
    for name in ("imperfect", "corrected"):
        eq, stepper = every[name]
        fit = read(w, cycled(o, w, stepper(eq), o.method).analysis[-4:])
        units = {"drag": ("r", testbed.DAY), "topography": ("h", rough)}
        found[name] = {
            n: {"value": fit.values.get(p, 0.0) / unit, "std": fit.errors.get(p, 0.0) / unit}
            for n, (p, unit) in units.items()
        }
    return found


def row(s: Score) -> dict[str, float]:
    """A line of the printed table."""
    late = s.forecast[min(2, len(s.forecast) - 1)]
    return {"analysis 1": s.analysis[0], "analysis 2": s.analysis[1], "10 days 1": late[0], "10 days 2": late[1]}


def run(o: Options, out: Path) -> dict[str, Any]:
    o, scale = checked(o)
    w = world(o, scale.learn, scale.test)
    make_room(out, WRITTEN, o)
    found = discovered(o, w, scale)
    found.save(out / "found.json")
    print(found)
    numbers: dict[str, Any] = {"found": compared(w, found)}
    own = cycled(o, w, testbed.stepper(w.model), o.method, late=False)  # type: ignore[arg-type]
    numbers[HELD] = held(w, own)
    corrector = learned(o, w, scale.updates, scale.rounds) if o.neural else None
    every = models(w, found, corrector)
    scores, ds = cycles_of(o, w, every)
    write_netcdf(ds, out / "analysis.nc")
    numbers["scores"] = {m: {n: s._asdict() for n, s in own.items()} for m, own in scores.items()}
    numbers["closed"] = {m: closed(own) for m, own in scores.items()}
    climates = climates_of(o, w, every, scale.days)
    write_netcdf(spectra_file(climates), out / "climate.nc")
    numbers["climate"] = {
        how: {n: distance(c, own["truth"]) for n, c in own.items() if n != "truth" and own["truth"] is not None}
        for how, own in climates.items()
    }  # fmt: skip
    if o.prose and o.preset != "quick":
        numbers["prose"] = readings(o, w, every)
    plot.save(loop_pictures.story(ds, numbers, climates), out / "loop.png")
    print(score.table({f"{m}, {n}": row(s) for m, own in scores.items() for n, s in own.items()}))
    for method, own in numbers["closed"].items():
        print(f"{method}: " + ", ".join(f"{n} {v:.0f}" for n, v in own.items()))
    return numbers


if __name__ == "__main__":
    main(run, Options)
