"""How PROSE and methods beside it do on flows of unknown equations: predictions, terms, coefficients, their cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from tqdm import tqdm

from sciml.equation.tokens import read, skeleton, write
from sciml.grid import Grid
from sciml.prose import flow_scoring as scoring
from sciml.prose.flow_data import Flows, generate_flows
from sciml.prose.flow_fit import RefinedFlow, predict_flow, select_terms
from sciml.prose.flow_medida import medida_flow
from sciml.prose.flow_search import search_terms
from sciml.prose.flows import FLOWS, TERMS, Written, layers_of, structure, terms_of, written_member
from sciml.prose.model import PROSE
from sciml.prose.trajectories import with_noise

EMPTY = "search from no terms"
TEST = 2**31
"""Seeds from here on draw members that are tested: those of trainings are smaller, and the generator takes 32 bits."""
SEEN, LEADS = 8, 10
TOLD = ("network", "network, skeleton told", "network, equation told")
WRITTEN, REFINED, MEAN, SEARCHED = (
    "its equation as written",
    "refined equation",
    "refined, ensemble mean",
    "full library",
)
RAW, FILTERED, STILL, TWIN, MEDIDA = (
    "true equation, raw map",
    "true equation, filtered",
    "persistence",
    "twin",
    "MEDIDA",
)


@dataclass
class Found:
    """An equation that a method found, and the processor time it took."""

    expressions: Written
    terms: frozenset[str]
    seconds: float
    fit: RefinedFlow | None = None


@dataclass
class Scores:
    """Of all members, in their order."""

    flows: Flows
    noisy: Tensor
    predictions: dict[str, list[Tensor]] = field(default_factory=dict)
    """``(leads, layers, n, n)`` of each member, by method"""
    found: dict[str, list[Found]] = field(default_factory=dict)
    spread: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """of the ensemble, and the error of its mean"""
    latency: dict[str, float] = field(default_factory=dict)

    def truth(self, i: int) -> Written:
        return self.flows.equations[int(self.flows.equation[i])]

    def ahead(self, i: int) -> Tensor:
        return self.flows.frames[i, SEEN:, : layers_of(self.truth(i))].double()

    def eta(self, i: int) -> Tensor:
        return self.flows.eta[int(self.flows.equation[i])].double()

    def seen(self, i: int) -> Tensor:
        return self.noisy[i, :SEEN, : layers_of(self.truth(i))].double()


def unseen(names: Sequence[str], members: int, seed: int, n: int, noise: float, finer: int = 1) -> tuple[Flows, Tensor]:
    """A window of each of some members of all families in turn, run with ``finer`` times as many points along an axis,
    and the same with noise."""
    generator = torch.Generator().manual_seed(TEST + seed)
    drawn = [FLOWS[names[k % len(names)]].sample(1, generator)[0] for k in range(members)]
    flows = generate_flows(drawn, 1, seed=TEST + seed, n=finer * n, frames=SEEN + LEADS)
    if finer > 1:
        fine, own = (Grid(size, dtype=torch.float32) for size in (finer * n, n))
        flows = replace(flows, frames=fine.resample(flows.frames, own), eta=fine.resample(flows.eta, own))
    return flows, with_noise(flows.frames.flatten(2), noise, generator).view_as(flows.frames)


def timed(f: Callable[[], Any]) -> tuple[Any, float]:
    began = time.process_time()
    out = f()
    return out, time.process_time() - began


# -- networks --------------------------------------------------------------------------------------------------------
def seen_by(model: PROSE, s: Scores, some: slice = slice(None)) -> tuple[Tensor, Tensor, Tensor]:
    """Times, windows and maps of the topography for a network."""
    where = model.device
    return s.flows.t[:SEEN].to(where), s.noisy[some, :SEEN].to(where), s.flows.eta[s.flows.equation[some]].to(where)


def predicted(model: PROSE, s: Scores, told: list[list[str]] | None, some: slice = slice(None)) -> list[Tensor]:
    t, u, eta = seen_by(model, s, some)
    values = model.predict(t, u, s.flows.t[SEEN:].to(model.device), told, context=eta).double().cpu()
    layers = [layers_of(s.truth(i)) for i in range(len(s.flows))[some]]
    return [v[:, :n] for v, n in zip(values, layers, strict=True)]


def equations(model: PROSE, s: Scores, told: list[list[str]] | None, some: slice = slice(None)) -> list[Written]:
    """What the network writes; whole systems of as many rows and layers as the flow has."""
    t, u, eta = seen_by(model, s, some)
    layers = torch.tensor([layers_of(s.truth(i)) for i in range(len(s.flows))[some]])
    two = layers == 2
    fields = torch.stack([two | True, two, two | True, two, two | True], 1).to(model.device)
    rows = model.write(t, u, 2 * layers, told, context=eta, fields=fields)
    return [_read(best.tokens, model.vocabulary.fields, int(n)) for (best, *_), n in zip(rows, layers, strict=True)]


def _read(tokens: list[str], fields: Sequence[str], layers: int) -> Written:
    """The equation of tokens; advection alone where they cannot be read."""
    try:
        return tuple(read(tokens, fields))
    except ValueError:
        return advection(layers)


def advection(layers: int) -> Written:
    """The least of all flows."""
    return written_member("none", layers, {"radius"} if layers == 2 else set(), {"F1": 4.0, "F2": 2.0}).expressions


def asked(model: PROSE, s: Scores) -> None:
    """The network's predictions and equations, with nothing told and with more."""
    tokens = [write(s.truth(i)) for i in range(len(s.flows))]
    for name, told in zip(TOLD, (None, [skeleton(t) for t in tokens], tokens), strict=True):
        s.predictions[name] = predicted(model, s, told)
        own, seconds = timed(lambda told=told: equations(model, s, told))
        s.found[name] = [Found(e, terms_of(e), seconds / len(own)) for e in own]
    one = slice(0, 1)
    s.latency["predict"] = min(timed(lambda: predicted(model, s, None, one))[1] for _ in range(3))
    s.latency["write"] = min(timed(lambda: equations(model, s, None, one))[1] for _ in range(3))


