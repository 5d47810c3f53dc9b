"""Two-layer quasi-geostrophic turbulence: the truth that every method of this package is run against.

    d q_i/dt + J(psi_i, q_i) + U_i dx q_i + Qy_i dx psi_i = drag, relaxation, sponge, small-scale dissipation
    q_i = lap psi_i + (S psi)_i

Configurations: eddy and jet (Ross et al. 2023, JAMES 15, e2022MS003258; the former is pyqg's default), phillips (equal
layers, strong shear), relaxation_jet (MEDIDA, JAMES 16, e2023MS004033; nondimensional, its "days" are time units).

Writes fields (q, psi, u, v), diagnostics.nc (spectra and energy budget), pictures and summary.json. Expected for eddy
at 64^2 from year 5 to 10: eddy kinetic energy 2.2e-3 m2 s-2 in the upper layer and 6.0e-5 in the lower one, within 5 %;
docs/results.md compares it with pyqg. Run time on one core: quick 10 s, default 30 s, full (256^2) about 20 minutes.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import xarray as xr
from common import Common, NotNegative, Positive, Range, Refused, device, main, make_room

import sciml as sm
from sciml import plot
from sciml.cluster import workers
from sciml.data import (
    APPENDERS,
    SUFFIX,
    attributes,
    coordinates,
    dimensionless,
    model_attributes,
    qg_fields,
    time_coordinate,
    write_netcdf,
    zarr_group,
)
from sciml.equation.qg import QuasiGeostrophic
from sciml.record import Appender, Means, record
from sciml.rollout import check_stability
from sciml.score import table
from sciml.spectra import budget_names, dataset, residual


@dataclass(frozen=True)
class Options(Common):
    config: Literal["eddy", "jet", "phillips", "relaxation_jet"] = "eddy"
    """Set-up of the flow."""
    nx: Annotated[int, Range(8, 8_192)] | None = None
    """Points in x (default: 64, full 256; relaxation_jet 96)."""
    ny: Annotated[int, Range(8, 8_192)] | None = None
    """Points in y (default: as many as in x; relaxation_jet twice as many)."""
    days: Positive | None = None
    """Length of the recorded run, days (relaxation_jet: time units), in whole intervals between records."""
    spinup_days: NotNegative | None = None
    """Days before recording begins, in whole intervals between records."""
    dt: Positive | None = None
    """Time step, s (default: 7200 s at 64 points, less in proportion above; relaxation_jet: 0.025)."""
    every_days: Positive | None = None
    """Days between records; spectra are averaged over the records."""
    members: Annotated[int, Range(1, 100_000)] = 1
    """Ensemble members, with different initial eddies."""
    stepper: Literal["euler", "ab3", "rk4", "etdrk4", "imex"] | None = None
    """Time stepper (default: ab3, as pyqg; etdrk4 for relaxation_jet, whose hyperviscosity is stiff)."""
    precision: Literal["float32", "float64"] = "float64"
    """Precision of the run."""
    format: Literal["netcdf", "zarr"] = "netcdf"
    """Format of the fields; zarr with --cluster writes one group per member."""
    cluster: str | None = None
    """Run the members over dask: "local", or the address of a scheduler."""
    resume: bool = False
    """Continue a run that was interrupted, or make a finished one longer (with a larger --days)."""
    movie: bool = False
    """Also write an animation of the PV of both layers."""

    @property
    def name(self) -> str:
        return f"qg_two_layer-{self.config}"


DAY = 86400.0
WRITTEN = ("fields.nc", "fields.zarr", "fields*.restart.safetensors", "diagnostics.nc", "pv.png", "spectra.png",
            "budget.png", "energy.png", "pv.gif", "summary.json")  # fmt: skip
LENGTHS = {  # spin-up days, recorded days, days between records
    "quick": (360.0, 360.0, 10.0),
    "default": (1800.0, 1800.0, 10.0),
    "full": (1800.0, 1800.0, 10.0),
}


@dataclass(frozen=True)
class Plan:
    """A run in steps: everything that the options leave open is decided here."""

    eq: QuasiGeostrophic
    step: sm.Step
    spinup: int
    n: int
    every: int
    day: float
    identity: dict


def plan(o: Options) -> Plan:
    """Turn options into a model and numbers of steps."""
    if o.cluster and o.format != "zarr":
        raise Refused("--cluster writes one zarr group per member: add --format zarr")
    if o.format == "zarr":
        import zarr  # noqa: F401  # fails here, before anything is touched, where it is not installed
    jet_units = o.config == "relaxation_jet"
    day = 1.0 if jet_units else DAY
    nx = o.nx or (96 if jet_units else 256 if o.preset == "full" else 64)
    precision = {"float32": torch.float32, "float64": torch.float64}[o.precision]
    eq = sm.preset(o.config, nx, o.ny, dtype=precision, device=device(o.device))
    spinup, days, every = LENGTHS[o.preset]
    if jet_units and o.preset == "quick":
        spinup, days = 50.0, 50.0
    spinup, days, every = (default if v is None else v for v, default in
                           ((o.spinup_days, spinup), (o.days, days), (o.every_days, every)))  # fmt: skip
    dt = o.dt or (0.025 if jet_units else 7200.0 / max(1, nx / 64))
    if days < every or days * day < dt:
        raise Refused(f"--days {days:g} is shorter than --every-days {every:g}, or than one --dt of {dt:g}")
    if (total := (spinup + days) * day / dt) > 1e9:
        raise Refused(f"--spinup-days, --days and --dt ask for {total:.2g} steps")
    if round(every * day / dt) < 1:
        raise Refused(f"--every-days {every:g} is less than one --dt of {dt:g}")
    between = max(1, round(every * day / dt))
    steps = {name: round(v * day / dt / between) * between for name, v in (("spinup", spinup), ("n", days))}
    stepper = o.stepper or ("etdrk4" if jet_units else "ab3")
    identity = {
        "config": o.config, "grid (y, x)": list(eq.grid.shape), "dt": dt, "stepper": stepper, "precision": o.precision,
        "seed": o.seed, "members": o.members, "format": o.format, "steps between records": between,
        "spin-up steps": steps["spinup"],
        "parameters": json.loads(model_attributes(eq)["equation_parameters"]),
    }  # fmt: skip
    return Plan(eq, sm.STEPPERS[stepper](eq, dt), steps["spinup"], steps["n"], between, day, identity)


def one_record(p: Plan, state: sm.State, members: int | None) -> xr.Dataset:
    """The fields of a state as a Dataset with one time."""
    dims = ("time", *(() if members is None else ("member",)), "lev", "y", "x")
    data = {n: (dims, f[None].cpu().numpy(), attributes(n)) for n, f in qg_fields(p.eq, state.z).items()}
    coords = {**coordinates(p.eq, members), "time": time_coordinate([state.time])}
    ds = xr.Dataset(data, coords, attributes_of_run(p))
    return dimensionless(ds) if p.eq.nondimensional else ds


def attributes_of_run(p: Plan) -> dict:
    """Global attributes from which the run can be made again."""
    return {"Conventions": "CF-1.11", **model_attributes(p.eq), "run": json.dumps(p.identity)}


def first_state(o: Options, p: Plan, member: int | None = None) -> sm.State:
    """The start of all members, or of one of them, the same in both cases; refuses steps that must blow up."""
    q = sm.random_pv(p.eq, seed=o.seed, members=o.members if o.members > 1 else None)
    state = p.step.init(q if member is None or o.members == 1 else q[member], seed=o.seed)
    check_stability(p.step, state)
    return state


def simulate(o: Options, out: Path, member: int | None = None) -> Means:
    """Run all members in one batch, or one ``member`` alone, and return the means of its diagnostics."""
    p = plan(o)
    path, restart = out / f"fields{SUFFIX[o.format]}", out / "fields.restart.safetensors"
    if member is not None:
        torch.set_num_threads(1)
        path, restart = path / f"member_{member:03d}", out / f"fields.member_{member:03d}.restart.safetensors"

    def appender(template: xr.Dataset, start: int) -> Appender:
        file = APPENDERS[o.format](path, template, start)
        (out / "summary.json").unlink(missing_ok=True)  # from here on the run is unfinished
        return file

    means, _ = record(
        p.step, partial(first_state, o, p, member), p.n, p.every, p.spinup,
        fields=partial(one_record, p, members=o.members if o.members > 1 and member is None else None),
        values=lambda state: sm.spectra.diagnostics(p.eq, state.z, p.step.dt, state.time),
        appender=appender, restart=restart,
        identity=p.identity | ({} if member is None else {"member": member}),
        resume=o.resume and (member is None or restart.exists()),  # a cluster may not have come to a member yet
        progress=o.config,
    )  # fmt: skip
    return means


def gather(parts: list[Means]) -> Means:
    """Means of members that ran alone, stacked along a member axis."""

    def stacked(group: str) -> dict:
        return {n: torch.stack([getattr(m, group)[n] for m in parts]) for n in getattr(parts[0], group)}

    return replace(parts[0], **{g: stacked(g) for g in ("total", "first", "last")})


def finish(o: Options, p: Plan, out: Path, means: Means) -> dict[str, Any]:
    """Diagnostics file, pictures and the printed table."""
    mean = means.mean()
    elapsed = (means.n - 1) * p.every * p.step.dt
    mean["residual"] = residual(p.eq, mean, means.first, means.last, elapsed)
    diagnostics = dataset(p.eq, mean)
    diagnostics.attrs |= attributes_of_run(p) | {"records": means.n, "averaged_days": elapsed / p.day}
    write_netcdf(diagnostics, out / "diagnostics.nc")
    with sm.open_run(out) as fields:
        pictures(o, p, out, fields, diagnostics)
    results: dict[str, Any] = headline(diagnostics) | {"days": (p.spinup + (means.n - 1) * p.every) * p.step.dt / p.day}
    unit = "" if p.day == 1.0 else " m2 s-2"
    print(table({f"layer {i + 1}": {f"EKE{unit}": v} for i, v in enumerate(results["EKE"])}))
    rates = ", ".join(f"{name} {rate:+.3g}" for name, rate in results["energy_rates"].items())
    print(f"energy rates{' (m2 s-3)' * (p.day == DAY)}: {rates}\nbudget residual (rms over k, of the largest term) "
          f"{results['budget_residual']:.2g}")  # fmt: skip
    return results | {"run": p.identity}


def pictures(o: Options, p: Plan, out: Path, fields: xr.Dataset, diagnostics: xr.Dataset) -> None:
    """Maps of the PV at the end, spectra, the energy budget, energy against time."""
    q = fields["q"].isel(member=0) if "member" in fields.dims else fields["q"]
    days = fields["time"].values / p.day
    when = "" if p.day == 1.0 else f", day {days[-1]:.0f}"
    plot.save(plot.maps(q.isel(time=-1), f"{o.config}: potential vorticity{when}"), out / "pv.png")
    plot.save(plot.spectra(diagnostics), out / "spectra.png")
    plot.save(plot.budget(diagnostics), out / "budget.png")
    energy = 0.5 * (fields["u"] ** 2 + fields["v"] ** 2).mean(("y", "x"))
    energy = (energy.mean("member") if "member" in energy.dims else energy).transpose("time", "lev")
    labels = [f"layer {i}" for i in fields["lev"].values]
    x_label, y_label = ("time (days)", "eddy kinetic energy (m² s⁻²)") if p.day == DAY else ("time", "energy")
    plot.save(plot.series(days, energy.values, labels, y_label, x_label), out / "energy.png")
    if o.movie:
        plot.movie(q, out / "pv.gif")


def headline(diagnostics: xr.Dataset) -> dict[str, Any]:
    """The numbers that ``summary.json`` and the printed table give, means over members."""
    d = diagnostics.mean("member") if "member" in diagnostics.dims else diagnostics
    terms = budget_names(map(str, d.data_vars))
    largest = max(float(abs(d[n]).max()) for n in terms)
    rates = {n: float(d[n].sum() * d["k"].attrs["spacing"]) for n in terms if n not in ("KEflux", "APEflux")}
    return {
        "energy_rates": rates,
        "EKE": d["EKE"].values.tolist(),
        "APEgen": float(d["APEgen"]),
        "EKEdiss": float(d["EKEdiss"]),
        "budget_residual": float(np.sqrt(np.mean(d["residual"].values ** 2)) / largest),
        "records": diagnostics.attrs["records"],
    }


def run(o: Options, out: Path) -> dict[str, Any]:
    p = plan(o)
    if o.cluster and o.resume and not any(out.glob("fields.member_*")):
        raise Refused(f"nothing to resume: {out} holds no run that was made with --cluster")
    with workers(o.cluster, o.members) if o.cluster else nullcontext() as over:
        if not o.resume:
            first_state(o, p)  # proves that the run can start before an earlier one is touched
        make_room(out, WRITTEN, o)
        if over is None:
            means = simulate(o, out)
        else:
            zarr_group(out / "fields.zarr")
            means = gather(over(partial(simulate, o, out.resolve()), range(o.members)))
    return finish(o, p, out, means)


if __name__ == "__main__":
    main(run, Options)
