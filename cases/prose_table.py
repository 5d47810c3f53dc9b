"""The table of the ODE case: sweeps, and all numbers as one dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from prose_evaluation import (
    FITTED,
    UNTIL,
    Marks,
    Tests,
    errors_of,
    expressions_of,
    fitted_forecasts,
    marked,
    readers,
    stacked,
    unseen,
)  # fmt: skip

from sciml.prose.model import PROSE
from sciml.prose.ordinary import SENSITIVITY
from sciml.prose.symbols import GUESSES

NOISES = (0.0, 0.01, 0.02, 0.05, 0.1)
SEEN = (16, 32, 48, 64)
WIDER = (1.0, 1.5, 2.0)
"""Ranges of parameters, in units of those of the training."""
BATCHES = (1, 64)
TOLD = ("skeleton", "none")


def swept(model: PROSE, twin: PROSE | None, tests: Tests, fits: int, beams: int, seed: int) -> dict[str, torch.Tensor]:
    """Errors for other noise, fewer points, and wider ranges of parameters; methods with fits on so many windows."""
    who, names, about = readers(model, twin), tests.runs.names, model.about
    noisy = [tests.with_noise(level, seed) for level in NOISES]
    wide = [tests, *(unseen(model, names, len(tests.window) // len(names), about["noise"], w * about["spread"], seed)
                     for w in WIDER[1:])]  # fmt: skip
    out = {
        "noise_error": stacked([errors_of(who, t) for t in noisy]),
        "noise_expression": noise_expressions(model, tests, noisy),
        "seen_error": stacked([errors_of(who, tests, n) for n in SEEN]),
        "spread_error": stacked([errors_of(who, t) for t in wide]),
    }
    marks = [(t, expressions_of(model, t)) for t in wide]
    out["spread_expression"] = stacked([[t.mean(e) for e in m.error] for t, m in marks])
    out["spread_valid"] = stacked([[t.mean(v) for v in m.valid] for t, m in marks])
    if fits:
        out["noise_fitted"] = stacked([fitted_errors(model, t.first(fits), beams) for t in noisy])
    return out


def noise_expressions(model: PROSE, tests: Tests, noisy: Sequence[Tests]) -> torch.Tensor:
    """Mean errors of expressions ``(noise, told, families)``; all are written together."""
    errors = expressions_of(model, tests.repeated(noisy)).error.unflatten(1, (len(noisy), -1))
    return stacked([[tests.mean(e) for e in level] for level in errors.transpose(0, 1)])


def fitted_errors(model: PROSE, tests: Tests, beams: int) -> torch.Tensor:
    """Mean errors of equations found without a guess, ``(methods, families)``."""
    families = [tests.family(f) for f in range(len(tests.runs.names))]
    found = [[marked(c, own).errors.mean() for c in fitted_forecasts(model, own, beams).values()] for own in families]
    return stacked(found).mT


def dataset(
    tests: Tests, scores: Mapping[str, torch.Tensor], found: Sequence[Mapping[str, Marks]],
    sweeps: Mapping[str, torch.Tensor], seconds: torch.Tensor,
) -> xr.Dataset:  # fmt: skip
    """Everything that was measured; ``found`` has the marks of all methods, family by family."""
    names = tests.runs.names
    methods, who = list(found[0]), ["skeleton", "none", "twin"][: sweeps["noise_error"].shape[1]]
    writers = [m for m in methods if found[0][m].right is not None]
    of_methods = ("forecast", "family")

    def of(names: Sequence[str], value) -> np.ndarray:
        return np.array([[float(value(marks[m])) for marks in found] for m in names])

    data = {
        "error": (("guess", "target", "until", "family"), scores["error"], "relative error of prediction, mean"),
        "valid": (("guess", "form", "family"), scores["valid"], "share of equations that can be read"),
        "expression": (("guess", "form", "family"), scores["expression"], OF_VALID + "mean"),
        "expression_median": (("guess", "form", "family"), scores["expression_median"], OF_VALID + "median"),
        "integrated": (of_methods, of(methods, lambda m: m.errors.mean()), LIMITED + "mean"),
        "integrated_median": (of_methods, of(methods, lambda m: m.errors.median()), LIMITED + "median"),
        "right": (("writer", "family"), of(writers, lambda m: m.right), "share of equations with the right terms"),
        "coefficients": (("writer", "family"), of(writers, lambda m: m.coefficients), OF_NUMBERS),
        "seconds": (of_methods, of(methods, lambda m: m.seconds), "processor time for one window"),
        "latency": (("task", "batch"), seconds, "time for one window, median"),
        "lyapunov": ("family", [SENSITIVITY[n].exponent for n in names], "largest Lyapunov exponent at the centre"),
        "growth": ("family", [SENSITIVITY[n].growth for n in names], "growth of small errors in six units of time"),
        "chaotic": ("family", [int(SENSITIVITY[n].chaotic) for n in names], "whether predictability is short"),
    }  # fmt: skip
    about = "relative error of prediction in [2, 6], mean"
    own = {
        "noise_error": (("noise", "reader", "family"), about),
        "noise_expression": (("noise", "told", "family"), OF_VALID + "mean"),
        "noise_fitted": (("noise", "fitted", "family"), LIMITED + "mean"),
        "seen_error": (("seen", "reader", "family"), about),
        "spread_error": (("spread", "reader", "family"), about),
        "spread_expression": (("spread", "told", "family"), OF_VALID + "mean"),
        "spread_valid": (("spread", "told", "family"), "share of equations that can be read, written freely"),
    }
    data |= {n: (own[n][0], values, own[n][1]) for n, values in sweeps.items()}
    coords = {
        "guess": list(GUESSES), "target": ["clean", "noisy"], "until": list(UNTIL), "family": list(names),
        "form": ["raw", "grammar"], "forecast": methods, "writer": writers, "task": ["predict", "write"],
        "batch": list(BATCHES), "noise": list(NOISES), "reader": who, "told": list(TOLD), "seen": list(SEEN),
        "spread": list(WIDER), "fitted": list(FITTED),
    }  # fmt: skip
    units = {"seconds": "s", "latency": "s"}
    variables = {
        n: (dims, np.asarray(v), {"units": units.get(n, "1"), "long_name": text}) for n, (dims, v, text) in data.items()
    }
    used = {d for v in variables.values() for d in ([v[0]] if isinstance(v[0], str) else v[0])}
    axes = {n: (n, np.array(v), {"units": "1"}) for n, v in coords.items() if n in used}
    attrs = {"Conventions": "CF-1.11", "title": "scores of PROSE for ordinary differential equations"}
    return xr.Dataset(variables, axes, attrs)


OF_NUMBERS = "relative error of numbers, mean, at most 1 for each"
OF_VALID = "relative error of right-hand sides of valid equations (1 where there are none), "
LIMITED = "relative error in [2, 6], at most 1, "
