"""FuXi-DA: a learned analysis of satellite-like observations, beside the classical ladder.

    x_a = x_b + increment(x_b, observations, memory),   trained through its own assimilation cycles

CTRL is the model alone, CORR the network that sees no observations, ASSI the whole one: the satellites' value is ASSI
minus CORR. Network and experiments: Xu et al. (2025, npj Clim. Atmos. Sci. 8, 156); training through cycles: Bocquet et
al. (2024, arXiv 2408.04739). The test bed is that of cases/qg_assimilate.py: data/qg_satellite.nc, truth for scoring
only. One pixel of one channel is changed, too, and the response is compared with B H^T of an ensemble.

Writes a folder for each method, pictures, responses.json and summary.json; with --train weights.safetensors, a log and
a picture of it. Expected errors of the streamfunction, upper / lower layer, over its climatological standard deviation:
CTRL and CORR 1.0 / 1.0, ASSI 0.16 / 0.17, oi 0.20 / 0.22, letkf 0.11 / 0.12, hybrid 0.13 / 0.14. Run time on one core:
quick 40 s, default 15 minutes; --train an hour, each further stage with --start about another (four made the weights
in data/weights); --resume goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import methods
import numpy as np
import qg_assimilate as ladder
import torch
from common import Common, Positive, Range, Refused, device, folder, goes_with, main, make_room
from training import taught

import sciml as sm
from sciml import plot, score, testbed
from sciml.assim import response
from sciml.assim.base import Analysed, trajectory
from sciml.assim.cycle import cycles
from sciml.assim.learning import Cycling, Truth, adopt, observed_truth
from sciml.assim.local import LETKF
from sciml.assim.network import FuXiDA
from sciml.assim.optimal import free_run
from sciml.files import load_tensors, replacing
from sciml.nn.fuxida import Config, FuXiDANet
from sciml.observations import names
from sciml.train import same, share

TRAINED = ("weights.safetensors", "training.*", "summary.json")
"""what a training writes"""
COMPARED = ("costs.png", "forecast.png", "spectra.png", "responses.png", "responses.json", "summary.json")
"""what a comparison writes, beside a folder for each method"""
CALLED = {"CTRL": "free run (CTRL)", "CORR": "network, sees nothing (CORR)", "ASSI": "FuXi-DA (ASSI)"}
"""The paper's names, as legends explain them"""
PER_WINDOW, SPIN_UP = 5, 10
"""Observations that are changed in a window; windows of the ensemble before the first of these."""
SCALES: dict[str, dict[str, Any]] = {
    "quick": dict(truths=2, windows=12, spinup=30.0, updates=6, through=3, widths=(16, 16)),
    "default": dict(truths=24, windows=100, spinup=3600.0, updates=4000, through=2200, widths=(32, 48, 64)),
    "full": dict(truths=96, windows=200, spinup=3600.0, updates=40000, through=20000, widths=(64, 96, 128)),
}
"""Of trainings: truths and windows of each, days to their start, updates, the first of these that goes through the
model, features of the network."""


@dataclass(frozen=True)
class Options(Common):
    train: bool = False
    """Train a network instead of using one."""
    model: Literal["perfect", "imperfect"] = "perfect"
    """The model that made the truth, or one with wrong drag and deformation radius and no topography."""
    weights: Path | None = None
    """Weights of ASSI (default: those in data/weights)."""
    corr_weights: Path | None = None
    """Weights of CORR (default: those in data/weights)."""
    methods: tuple[str, ...] = ("oi", "3dvar", "letkf", "4dvar", "hybrid")
    """Methods of cases/qg_assimilate.py to compare with."""
    observations: Path = ladder.DATA / "qg_satellite.nc"
    """Observation file, as data/make_qg_satellite.py writes it."""
    truth: Path = ladder.DATA / "qg_satellite_truth.nc"
    """File with the truth, for scores only."""
    climatology: Path = ladder.DATA / "qg_satellite_climatology.nc"
    """File with snapshots of the model and its background covariance."""
    days: Positive | None = None
    """Length, days, in whole windows (default: all observations; quick 30)."""
    responses: Annotated[int, Range(0, 100_000)] | None = None
    """Observations that are changed, in the last windows (default 50; quick 2; 0: none)."""
    members: Annotated[int, Range(2, 100_000)] | None = None
    """Size of the ensemble that gives B H^T (default 200; quick 20)."""
    blind: bool = False
    """Train CORR, which sees no observations."""
    first: bool = True
    """Show the network a cheap optimal interpolation, too."""
    start: Path | None = None
    """Weights to train further."""
    halfway: bool = False
    """Keep the mean of the weights of --start and of those that the training ends with (Wortsman et al. 2022)."""
    ablate: tuple[Literal["forecast", "cycles", "mask"], ...] = ()
    """Train without the forecast loss, without gradients through cycles, or with values of observations alone."""
    updates: Annotated[int, Range(2, 100_000_000)] | None = None
    """Updates of the training (default: 4000; quick 6, full 40000)."""
    resume: bool = False
    """Go on with an interrupted training."""

    @property
    def name(self) -> str:
        return f"qg_fuxi_da{'-train' * self.train}-{self.model}{'-corr' * (self.train and self.blind)}"


