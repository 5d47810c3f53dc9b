r"""MEDIDA: the terms that a model lacks, from how far it misses consecutive states.

A state :math:`z(t)` is advanced with the model over an interval T and compared with the one observed then,

.. math:: h = \frac{z(t + T) - M_T(z(t))}{T} \approx \sum_i c_i \, \tfrac12 [\phi_i(z(t)) + \phi_i(z(t + T))] ,

and h is regressed on candidate terms :math:`\phi_i` (Mojgani, Chattopadhyay & Hassanzadeh 2022, Chaos 32, 061105, and
2024, JAMES 16, e2023MS004033, equations 4 to 8). Beyond the papers:

* h and all columns are low-passed, which is a regression in weak form with smooth test functions: noise of
  interpolation and observation stays out (for the weak form see Reinbold et al. 2020, Phys. Rev. E 101, 010203);
* columns are means over both ends of the interval: second order in T, and errors of the two states that are alike make
  no bias;
* with ``rounds``, increments are taken again from the model with what was found: nothing of the first order is left;
* increments of a series of states are summed with weights that leave little of the noise, which is a weak form in
  time (:mod:`sciml.discover.samples`);
* which terms are kept is decided on increments held out; errors of coefficients allow for correlated residuals;
* with a ``twin``, the bias of gaps and noise is what the same regression finds where the corrected model, which lacks
  nothing of itself, is the truth (indirect inference: Gourieroux, Monfort & Renault 1993, J. Appl. Econom. 8, S85).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from sciml.discover.discovery import Discovery
from sciml.discover.library import Library
from sciml.discover.moments import Gathering, Moments, instrumented, moments
from sciml.discover.samples import Sample, sound
from sciml.discover.sparse import Fit, Path, least_squares, selected
from sciml.equation.base import Equation
from sciml.step import Step

TILES = 4
"""Increments of a sample are gathered in ``TILES x TILES`` parts of the box, whose residuals count as independent."""
Select = Callable[[Moments], Fit | tuple[Fit, Path]]
"""What keeps some of the columns: :func:`~sciml.discover.sparse.selected`, or any fit, such as ``relevance_vectors`` or
``lambda m: pysindy(m, STLSQ(threshold=0.1))``"""


def low_pass(eq: Equation, cut: float) -> Tensor:
    """``exp(-(K / cut)^8)`` on the modes; ``inf`` lets all pass."""
    return eq.grid.real(torch.exp(-((eq.grid.K2.sqrt() / cut) ** 8)))


def regression(
    model: Equation, step: Step, data: Iterable[Sample], library: Library, cuts: Sequence[float],
    added: dict[str, np.ndarray], where: Tensor | None,
) -> dict[tuple[str, float], Moments]:  # fmt: skip
    """Moments by field and low-pass: of increments of ``step``, to which the terms ``added`` belong already; columns of
    the library, then instruments where there are some."""
    p, samples = len(library), 0
    streams = {(f, c): Gathering() for f in added for c in cuts}
    for sample in data:
        sound(sample, model, samples)
        h, phi, rate = sample.rows(model, step, library)
        samples += len(h)
        names = library.names * (phi.shape[2] // p)
        for field in added:
            i = model.prognostic.index(field)
            known = model.grid.complex(torch.as_tensor(added[field]))[:, None, None] * phi[:, :, :p]
            whole = h[:, :, i] + known.sum(2)
            for cut in cuts:
                smooth = low_pass(model, cut)
                y, x, all_of_it = (model.grid.ifft(smooth * a) for a in (whole, phi, rate[:, :, i]))
                for part in tiles(names, x, y, all_of_it, where):
                    streams[field, cut].add(part)
    return {key: stream.moments() for key, stream in streams.items()}


def fitted(m: Moments, p: int, select: Select) -> tuple[Fit, Path]:
    """Select among ``p`` columns; with instruments, only those of the columns that were kept give the coefficients, for
    many instruments make a bias (Wooldridge 2010, section 5.2)."""
    if len(m.names) == p:
        return with_path(select(m))
    fit, path = with_path(select(instrumented(m)))
    kept = fit.active
    own = least_squares(instrumented(m.columns([*kept, *(kept + p)])))
    c, covariance = np.zeros(p), np.zeros((p, p))
    c[kept], covariance[np.ix_(kept, kept)] = own.coefficients, own.covariance
    return Fit(fit.names, c, covariance, own.unexplained), path


def with_path(found: Fit | tuple[Fit, Path]) -> tuple[Fit, Path]:
    """A fit that was chosen without a path is the only one on its own."""
    if not isinstance(found, Fit):
        return found
    return found, Path([found.active], np.array([[found.unexplained]]), 0)


def tiles(names: Sequence[str], x: Tensor, y: Tensor, whole: Tensor, where: Tensor | None) -> list[Moments]:
    """Moments of columns ``(samples, [rows,] p, ny, nx)`` and values ``(samples, [rows,] ny, nx)``, blocks by sample
    and part of the box."""
    kept = torch.ones(y.shape[-2:], dtype=torch.bool) if where is None else where
    found = []
    for rows in torch.arange(y.shape[-2]).tensor_split(min(TILES, y.shape[-2])):
        for cols in torch.arange(y.shape[-1]).tensor_split(TILES):
            own = kept[rows][:, cols]
            if own.any():
                a, b, c = (f[..., rows, :][..., cols][..., own].double().cpu().numpy() for f in (x, y, whole))
                a = a.swapaxes(-1, -2).reshape(len(a), -1, len(names))
                found.append(moments(names, a, b.reshape(len(b), -1), c.reshape(len(c), -1)))
    return found


def medida(
    model: Equation, stepper: Callable[[Equation], Step],
    data: Sequence[Sample] | Callable[[Equation], Sequence[Sample]], library: Library, *,
    cuts: Sequence[float] = (np.inf,), rounds: int = 2, select: Select = selected, where: Tensor | None = None,
    fields: Sequence[str] | None = None, twin: Callable[[Equation], Sequence[Sample]] | None = None,
) -> Discovery:  # fmt: skip
    """Find what ``model`` lacks.

    Raises ``ValueError`` for libraries whose columns depend on each other, states that are not finite, and too little
    data; a corrected model whose states do not stay finite ends the rounds, with a warning.

    Parameters
    ----------
    stepper : how the model is stepped, such as ``lambda eq: rk4(eq, dt)``
    data : pairs or series of observed states (:func:`~sciml.pairs`), read once a round; a stream must be one that can
        be read again. For analyses of an assimilation a function that assimilates anew with the corrected model it is
        given, such as ``lambda eq: pairs(cycle(stepper(eq), ...).analysis, ...)``: a gain shows only a part of what is
        missing, and what is found in a round leaves the part that the next one sees
    cuts : wavenumbers of the low-pass; for each field the one is taken with which most of held-out increments is
        explained
    rounds : how often increments are taken, each time from the model with what was found before
    where : points of the grid that count, ``(ny, nx)``
    select : which terms are kept (default: backward elimination, judged by held-out increments)
    fields : those whose terms are given (default: all); the others are searched and corrected as well, because what one
        of them lacks shows in all after a few steps
    twin : makes as much data as ``data`` with an equation as the truth, in batches of the same sizes; used in the last
        round to take off the bias of how states are observed, at the price of noise of its own

    Examples
    --------
    >>> truth, model = (sm.preset("eddy", nx=32, rek=rek) for rek in (6e-7, 2e-7))
    >>> path = sm.rollout(sm.rk4(truth, 7200.0), 240, every=1, save=lambda state: state.z)
    >>> seen = sm.pairs(path(sm.random_pv(truth, seed=0)).fields[120:], steps=1, every=6)
    >>> found = sm.medida(model, lambda eq: sm.rk4(eq, 7200.0), seen, sm.terms(model), fields=["q2"])
    >>> [term.name for term in (model + found).extra], round(float(abs(found.coefficients()).max()) * 1e7, 1)
    (['found lap(psi2)'], 4.0)
    """
    if not cuts or not all(c > 0 for c in cuts) or rounds < 1:
        raise ValueError(f"cuts must be positive wavenumbers and rounds at least 1, got {cuts} and {rounds}")
    if isinstance(stepper, Step) or not isinstance(library, Library) or not len(library):
        raise ValueError("medida takes what makes a step, such as lambda eq: rk4(eq, dt), and a library such as "
                         f"terms(model); got {type(stepper).__name__} and {type(library).__name__}")  # fmt: skip
    if not callable(data) and (isinstance(data, Tensor | Sample) or not hasattr(data, "__iter__")):
        raise ValueError("data are pairs of states, as pairs(states, steps) makes them, or a function that gives them")
    if isinstance(fields, str) or (fields is not None and not fields):
        raise ValueError(
            f"fields are a list of names such as {list(model.prognostic)}, or None for all; got {fields!r}"
        )
    if not callable(data) and iter(data) is data:
        raise ValueError("data is read once a round and this iterator can be read once; give a list")
    if where is not None and where.shape != model.grid.shape:
        raise ValueError(f"where must be {model.grid.shape}, the points of the grid, got {tuple(where.shape)}")
    if unknown := set(fields or ()) - set(model.prognostic):
        raise ValueError(f"the model has no {', '.join(sorted(unknown))}; its fields are {', '.join(model.prognostic)}")
    added = {field: np.zeros(len(library)) for field in model.prognostic}
    found: Discovery | None = None
    bias: dict[tuple[str, float], Moments] = {}
    for number in range(rounds):
        corrected = model if found is None else model + found
        step = stepper(corrected)
        try:
            given = data(corrected) if callable(data) else data
            by_key = regression(model, step, given, library, cuts, added, where)
            if twin is not None and number == rounds - 1:
                none = {field: np.zeros(len(library)) for field in added}
                bias = regression(model, step, twin(corrected), library, cuts, none, where)
        except ValueError as error:
            if found is None:
                raise
            warnings.warn(f"round {number + 1} is left out, the model with what was found fails: {error}", stacklevel=2)
            break
        by_key = {key: m.less(bias[key]) if bias else m for key, m in by_key.items()}
        fits, paths, used = {}, {}, {}
        for field in added:
            used[field], (fits[field], paths[field]) = best({c: by_key[field, c] for c in cuts}, library, select)
        found = Discovery(library, fits, paths, used, dict(model.units))
        added = {field: fit.coefficients for field, fit in fits.items()}
    assert found is not None
    asked = [f for f in model.prognostic if f in (fields or model.prognostic)]
    parts = ({f: own[f] for f in asked} for own in (found.fits, found.paths, found.cuts))
    return Discovery(library, *parts, found.units)  # type: ignore[arg-type]


def best(by_cut: dict[float, Moments], library: Library, select: Select) -> tuple[float, tuple[Fit, Path]]:
    """The low-pass with which most of held-out increments is explained. One that leaves so few waves that columns
    depend on each other is left out, with a warning, where another one does not."""
    tried, failed = {}, {}
    for cut, m in by_cut.items():
        try:
            tried[cut] = fitted(m, len(library), select)
        except ValueError as error:
            failed[cut] = error
    if not tried:
        raise failed[max(failed)]
    for cut, error in failed.items():
        warnings.warn(f"the low-pass at {cut:g} is left out: {error}", stacklevel=3)
    used = min(tried, key=lambda c: tried[c][1].mean[tried[c][1].chosen])
    return used, tried[used]