# -- equations -------------------------------------------------------------------------------------------------------
def identified(s: Scores, i: int, library: bool) -> dict[str, Found]:
    """What is found in the maps of a member, from the network's equation and without it."""
    frames, eta, out = s.seen(i), s.eta(i), {}
    (terms, fit), seconds = timed(lambda: search_terms(s.found[TOLD[0]][i].expressions, frames, eta))
    out[REFINED] = Found(fit.expressions, terms, seconds, fit)
    if library:
        layers = layers_of(s.truth(i))
        for name, search in ((EMPTY, lambda: search_terms(advection(layers), frames, eta)),
                             (SEARCHED, lambda: select_terms(frames, eta))):  # fmt: skip
            (terms, fit), seconds = timed(search)
            out[name] = Found(fit.expressions, terms, seconds, fit)
    own, seconds = timed(lambda: medida_flow(s.truth(i)[layers_of(s.truth(i)) :], frames, eta))
    return out | {MEDIDA: Found(own, terms_of(own), seconds)}


def forecasts(s: Scores, i: int, found: dict[str, Found]) -> dict[str, Tensor]:
    """Predictions with equations, from the last map as it is seen or as a filter estimates it."""
    frames, eta, truth = s.seen(i), s.eta(i), s.truth(i)
    out = {WRITTEN: scoring.stepped(s.found[TOLD[0]][i].expressions, frames[-1], LEADS, eta)}
    out |= {name: scoring.stepped(f.expressions, f.fit.state, LEADS, eta) for name, f in found.items() if f.fit}
    out[RAW] = predict_flow(truth, frames[-1], LEADS, eta)
    out[FILTERED] = predict_flow(truth, scoring.filtered(truth, frames, eta), LEADS, eta)
    return out | {STILL: frames[-1].expand(LEADS, *frames[-1].shape)}


def compared(model: PROSE, twin: PROSE | None, s: Scores, draws: int, library: bool) -> Scores:
    """All methods on all members."""
    asked(model, s)
    if twin is not None:
        s.predictions[TWIN] = predicted(twin, s, None)
    generator = torch.Generator().manual_seed(TEST)
    for i in tqdm(range(len(s.flows)), "flows", disable=None, leave=False):
        found = identified(s, i, library)
        for name, own in found.items():
            s.found.setdefault(name, []).append(own)
        for name, own in forecasts(s, i, found).items():
            s.predictions.setdefault(name, []).append(own)
        refined = found[REFINED]
        assert refined.fit is not None
        form = structure(layers_of(s.truth(i)), refined.terms)
        drawn = scoring.ensemble(refined.fit, form, LEADS, draws, generator, s.eta(i))
        s.predictions.setdefault(MEAN, []).append(drawn.mean(1))
        s.spread.append(scoring.spread(drawn, s.ahead(i)))
    return s


# -- table -----------------------------------------------------------------------------------------------------------
ORDER = (*TOLD, TWIN, WRITTEN, REFINED, MEAN, EMPTY, SEARCHED, RAW, FILTERED, STILL)