# -- training --------------------------------------------------------------------------------------------------------
def truths_for(o: Options, eq: sm.TwoLayerQG, scale: dict[str, Any]) -> list[Truth]:
    """Truths of the perfect model, each under other satellites, of seeds of which no test has a truth."""
    true = testbed.model(device=eq.grid.device, dtype=eq.grid.dtype)
    step, H, seen_by = testbed.stepper(true), testbed.operator(true), testbed.operator(eq)
    first = 10_000 + 1000 * o.seed
    start = testbed.spun_up(step, first, scale["spinup"], members=scale["truths"]).z

    def states(z: torch.Tensor) -> torch.Tensor:
        return testbed.states(eq, true.read(z))

    found = []
    for i in range(scale["truths"]):
        satellites = testbed.network(H, np.random.default_rng(first + i))
        about = scale["windows"], testbed.WINDOW, H, satellites, first + i, seen_by, states
        found.append(observed_truth(step, sm.State(start[i]), *about))
    return found


def objective(o: Options, scale: dict[str, Any]) -> Cycling:
    """An untrained network and what it is to minimise."""
    eq = testbed.model(o.model, device=device(o.device), dtype=torch.float32)
    statistics = ladder.load(o.climatology, "climatology")
    earlier = None if o.start is None else methods.network(o.start, eq)
    climate = testbed.states(eq, torch.as_tensor(statistics["q"].values))
    root = eq.grid.real(statistics[f"background_root{'' if o.model == 'perfect' else '_imperfect'}"].values)
    harmonics = 4 if o.model == "imperfect" else 0
    inputs = testbed.inputs(eq, climate, harmonics, root if o.first and not o.blind else None)
    if "mask" in o.ablate:
        inputs = replace(inputs, planes=inputs.planes[:1], first=None)
    torch.manual_seed(o.seed)
    seen, first = 0 if o.blind else inputs.seen, inputs.first is not None
    config = Config(inputs.backgrounds, seen, inputs.levels, scale["widths"], first=first)
    analysis = FuXiDA(FuXiDANet(config).to(eq.grid.device), inputs)
    measures = [
        lambda dz: inputs.fields["psi"](dz) / inputs.scale("psi"),
        lambda dz: 0.5 * inputs.fields["q"](dz) / inputs.scale("q"),
    ]
    batch, cycles, through = (24, 1, scale["updates"]) if "cycles" in o.ablate else (8, 3, scale["through"])
    if "cycles" in o.ablate and o.start is not None:
        raise Refused("--ablate cycles is for a training from the beginning: leave --start out")
    if o.halfway and (earlier is None or earlier.net.config != config):
        raise Refused("--halfway needs --start with weights of a network of the same inputs")
    if earlier is not None:
        adopt(analysis, earlier)
        cycles, through = 4, 0 if earlier.net.config == config else scale["updates"] // 3
    print(f"making {scale['truths']} truths of {scale['windows']} windows", flush=True)
    truths = truths_for(o, eq, scale)
    return Cycling(
        analysis, testbed.stepper(eq), truths, climate, measures, batch, cycles, through,
        restart=0.05 if earlier is None else 0.02, forecast=0.0 if "forecast" in o.ablate else 1.0, seed=o.seed,
    )  # fmt: skip


