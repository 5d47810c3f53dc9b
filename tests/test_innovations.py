"""Missing terms from innovations: derivatives against whole cycles of a changed model, gains against the analyses' own,
and terms that were taken out of a model found again."""

from functools import partial

import numpy as np
import pytest
import torch

import sciml as sm
from sciml.assim.base import Analysed, forecast, innovations, restarted
from sciml.assim.cycle import cycles
from sciml.assim.local import LETKF
from sciml.discover.innovations import Assimilation, Candidates, candidates, medida_cycled, sensitivities
from sciml.discover.library import Library
from sciml.observations import concatenate, observations
from sciml.observe import Channel, Operator, level
from tests.conftest import relative

DT, STEPS = 7200.0, 12
step_of = partial(sm.rk4, dt=DT)
LIBRARY = Library(("lap(psi2)", "psi1", "dx(psi2)", "J(psi1, q2)", "q2**2"))


class Nudging:
    """Adds to psi a constant matrix times the departures, another one in each window."""

    def __init__(self, model, windows):
        def gain(i, w):
            return 0.02 * torch.randn(len(w), 2 * 12 * 16, generator=torch.Generator().manual_seed(i)).double()

        self.model, self.gains = model, {w.start: gain(i, w) for i, w in enumerate(windows)}

    def increment(self, window, seen):
        change = (window.value - seen) @ self.gains[window.start]
        return self.model.pv(change.reshape(*seen.shape[:-1], 2, 12, 16))

    def __call__(self, background, window, step, memory=None):
        _, end, seen = forecast(step, background, window)
        return Analysed(restarted(end, end.z + self.increment(window, seen)), end, seen)

    def companions(self, window, result, states, equivalents, memory=None):
        return states[-1] + self.increment(window, equivalents), None


def basin(**changes):
    grid = sm.Grid(16, 12, Lx=4e5, Ly=3e5)
    return sm.TwoLayerQG(grid=grid, **{"rd": 15e3, "U1": 0.04, "beta": 1.5e-11, "rek": 1e-6} | changes)