def errors(s: Scores) -> dict[str, np.ndarray]:
    """Relative errors ``(members, leads)`` by method."""
    return {name: np.stack([scoring.relative_errors(p, s.ahead(i)).numpy() for i, p in enumerate(s.predictions[name])])
            for name in ORDER if name in s.predictions}  # fmt: skip


def coefficient_errors(s: Scores, name: str) -> list[np.ndarray]:
    """Of each member; MEDIDA knows how q follows from psi, so that only tendencies count."""
    truths = [s.truth(i) for i in range(len(s.flows))]
    return [scoring.coefficient_errors(f.expressions, t, layers_of(t) if name == MEDIDA else None)
            for f, t in zip(s.found[name], truths, strict=True)]  # fmt: skip


def right(s: Scores, name: str) -> np.ndarray:
    """Whether all terms of each member are right, in all rows."""
    return np.array([scoring.same_named_terms(f.expressions, s.truth(i)) for i, f in enumerate(s.found[name])])


def true_terms(s: Scores) -> np.ndarray:
    return scoring.term_table([terms_of(s.truth(i)) for i in range(len(s.flows))])


def identification(s: Scores) -> dict[str, dict[str, float]]:
    """Headline numbers of every method that writes equations."""
    out, true = {}, true_terms(s)
    for name, own in s.found.items():
        named, off = scoring.term_table([f.terms for f in own]), np.concatenate(coefficient_errors(s, name))
        out[name] = {
            "all terms right": float(right(s, name).mean()), "precision": float((named & true).sum() / named.sum()),
            "recall": float((named & true).sum() / true.sum()), "coef. median": float(np.median(off)),
            "coef. mean": float(off.mean()), "within 5 %": float((off < 0.05).mean()),
            "seconds": float(np.mean([f.seconds for f in own])),
        }  # fmt: skip
    return out


def dataset(s: Scores) -> xr.Dataset:
    """All of it, CF."""
    error, names = errors(s), list(s.found)
    families = [s.flows.names[int(s.flows.family[int(k)])] for k in s.flows.equation]
    off = [coefficient_errors(s, name) for name in names]

    def one(dims: str, values: Any, what: str, units: str = "1"):
        return tuple(dims.split()), np.asarray(values), {"long_name": what, "units": units}

    spread, mean = (np.stack([pair[k].numpy() for pair in s.spread]) for k in (0, 1))
    data = {
        "error": one("forecast member lead", list(error.values()), "error over the size of the truth, at most 2"),
        "spread": one("member lead", spread, "spread of the ensemble over the size of the truth"),
        "ensemble_error": one("member lead", mean, "error of the ensemble's mean over the size of the truth"),
        "named": one("identifier member term",
                     [scoring.term_table([f.terms for f in s.found[n]]).astype(np.int8) for n in names],
                     "1 where the term is in the equation found"),
        "true_term": one("member term", true_terms(s).astype(np.int8), "1 where the term is in the true equation"),
        "right": one("identifier member", [right(s, n).astype(np.int8) for n in names], "1 where all terms are right"),
        "coefficient_error": one("identifier member", [[np.median(o) for o in rows] for rows in off],
                                 "median relative error of coefficients, at most 1"),
        "within": one("identifier member", [[(o < 0.05).mean() for o in rows] for rows in off],
                      "share of coefficients within 5 %"),
        "seconds": one("identifier member", [[f.seconds for f in s.found[n]] for n in names], "processor time", "s"),
        "equation": one("identifier member", [[text(f.expressions) for f in s.found[n]] for n in names],
                        "equation found"),
        "true_equation": one("member", [text(s.truth(i)) for i in range(len(s.flows))], "true equation"),
        "family": one("member", families, "family of equations"),
    }  # fmt: skip
    coords = {
        "forecast": one("forecast", list(error), "method of prediction"), "term": one("term", list(TERMS), "term"),
        "identifier": one("identifier", names, "method of finding equations"),
        "member": one("member", np.arange(len(s.flows), dtype=np.int32), "member"),
        "lead": one("lead", s.flows.t[SEEN:].double() - float(s.flows.t[SEEN - 1]), "time after the last map", "days"),
    }  # fmt: skip
    return xr.Dataset(data, coords, {"Conventions": "CF-1.11", "title": "flows of unknown equations"})


def text(expressions: Written) -> str:
    """A written flow, row by row."""
    n = layers_of(expressions)
    names = [f"dq{i + 1}/dt" for i in range(n)] + [f"q{i + 1}" for i in range(n)]
    return "; ".join(f"{name} = {e}" for name, e in zip(names, expressions, strict=True))