def train(o: Options, out: Path) -> dict[str, Any]:
    """Write weights, a log and its picture."""
    if share()[1] > 1:
        raise Refused("a training through cycles carries their states in one process; start it without torchrun")
    start = {"start": load_tensors(o.start)[1].get("digest") if o.start else None}
    asked = {n: getattr(o, n) for n in ("seed", "model", "preset", "blind", "first", "ablate")} | start
    make_room(out, TRAINED, o)
    if o.resume and (checkpoint := out / "training.checkpoint").exists():
        same(checkpoint, load_tensors(checkpoint)[1], asked)  # before truths are made
    scale = SCALES[o.preset] | ({} if o.updates is None else {"updates": o.updates, "through": o.updates // 2})
    learning, updates = objective(o, scale), scale["updates"]

    def errors() -> dict[str, float]:
        return {f"error_{i + 1}": e for i, e in enumerate(learning.error_by_level().tolist())}

    analysis = learning.analysis
    labels = {f"error_{i}": layer for i, layer in enumerate(ladder.LAYERS, 1)}
    last = taught(
        analysis.net, learning, updates, out, measured=errors, labels=labels, shown=ladder.ERROR,
        lr=1.5e-3 if o.start is None else 1e-3, every=max(1, min(50, updates // 3)),
        about=asked,
    )  # fmt: skip
    if o.start is not None and o.halfway:
        halfway(analysis.net, methods.network(o.start, testbed.model(o.model)).net)
    command = f"python cases/qg_fuxi_da.py --train --preset {o.preset} --model {o.model} --seed {o.seed}"
    command += " --blind" * o.blind + " --no-first" * (not o.first)
    command += f" --start {'/'.join(o.start.parts[-2:])}" if o.start else ""
    command += f" --ablate {' '.join(o.ablate)}" if o.ablate else ""
    command += (f" --updates {o.updates}" if o.updates else "") + " --halfway" * o.halfway
    analysis.save(out / "weights.safetensors", command=command, updates=updates, model=o.model, **start)
    print(f"loss {last['loss']:.4g}, error {last['error_1']:.4g} and {last['error_2']:.4g} in the layers")
    print(f"weights in {out / 'weights.safetensors'}; use them with --weights")
    return {"loss": last["loss"], "error": [last["error_1"], last["error_2"]]}


@torch.no_grad()
def halfway(net: FuXiDANet, other: FuXiDANet) -> None:
    """Move weights half of the way to those of another network."""
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        p.lerp_(q.to(p), 0.5)


# -- comparison ------------------------------------------------------------------------------------------------------
def compared(o: Options, lo: ladder.Options, s: ladder.Setting) -> dict[str, tuple[Callable[..., Analysed], sm.State]]:
    """CTRL, CORR, ASSI and the others, each with its first state."""
    start = sm.State(s.climate.mean(0))
    corr = methods.network(o.corr_weights or methods.CORR[o.model], s.eq, o.model, blind=True)
    built = ladder.build(lo, s)
    if unknown := set(o.methods) - set(built):
        raise Refused(f"no method {', '.join(sorted(unknown))}; there are {', '.join(built)}")
    return {"CTRL": (free_run, start), "CORR": (corr, start), "ASSI": built["fuxida"]} | {
        m: built[m] for m in o.methods
    }


def responses(
    o: Options, s: ladder.Setting, analysis: Callable[..., Analysed], n: int, members: int
) -> list[dict[str, Any]]:
    """Change ``n`` observations, some in each of the last windows; responses and columns of B as arrays, their shapes.

    An ensemble starts around the network's analysis and cycles beside it; 4D-Var answers for the network's background.
    """
    generator, rng = torch.Generator().manual_seed(o.seed), np.random.default_rng(o.seed)
    scored = len(s.windows) - min(len(s.windows), -(-n // PER_WINDOW))
    first = max(0, scored - SPIN_UP)
    state, memory = sm.State(s.climate.mean(0)), None
    for one in cycles(s.step, analysis, s.windows[:first], state):
        state, memory = one.result.state, one.result.memory
    noise = s.background(torch.randn(members, *s.background.shape, dtype=s.eq.grid.dtype, generator=generator))
    many = sm.State(state.z + noise, state.time)
    local = LETKF(sm.Space(s.eq.grid, s.psi, s.eq.pv), 80e3, 1.02, every=4, seed=o.seed)
    four = sm.FourDVar(s.analysed, 1, outer=1, inner=10)
    oi = sm.OptimalInterpolation(s.background, tolerance=1e-3)
    found: list[dict[str, Any]] = []
    for k, (window, ensemble) in enumerate(cycles(s.step, local, s.windows[first:], many, "responses"), first):
        with torch.no_grad():
            states, _ = trajectory(s.step, state, window.steps)
        chosen = rng.choice(len(window), min(PER_WINDOW, n - len(found), len(window)), replace=False)
        for i in map(int, chosen if k >= scored else ()):
            about = s.psi, state, window, s.step
            seen = ensemble.background_equivalents[:, i]
            fields = {
                "network": response.response(analysis, *about, memory, i),
                "4D-Var": response.response(four, *about, None, i),
                "OI": response.response(oi, *about, None, i),
                "ensemble B": response.ensemble_column(s.psi, ensemble.background.z, seen, window.sigma[i]),
                "static B": response.static_column(s.background, s.psi, states, window, i),
            }
            x, y = (float(window.obs[c][i]) for c in "xy")
            case = {"channel": names(window.obs, "channel")[int(window.obs["channel"][i])], "x": x, "y": y}
            case["window"], case["part of the window"] = k, (float(window.obs["time"][i]) - window.start) / s.length
            case["shape"] = {name: response.shape(f, s.eq.grid, x, y) for name, f in fields.items()}
            truth, where = fields["ensemble B"], response.near(s.eq.grid, x, y)
            others = {name: f for name, f in fields.items() if f is not truth}
            case["agreement"] = {name: response.agreement(f, truth, where) for name, f in others.items()}
            found.append(case | {"fields": fields})
        done = analysis(state, window, s.step, memory)
        state, memory = done.state, done.memory
    return found


def summarised(cases: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By method: mean agreement with the ensemble, what it has over the static B with the standard error of means over
    windows; medians of shapes, and displacements by the time of the observation (first and last third of the window).
    """
    out, part = {}, np.array([c["part of the window"] for c in cases])
    windows = np.unique([c["window"] for c in cases], return_inverse=True)[1]
    for name in cases[0]["shape"]:
        shapes = [c["shape"][name] for c in cases]
        own = {}
        if name in cases[0]["agreement"]:
            own["agreement"] = np.mean([c["agreement"][name] for c in cases])
            gain = np.array([c["agreement"][name] - c["agreement"]["static B"] for c in cases])
            means = np.bincount(windows, gain) / np.bincount(windows)
            own["over static B"], own["+-"] = gain.mean(), means.std() / max(1, len(means) - 1) ** 0.5
        signs = [c["shape"][name]["sign"] == c["shape"]["ensemble B"]["sign"] for c in cases]
        out[name] = {n: float(v) for n, v in own.items()} | {
            "same sign": float(np.mean(signs)),
            "radius (km)": float(np.median([h["radius"] for h in shapes])) / 1e3,
            "layer 2 / 1": float(np.median([h["projection"] for h in shapes])),
        }
        for side in ("east", "north"):
            km = np.array([h[side] for h in shapes]) / 1e3
            for when, where in (("early", part < 1 / 3), ("late", part > 2 / 3)):
                out[name][f"{side}, {when} (km)"] = float(np.median(km[where])) if where.any() else float("nan")
    return out


def compare(o: Options, out: Path) -> dict[str, Any]:
    """The ladder with the network in it, and its responses."""
    lo = ladder.Options(
        preset=o.preset, seed=o.seed, device=o.device, model=o.model, days=o.days, weights=o.weights,
        observations=o.observations, truth=o.truth, climatology=o.climatology, method="fuxida",
    )  # fmt: skip
    s = ladder.prepare(lo)
    assert s.truth is not None
    analyses = compared(o, lo, s)
    make_room(out, (*COMPARED, *ladder.of_methods(analyses)), o)
    n = o.responses if o.responses is not None else 2 if o.preset == "quick" else 50
    members = o.members or (20 if o.preset == "quick" else 200)
    results, records = {}, {}
    for name, (analysis, start) in analyses.items():
        try:
            results[name], records[name] = ladder.one_method(lo, s, name, analysis, start, folder(out / name))
        except sm.BlowUp as error:
            print(f"{name}: {error}")
    errors = {str(CALLED.get(name, name)): r["forecast"] for name, r in results.items()}
    plot.save(plot.forecasts(errors, ladder.LAYERS, ladder.ERROR), out / "forecast.png")
    late = slice(3 * len(s.windows) // 8, None)
    found = {name: s.eq.psi(r.analysis[late]) for name, r in records.items()}
    plot.save(plot.compared_spectra(s.eq.grid, found, s.eq.psi(s.truth[late])), out / "spectra.png")
    plot.save(plot.costs(results, ladder.LAYERS, ladder.ERROR), out / "costs.png")
    print(score.table({m: ladder.row(r) for m, r in results.items()}))
    numbers: dict[str, Any] = {"ladder": results}
    if n:
        cases = responses(o, s, analyses["ASSI"][0], n, members)
        if not cases:
            raise Refused("there are no observations to change in the last windows; use --responses 0")
        plot.save(plot.responses(s.eq.grid, cases[:4]), out / "responses.png")
        numbers["responses"] = summarised(cases)
        with replacing(out / "responses.json") as partial_file:
            kept = [{k: v for k, v in c.items() if k != "fields"} for c in cases]
            partial_file.write_text(json.dumps(kept, indent=1) + "\n")
        print(score.table(numbers["responses"]))
    return numbers


def run(o: Options, out: Path) -> dict[str, Any]:
    goes_with(o, o.train, "--train", "blind", "first", "start", "halfway", "ablate", "updates", "resume")
    goes_with(o, not o.train, "comparisons, without --train", "weights", "corr_weights", "methods", "observations",
              "truth", "days", "responses", "members")  # fmt: skip
    return (train if o.train else compare)(o, out)


if __name__ == "__main__":
    main(run, Options)