@pytest.fixture(scope="module")
def seen():
    """A truth with drag, and 40 observations a day of each layer for 24 days."""
    truth = basin()
    z = sm.rollout(sm.rk4(truth, DT), 3000, every=3000, save=lambda s: s.z)(
        sm.random_pv(truth, seed=0, members=25, speed=0.1)
    ).fields[-1]
    days = 24
    path = sm.rollout(sm.rk4(truth, DT), days * STEPS, every=1, save=lambda s: s.z)(sm.State(z[0])).fields
    psi = truth.grid.ifft(truth.psi(z))
    sigma = (0.1 * psi.std((0, 2, 3))).tolist()
    rng, parts = np.random.default_rng(1), []
    for lev in (1, 2):
        time = np.sort(rng.uniform(1.0, days * STEPS * DT, 40 * days))
        x, y = rng.uniform(0, 4e5, len(time)), rng.uniform(0, 3e5, len(time))
        blank = observations(0 * time, sigma[lev - 1], time, x, y, channels=[f"psi{lev}"], platforms=["buoys"])
        parts.append(blank)
    obs = concatenate(parts)
    perfect = sm.windows(obs, operator(truth, sigma), 0.0, DT, STEPS, days)
    exact = [w.equivalents(path[i * STEPS : (i + 1) * STEPS + 1]) for i, w in enumerate(perfect)]
    noise = torch.randn(sum(map(len, exact)), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    used = concatenate([w.obs for w in perfect])
    used["value"] = ("obs", (torch.cat(exact) + noise * torch.as_tensor(used["sigma"].values)).numpy())
    return truth, z, sigma, used, days


def operator(eq, sigma):
    def psi(z):
        return eq.grid.ifft(eq.psi(z))

    return Operator(eq.grid, psi, tuple(Channel(f"psi{i}", level(i), sigma[i - 1]) for i in (1, 2)))


def windows_of(eq, seen, n=None):
    _, _, sigma, obs, days = seen
    return sm.windows(obs, operator(eq, sigma), 0.0, DT, STEPS, days)[:n]


def filtered(eq, seen, n=None) -> Assimilation:
    space = sm.Space(eq.grid, lambda z: eq.grid.ifft(eq.psi(z)), eq.pv)
    return Assimilation(LETKF(space, 4e4, 1.1), windows_of(eq, seen, n), sm.State(seen[1][1:]))


def test_derivatives_are_those_of_whole_cycles_of_a_changed_model(seen):
    model, z = basin(rek=0.0), seen[1]
    windows = windows_of(model, seen, 4)
    analysis, start = Nudging(model, windows), sm.State(z[0])
    every = candidates(model, LIBRARY, z, STEPS * DT, size=1e-4)

    def departures(eq):
        return [w.value - r.background_equivalents for w, r in cycles(step_of(eq), analysis, windows, start)]

    pushed = step_of(model.with_tendency(every.push))
    found = sensitivities(step_of(model), pushed, Assimilation(analysis, windows, start), len(every.unit))
    plain = departures(model)
    for i in (0, 3, 5, 8):
        changed = departures(model + every.terms(np.eye(len(every.unit))[i]))
        for a, b, s in zip(plain, changed, found, strict=True):
            torch.testing.assert_close(s.departure, a)
            assert relative(s.slope[i], a - b) < 1e-3, "innovations fall by as much as the equivalents rise"


def test_companions_of_the_filter_have_the_gain_of_its_mean(seen):
    model = basin()
    analysis, windows, start = filtered(model, seen, 1)
    result = analysis(start, windows[0], step_of(model))
    mean = result.background.z.mean(0)
    states = mean.expand(STEPS + 1, 2, *mean.shape).clone()
    states[-1, 1] += 1e-3 * seen[1][0]
    seen_by = result.background_equivalents.mean(0)
    z, memory = analysis.companions(windows[0], result, states, torch.stack([seen_by, seen_by]), None)
    assert memory is None
    assert relative(z[0], result.state.z.mean(0)) < 1e-10
    assert relative(z[1] - z[0], 1e-3 * seen[1][0]) < 1e-10
    with pytest.warns(UserWarning, match="there are none"):
        empty = sm.windows(windows[0].obs.isel(obs=slice(0)), windows[0].operator, 0.0, DT, STEPS, 1)[0]
    unchanged, _ = analysis.companions(empty, result, states, torch.zeros(2, 0, dtype=torch.float64))
    assert torch.equal(unchanged, states[-1])


def test_the_drag_that_a_model_lacks_is_found_and_nothing_else(seen):
    model, said = basin(rek=0.0), []
    found = medida_cycled(model, step_of, lambda eq: filtered(eq, seen), LIBRARY, seen[1], skip=9, log=said.append)
    c = found.coefficients()
    assert np.argwhere(c).tolist() == [[1, 0]], f"lap(psi2) in the equation of q2 alone: {found}"
    assert abs(c[1, 0] / -1e-6 - 1) < 0.1
    assert abs(c[1, 0] + 1e-6) < 4 * found.std()[1, 0]
    assert "innovations" in str(found)
    assert len(said) >= 3


def test_a_perfect_model_lacks_nothing(seen):
    found = medida_cycled(basin(), step_of, lambda eq: filtered(eq, seen), LIBRARY, seen[1], shares=(0.05,), skip=12)
    assert not found.coefficients().any(), found


def test_refusals(seen):
    model, z = basin(), seen[1]
    with pytest.raises(ValueError, match="are the same everywhere, and move nothing: 1; leave them out"):
        candidates(model, Library(("1", "psi1")), z, 1e5)
    with pytest.raises(ValueError, match="has no q3; its fields are q1, q2"):
        candidates(model, LIBRARY, z, 1e5, ["q3"])
    with pytest.raises(ValueError, match="innovations of 7 windows are needed, the first 5 do not count: 6"):
        medida_cycled(model, step_of, lambda eq: filtered(eq, seen, 6), LIBRARY, z)


def test_terms_come_in_their_own_units(seen):
    model, z = basin(), seen[1]
    every = candidates(model, LIBRARY, z, 1e5, ["q2"])
    assert every.names[0] == "q2: lap(psi2)"
    lap = model.grid.ifft(LIBRARY.values(model, z))[:, 0]
    q2 = model.read(z)[:, 1]
    assert float(every.unit[0] * lap.std() * 1e5 / q2.std()) == pytest.approx(1e-3, rel=0.02)
    (term,) = every.terms(np.array([2.0, 0, 0, 0, 0]))
    assert (term.field, term.name) == ("q2", "found lap(psi2)")
    one = Candidates(every.library, every.fields, every.unit, np.array([3]))
    out = one.push(model, torch.stack([z[0], z[0]]), 0.0)
    assert not out[0].any()
    assert not out[1, 0].any()
    assert out[1, 1].any()
    assert not one.push(model, z[0], 0.0).any(), "a state alone is not pushed"


def test_innovations_are_in_units_of_errors(seen):
    window = windows_of(basin(), seen, 1)[0]
    assert torch.allclose(innovations(window, window.value - 2 * window.sigma), torch.full_like(window.value, 2.0))
