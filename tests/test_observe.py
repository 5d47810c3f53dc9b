"""Observation operators, instruments and simulated observations."""

import numpy as np
import pytest
import torch

from sciml import Grid, TwoLayerQG
from sciml.instruments import Clouds, Instrument, both_sides, errors_in_common, points, scan, simulate, swath, track
from sciml.observations import names, observations
from sciml.observe import Channel, Operator, footprint, level, radiance, speed, ssh, velocity, windows
from tests.models import qg

GRID = Grid(32, 24, Lx=4e5, Ly=3e5, dealias=1.0)
QUANTITIES = {
    "level": level(2), "ssh": ssh(1e-4), "u": velocity(GRID, "u"), "v": velocity(GRID, "v", 2), "speed": speed(GRID),
    "radiance": radiance((0.5, 2.0), 1.0), "footprint": footprint(radiance((0.5, 2.0), 1.0), GRID, 2e4),
}  # fmt: skip


def equation():
    return TwoLayerQG(grid=GRID, rd=15e3, U1=0.02, beta=1.5e-11)


def operator(eq, *channels):
    return Operator(GRID, lambda z: eq.grid.ifft(eq.psi(z)), channels)


def some(eq, rng, steps=3):
    return eq.init(torch.randn(steps + 1, 2, *GRID.shape, generator=rng, dtype=torch.float64))


@pytest.mark.parametrize("name", QUANTITIES)
def test_adjoint_of_every_operator(name, rng):
    """<H' x, y> = <x, H'^T y>, through interpolation in space and time."""
    quantity = QUANTITIES[name]
    obs = observations(
        np.zeros(50),
        1.0,
        np.sort(rng_numpy().uniform(0, 3, 50)),
        *rng_numpy(1).uniform(0, 3e5, (2, 50)),
        channels=["c"],
    )
    H = Operator(GRID, lambda f: f, (Channel("c", quantity, 1.0),))
    samples = H.samples(obs, 0.0, 1.0, 3)
    f, x = (torch.randn(4, 2, *GRID.shape, generator=rng, dtype=torch.float64) for _ in range(2))
    y = torch.randn(50, generator=rng, dtype=torch.float64)

    def h(f):
        return H(f, samples, 50)

    _, forward = torch.func.jvp(h, (f,), (x,))
    adjoint = torch.func.vjp(h, f)[1](y)[0]
    a, b = (forward * y).sum(), (x * adjoint).sum()
    assert abs(a - b) < 1e-10 * abs(a)
    small = 1e-6
    slope = (h(f + small * x) - h(f - small * x)) / (2 * small)
    assert (slope - forward).norm() < 1e-6 * forward.norm(), "the tangent is the derivative"


def rng_numpy(seed=0):
    return np.random.default_rng(seed)


def test_quantities_of_a_plane_wave():
    x, y = GRID.axes()
    k, l = 2 * 2 * np.pi / GRID.Lx, 3 * 2 * np.pi / GRID.Ly
    psi = torch.stack([torch.cos(k * x + l * y), torch.sin(k * x + 0 * y)])
    u, v = l * torch.sin(k * x + l * y), -k * torch.sin(k * x + l * y)
    torch.testing.assert_close(velocity(GRID, "u")(psi), u, atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(velocity(GRID, "v")(psi), v, atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(speed(GRID)(psi), (u**2 + v**2).sqrt(), atol=1e-10, rtol=1e-9)
    torch.testing.assert_close(ssh(1e-4, 10.0)(psi), 1e-5 * psi[0])
    damped = np.exp(-0.5 * 2e4**2 * (k**2 + l**2)) * psi[0]
    torch.testing.assert_close(footprint(level(1), GRID, 2e4)(psi), damped, atol=1e-12, rtol=1e-10)
    T = radiance((1.0, 2.0), 0.1, 280.0, 10.0)(psi)
    torch.testing.assert_close(T, 280 + 10 * torch.tanh((psi[0] + 2 * psi[1]) / 0.1))
    assert float(T.min()) >= 270
    assert float(T.max()) <= 290


def test_interpolation_is_fourth_order_in_space_and_exact_for_linear_times(rng):
    errors = []
    for n in (32, 64, 128):
        grid = Grid(n, n, Lx=1.0, Ly=1.0, dealias=1.0)
        x, y = grid.axes()
        f = torch.sin(2 * np.pi * (2 * x + y))[None, None]
        trajectory = torch.cat([f * (1 + 0.5 * t) for t in range(4)])[:, None].squeeze(1)[:, None].squeeze(2)
        where = rng_numpy().uniform(0, 1, (2, 200))
        time = rng_numpy(1).uniform(0, 3, 200)
        obs = observations(np.zeros(200), 1.0, time, *where, channels=["c"])
        H = Operator(grid, lambda f: f, (Channel("c", level(1), 1.0),))
        found = H(trajectory, H.samples(obs, 0.0, 1.0, 3), 200)
        exact = np.sin(2 * np.pi * (2 * where[0] + where[1])) * (1 + 0.5 * time)
        errors.append(float((found - torch.from_numpy(exact)).abs().max()))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert errors[-1] < 1e-4
    assert np.all(abs(orders - 4) < 0.3), orders


def test_unknown_channels_and_times_outside_the_window_are_refused():
    H = Operator(GRID, lambda f: f, (Channel("ssh", level(1), 1.0),))
    obs = observations(np.zeros(1), 1.0, np.array([5.0]), np.zeros(1), np.zeros(1), channels=["tb"])
    with pytest.raises(ValueError, match="no channel tb; it has ssh"):
        H.samples(obs, 0.0, 1.0, 10)
    obs = observations(np.zeros(1), 1.0, np.array([5.0]), np.zeros(1), np.zeros(1), channels=["ssh"])
    with pytest.raises(ValueError, match="outside the window"):
        H.samples(obs, 0.0, 1.0, 4)
    with pytest.raises(ValueError, match="1 of 1 observations lie outside the box, such as x = "):
        H.samples(obs.assign(x=("obs", [1.2 * GRID.Lx], obs["x"].attrs)), 0.0, 1.0, 10)
    with pytest.raises(ValueError, match="same name"):
        _ = H + H
    with pytest.raises(ValueError, match="must be positive"):
        Channel("a", level(1), -1.0)


def test_tracks_repeat_cross_the_whole_box_and_do_not_depend_on_the_interval():
    day = 86400.0
    geometry = track(GRID, day, 1e4, repeat=5, skip=2, phase=0.3 * day)
    t, x, y = geometry(0.0, 10 * day)
    assert np.all(np.diff(t) >= 0)
    assert t.min() > 0
    assert t.max() <= 10 * day
    first, later = (t < 5 * day), (t >= 5 * day)
    np.testing.assert_allclose(t[later] - 5 * day, t[first], atol=1e-6)
    distance = (x[later] - x[first] + GRID.Lx / 2) % GRID.Lx - GRID.Lx / 2
    np.testing.assert_allclose(distance, 0, atol=1e-3)
    one = t < 0.3 * day + 200
    assert np.ptp(y[one]) > 0.9 * GRID.Ly, "from south to north"
    assert ((x >= GRID.x0) & (x < GRID.x0 + GRID.Lx)).all()
    halves = [geometry(0.0, 3.7 * day), geometry(3.7 * day, 10 * day)]
    np.testing.assert_array_equal(np.concatenate([h[1] for h in halves]), x)
    with pytest.raises(ValueError, match="common divisor"):
        track(GRID, day, 1e4, repeat=4, skip=2)


def test_a_swath_has_a_gap_about_its_nadir():
    across = both_sides(2e4, 12e4, 1e4)
    np.testing.assert_allclose(across, [-6e4, -5e4, -4e4, -3e4, -2e4, -1e4, 1e4, 2e4, 3e4, 4e4, 5e4, 6e4])
    nadir = track(GRID, 1e5, 1e4, phase=10.0)(0, 5e4)
    wide = swath(GRID, 1e5, 1e4, across, phase=10.0)(0, 5e4)
    dx, dy = (w[:, None] - n[None] for w, n in zip(wide[1:], nadir[1:], strict=True))
    dx = dx - GRID.Lx * np.round(dx / GRID.Lx)
    dy = dy - GRID.Ly * np.round(dy / GRID.Ly)
    closest = np.sqrt(dx**2 + dy**2).min(1)
    assert closest.min() > 0.9e4


def test_clouds_cover_their_fraction_and_move():
    clouds = Clouds(0.4, 5e4, velocity=(1.0, 0.0), renewed=1e9)
    t, x, y = scan(GRID, 100.0, 1e4)(0.0, 100.0)
    now = clouds.clear(GRID, 3, t, x, y)
    assert abs(1 - now.mean() - 0.4) < 0.05
    shifted = clouds.clear(GRID, 3, t + 5 * GRID.dx, x + 5 * GRID.dx, y)
    assert (now == shifted).mean() > 0.99


def test_errors_have_the_stated_size_and_memory():
    one = Instrument("a", points([0.0], [0.0], 1.0), (), correlated=2.0, correlation_time=10.0)
    e = errors_in_common(one, rng_numpy(), np.arange(200000.0))
    assert np.std(e) == pytest.approx(2.0, rel=0.03)
    assert np.corrcoef(e[:-10], e[10:])[0, 1] == pytest.approx(np.exp(-1), abs=0.03)
    assert one.factor() == pytest.approx(np.sqrt(5))


@pytest.mark.filterwarnings("ignore:.* varies by:UserWarning")
def test_simulated_observations_have_the_error_they_state(rng):
    eq = equation()
    H = operator(eq, Channel("ssh", ssh(1e-4), 0.02), Channel("v", velocity(GRID, "v"), 0.1, "m s-1"))
    states = some(eq, rng, 20)
    xs, ys = rng_numpy().uniform(0, 3e5, (2, 400))
    both = Instrument("buoys", points(xs, ys, 1.0), H.channels, correlated=0.5, correlation_time=1e-3)
    obs = simulate(H, [both], states, 0.0, 1.0, seed=4)
    assert obs.sizes["obs"] == 20 * 400 * 2
    exact = H(states, H.samples(obs, 0.0, 1.0, 20), obs.sizes["obs"])
    standard = (obs["value"].values - exact.numpy()) / obs["sigma"].values
    assert np.std(standard) == pytest.approx(1.0, rel=0.1)
    again = simulate(H, [both], states, 0.0, 1.0, seed=4)
    assert obs.identical(again)
    assert not obs.identical(simulate(H, [both], states, 0.0, 1.0, seed=5))
    assert names(obs, "platform") == ["buoys"]


def test_windows_share_out_all_observations(rng):
    eq = equation()
    H = operator(eq, Channel("ssh", ssh(1e-6), 0.02))
    obs = simulate(
        H, [Instrument("b", points([1e5, 2e5], [1e5, 1e5], 0.7), H.channels)], some(eq, rng, 12), 0.0, 1.0, 0
    )
    cut = windows(obs, H, 0.0, 1.0, 4, 3)
    assert sum(len(w) for w in cut) == obs.sizes["obs"]
    assert [w.start for w in cut] == [0.0, 4.0, 8.0]
    with pytest.raises(ValueError, match="sorted by time"):
        windows(obs.isel(obs=slice(None, None, -1)), H, 0.0, 1.0, 4, 3)


def test_windows_of_dates_or_of_no_length_are_refused():
    grid = Grid(8, Lx=8.0)
    H = Operator(grid, lambda z: z, (Channel("sea level", level(1), 1.0),))
    obs = observations([1.0], 1.0, 1.0, 0.0, 0.0, channels=["sea level"])
    assert len(windows(obs, H, 0.0, 1.0, 2, 1)[0]) == 1, "names with spaces are names"
    dated = observations([1.0], 1.0, np.array(["2000-01-01"], "M8[ns]"), 0.0, 0.0, channels=["sea level"])
    with pytest.raises(ValueError, match="not dates"):
        windows(dated, H, 0.0, 1.0, 2, 1)
    for dt, steps, n in ((-1.0, 2, 1), (1.0, 0, 1), (1.0, 2, 0)):
        with pytest.raises(ValueError, match="whole numbers steps and n from 1"):
            windows(obs, H, 0.0, dt, steps, n)
    far = observations([1.0], 1.0, 1.0, lon=[0.0], lat=[0.0], channels=["sea level"])
    with pytest.raises(ValueError, match="not lon and lat"):
        H.samples(far, 0.0, 1.0, 2)


def test_times_in_days_are_told():
    """All of a month then lies in the first minute of the run."""
    _eq, _, operator = qg()
    days = np.linspace(1.0, 30.0, 20)
    obs = observations(np.zeros(20), 1e-3, days, np.linspace(0, 3e5, 20), np.linspace(0, 2e5, 20), channels=["ssh"])
    with pytest.warns(UserWarning, match="5 of 6 windows are without observations; are times in seconds\\? The last"):
        windows(obs, operator, 0.0, 3600.0, 120, 6)
