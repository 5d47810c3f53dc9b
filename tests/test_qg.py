"""Layered quasi-geostrophic models: inversion, Jacobians, steady solutions, presets, parameters."""

import math

import numpy as np
import pytest
import sympy as sp
import torch

import sciml as sm
from sciml import Grid, LayeredQG, TwoLayerQG, preset, rk4
from sciml.equation import loops, qg_packed
from sciml.equation.base import Term, apply
from sciml.equation.expression import Field, parse
from sciml.equation.forcing import ring_forcing
from sciml.equation.presets import PRESETS
from tests.conftest import relative

STRATIFICATIONS = {
    1: dict(H=(1.0,), f0=1.0),
    2: dict(H=(0.2, 0.8), gprime=(0.2,), f0=1.0),
    3: dict(H=(0.2, 0.3, 0.5), gprime=(0.2, 0.35), f0=1.0),
}
GRIDS = [(32, 32), (33, 40), (48, 27), (25, 25)]


def random_psi(eq, rng, batch=()):
    psi = torch.randn(*batch, eq.n, *eq.grid.shape, dtype=torch.float64, generator=rng)
    psi = eq.grid.project(psi)
    return psi - (eq.fraction[:, None, None] * psi).sum(-3, keepdim=True).mean((-2, -1), keepdim=True)


@pytest.mark.parametrize("dealias", [1, 2 / 3, 3 / 2])
@pytest.mark.parametrize("size", GRIDS)
@pytest.mark.parametrize("n", STRATIFICATIONS)
def test_inversion_round_trip(n, size, dealias, rng):
    eq = LayeredQG(grid=Grid(*size, Lx=2.0, Ly=3.0, dealias=dealias), **STRATIFICATIONS[n])
    psi = random_psi(eq, rng)
    z = eq.pv(psi)
    assert relative(eq.grid.ifft(eq.psi(z)), psi) < 1e-12
    assert relative(apply(eq.grid.real(eq.stretch), eq.psi(z)), z) < 1e-12


def test_inversion_is_the_closed_form():
    """psi_1 = -[(K2 + F2) q_1 + F1 q_2] / (K2 (K2 + F1 + F2)), and the twin for psi_2; pyqg's, with unequal layers."""
    eq = TwoLayerQG(grid=Grid(16, 12, Lx=1e6), rd=15e3, delta=0.25)
    F1 = 15e3**-2 / 1.25
    F2, K2 = 0.25 * F1, eq.grid.K2
    expected = -torch.stack([torch.stack([K2 + F2, F1 + 0 * K2]), torch.stack([F2 + 0 * K2, K2 + F1])])
    expected = expected / (K2 * (K2 + F1 + F2))
    found = eq.invert.clone()
    found[..., 0, 0] = expected[..., 0, 0] = 0
    assert relative(found, expected) < 1e-13


def test_mean_of_baroclinic_part_is_kept():
    eq = TwoLayerQG(grid=Grid(8, Lx=1.0), rd=0.1, delta=1.0)
    q = torch.stack([torch.full((8, 8), 3.0), torch.full((8, 8), -3.0)]).double()
    psi = eq.grid.ifft(eq.psi(eq.init(q)))
    assert psi[0].mean().item() - psi[1].mean().item() == pytest.approx(-6 * 0.1**2, rel=1e-12)


@pytest.mark.parametrize("size", GRIDS)
@pytest.mark.parametrize("dealias", [2 / 3, 3 / 2])
def test_jacobian_of_plane_waves_vanishes(size, dealias):
    """J(psi, lap psi) = 0 for every single wavevector; the scale is that of its two products."""
    eq = LayeredQG(grid=Grid(*size, Lx=2.0, Ly=3.0, dealias=dealias))
    rows, cols = eq.grid.modes
    waves = torch.zeros(rows * cols, 1, rows, cols, dtype=eq.grid.cdtype)
    waves.view(rows * cols, -1)[torch.arange(rows * cols), torch.arange(rows * cols)] = 1 - 0.5j
    z = eq.init(eq.read(waves))
    for J in (eq._advection(z), eq.evaluate(z, [Term("q1", "J", parse("J(psi1, q1)"))])):
        speed = eq.grid.K2.sqrt().amax() * eq.psi(z).abs().amax((-2, -1), keepdim=True)
        scale = speed * eq.grid.K2.sqrt().amax() * z.abs().amax((-2, -1), keepdim=True)
        assert float((J.abs() / scale.clamp(min=1e-300)).amax()) < 1e-12


@pytest.mark.parametrize("bottom", ["at rest", "moving"])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("dealias", [1, 2 / 3, 3 / 2])
@pytest.mark.parametrize("n", STRATIFICATIONS)
def test_fast_paths_equal_the_terms(n, dealias, grad, bottom, rng):
    """The compiled loops (no gradient) and the torch path (gradient) against the terms read one by one."""
    moving = bottom == "moving"
    flow = dict(U=(*(0.7, -0.2)[: n - 1], 0.4 * moving), V=(*(0.1, 0.3)[: n - 1], -0.5 * moving))
    eq = LayeredQG(
        grid=Grid(24, 30, Lx=2.0, Ly=3.0, dealias=dealias), **STRATIFICATIONS[n], **flow,
        beta=2.0, rek=0.3, nu=1e-8, nu_axes=1e-9, topography=torch.randn(30, 24, generator=rng),
    )  # fmt: skip
    z = eq.pv(random_psi(eq, rng, (3,))).requires_grad_(grad)
    slow = eq.evaluate(z, eq.terms)
    assert relative(eq.tendency(z), slow) < 1e-13
    assert relative(eq.nonlinear(z) + apply(eq.linear, z), slow) < 1e-13
    assert relative(sum(eq.by_term(z).values()), slow) < 1e-13


@pytest.mark.parametrize("fields", [1, 4, 5, 7, 100])
@pytest.mark.parametrize("dealias", [1, 2 / 3, 3 / 2])
def test_groups_of_any_size_give_the_same(fields, dealias, monkeypatch, rng):
    """However much is worked on at once, the compiled path equals the terms, at the second step too."""
    monkeypatch.setattr(qg_packed, "GROUP_BYTES", fields * 24 * 30 * 8)
    for n, parameters in STRATIFICATIONS.items():
        eq = LayeredQG(grid=Grid(24, 30, Lx=2.0, Ly=3.0, dealias=dealias), **parameters, rek=0.3)
        z = eq.pv(random_psi(eq, rng, (2,)))
        assert relative(eq.tendency(z), eq.evaluate(z, eq.terms)) < 1e-13, f"{n} layers"


def test_without_compiled_loops_the_torch_path_is_used(monkeypatch, rng):
    monkeypatch.setattr(loops, "compiled", lambda: False)
    eq = TwoLayerQG(grid=Grid(16, Lx=1.0), rd=0.1)
    z = eq.pv(random_psi(eq, rng))
    assert relative(eq.nonlinear(z), eq.evaluate(z, eq.terms)) < 1e-13


def exact_fields(n):
    """sympy expressions: psi, U and eta of the manufactured solution."""
    x, y = sp.symbols("x y")
    psi = [sp.cos(2 * x) * sp.cos(5 * y) / 4 + sp.cos(3 * x) * sp.cos(3 * y) / 3,
           sp.cos(3 * x) * sp.cos(4 * y) + sp.cos(4 * x) * sp.cos(2 * y) / 2, sp.sin(x + 2 * y)]  # fmt: skip
    U = [0.02 + 0.05 * sp.exp(sp.cos(y)), 0.025 + 0.02 * sp.cos(3 * y), 0.01 * sp.sin(y)]
    return (x, y), [p / 1000 for p in psi[:n]], U[:n], sp.exp(2 * sp.cos(x + 0.8) + sp.cos(y - 0.8) - 3)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_manufactured_steady_solution(n):
    """U(y), beta, drag, viscosity and topography, balanced by a forcing that sympy derives from the *total* fields,
    d_t Q + u . grad Q with Q = q + beta y + eta + mean; after 200 steps nothing has moved."""
    (x, y), psi, U, eta = exact_fields(n)
    beta, drag, nu, g = 0.35, 0.1, 0.05, STRATIFICATIONS[n].get("gprime", ())
    H = STRATIFICATIONS[n]["H"]

    def stretching(a, i):
        up = (a[i - 1] - a[i]) / (g[i - 1] * H[i]) if i > 0 else 0
        return up + ((a[i + 1] - a[i]) / (g[i] * H[i]) if i < n - 1 else 0)

    def lap(f):
        return f.diff(x, 2) + f.diff(y, 2)

    forcing = []
    for i in range(n):
        q = lap(psi[i]) + stretching(psi, i)
        bottom = i == n - 1
        Q_y = q.diff(y) + beta - U[i].diff(y, 2) - stretching(U, i) + (eta.diff(y) if bottom else 0)
        Q_x = q.diff(x) + (eta.diff(x) if bottom else 0)
        advection = (U[i] - psi[i].diff(y)) * Q_x + psi[i].diff(x) * Q_y
        forcing.append(advection - nu * lap(q) + (drag * lap(psi[i]) if bottom else 0))
    grid = Grid(64, 66, Lx=2 * math.pi, Ly=2 * math.pi, x0=-math.pi, y0=-math.pi)
    X, Y = (a.numpy() for a in grid.axes())

    def sampled(expressions):
        values = [sp.lambdify((x, y), e, "numpy")(X, Y) + 0 * X + 0 * Y for e in expressions]
        return torch.as_tensor(np.stack(values))

    eq = LayeredQG(grid=grid, **STRATIFICATIONS[n], beta=beta, rek=drag, nu=nu, nu_order=1,
                   U=tuple(u[:, 0].numpy() for u in sampled(U)), topography=sampled([eta])[0].numpy())  # fmt: skip
    balance = grid.fft(sampled(forcing))
    step = rk4(eq.with_tendency(lambda _eq, _z, _t: balance), 0.005)
    start = state = step.init(eq.read(eq.pv(sampled(psi))))
    for _ in range(200):
        state = step(state)
    assert relative(step.read(state), step.read(start)) < 1e-10
    unforced = rk4(eq, 0.005)(start)
    assert relative(step.read(unforced), step.read(start)) > 1e-6


def test_energies_of_published_fields():
    """GeophysicalFlows.jl: KE 1/4 and 3/16 (thickness-weighted sum 1/16 + 3/64), PE 1/160 per unit mass."""
    eq = LayeredQG(grid=Grid(16), H=(2.5, 7.5), gprime=(0.5,), f0=1.0)
    x, y = eq.grid.axes()
    psi = torch.cos(2 * x) * torch.cos(2 * y)
    z = eq.pv(torch.stack([psi, psi / 2]))
    u, v = eq.velocity(z)
    kinetic = 0.5 * (u**2 + v**2).mean((-2, -1))
    assert (kinetic * eq.fraction).tolist() == pytest.approx([1 / 4, 3 / 16], rel=1e-12)
    potential = float(eq.energy(z) - (kinetic * eq.fraction).sum())
    # 1/2 f0^2 / g' <(psi1 - psi2)^2> / H, H = 10: 1/2 x 2 x (1/16) / 10
    assert potential == pytest.approx(1 / 160, rel=1e-12)


def test_meridional_and_zonal_flow_are_twins(rng):
    """Swapping x and y turns U into -V: a rotation by 90 degrees leaves the physics unchanged."""
    strat = STRATIFICATIONS[2]
    zonal = LayeredQG(grid=Grid(24, 24), **strat, U=(0.3, -0.1))
    meridional = LayeredQG(grid=Grid(24, 24), **strat, V=(0.3, -0.1))
    q = zonal.grid.project(torch.randn(2, 24, 24, dtype=torch.float64, generator=rng))

    def turned(f):
        return f.mT.flip(-1)  # x' = y, y' = -x

    a = turned(zonal.read(zonal.tendency(zonal.init(q))))
    b = meridional.read(meridional.tendency(meridional.init(turned(q))))
    assert relative(b, a) < 1e-12


def test_galilean_shift(rng):
    """U_i + c gives the same PV in the moving frame."""
    base = dict(STRATIFICATIONS[2], grid=Grid(24, 20, Lx=2.0, Ly=1.5), beta=1.0)
    still, moving = LayeredQG(**base, U=(0.3, -0.1)), LayeredQG(**base, U=(0.8, 0.4))
    q = still.grid.project(torch.randn(2, 20, 24, dtype=torch.float64, generator=rng))
    a, b = rk4(still, 2e-4), rk4(moving, 2e-4)
    sa, sb = a.init(q), b.init(q)
    for _ in range(50):
        sa, sb = a(sa), b(sb)
    shift = torch.exp(-1j * still.grid.k * 0.5 * 0.01)
    assert relative(sb.z, sa.z * shift) < 1e-10


def test_profile_that_is_constant_equals_a_number(rng):
    grid = Grid(24, 20, Lx=2.0, Ly=1.5)
    number = TwoLayerQG(grid=grid, rd=0.2, U1=0.4, U2=-0.1, beta=1.0)
    profile = TwoLayerQG(grid=grid, rd=0.2, U1=np.full(20, 0.4), U2=-0.1, beta=1.0)
    z = number.pv(random_psi(number, rng))
    assert relative(profile.tendency(z), number.tendency(z)) < 1e-12


def test_two_layers_agree_with_general_layers(rng):
    grid = Grid(20, Lx=1e6)
    two = TwoLayerQG(grid=grid, rd=15e3, delta=0.25, H1=500.0, U1=0.025, beta=1.5e-11, rek=1e-7)
    F1 = 15e3**-2 / 1.25
    general = LayeredQG(
        grid=grid, H=(500.0, 2000.0), gprime=(1e-8 / (F1 * 500),), U=(0.025, 0.0), beta=1.5e-11, rek=1e-7
    )
    z = two.pv(random_psi(two, rng))
    assert relative(general.tendency(z), two.tendency(z)) < 1e-12


def test_medida_tendencies(rng):
    """relaxation_jet term by term against MEDIDA's equations written out with numpy FFTs (linear and sponge terms)."""
    eq = preset("relaxation_jet")
    assert eq.grid.shape == (192, 96)
    coarse = Grid(24, 48, Lx=46.0, Ly=68.0, x0=-23.0, y0=-34.0)
    q = coarse.resample(torch.randn(2, 48, 24, dtype=torch.float64, generator=rng), eq.grid)
    z = eq.init(q)
    found = {n: eq.read(d).numpy() for n, d in eq.by_term(z).items()}
    k = 2 * np.pi * np.fft.fftfreq(96, 46 / 96)
    l = 2 * np.pi * np.fft.fftfreq(192, 68 / 192)[:, None]
    K2 = k**2 + l**2
    q1, q2 = (np.fft.fft2(a) for a in q.numpy())
    with np.errstate(all="ignore"):
        bt, bc = -(q1 + q2) / (2 * K2), -(q1 - q2) / (2 * (K2 + 2))
    bt[0, 0] = 0
    psi1, psi2 = bt + bc, bt - bc
    back = lambda f: np.fft.ifft2(f).real  # noqa: E731
    y = -34 + np.arange(192) * 68 / 192
    d = 34 - np.abs(y)
    u_eq = np.cosh(y / 3.5) ** -2 - np.cosh(d / 3.5) ** -2
    psi_R = eq.grid.ifft(eq.fixed["psi_R"]).numpy()
    assert relative(-np.gradient(psi_R[:, 0], 68 / 192)[2:-2], u_eq[2:-2]) < 5e-3
    assert abs(psi_R.mean()) < 1e-12
    relax = 0.01 * (back(psi1 - psi2) - psi_R)
    assert relative(found["relaxation"], np.stack([relax, -relax])) < 1e-10
    assert relative(found["drag"][1], -0.07 * back(-K2 * psi2)) < 1e-10
    assert relative(found["viscosity"][0], -1e-6 * back((k**8 + l**8) * q1)) < 1e-10
    assert relative(found["pv_gradient"][0], -0.196 * back(1j * k * psi1)) < 1e-10
    sponge = np.cosh(d / 3.5)[:, None] ** -2
    exact = -sponge * (q.numpy() - q.numpy().mean(-1, keepdims=True))
    assert relative(found["sponge"], exact) < 1e-6


@pytest.mark.parametrize("name", PRESETS)
def test_presets_step(name):
    eq = preset(name, 32, dtype=torch.float32)
    assert eq.grid.dtype == torch.float32
    z = torch.randn(eq.n, *eq.grid.shape, generator=torch.Generator().manual_seed(0)) * 1e-6
    assert eq.tendency(eq.init(z)).dtype == torch.complex64
    assert all(term.name in str(eq) for term in eq.terms)


def test_added_tendency_and_terms(rng):
    eq = TwoLayerQG.preset("eddy", 16)
    z = eq.init(1e-6 * torch.randn(2, 16, 16, dtype=torch.float64, generator=rng))
    drag = parse("-1e-7*lap(psi2)")
    by_term = eq + Term("q2", "more drag", drag)
    stronger = TwoLayerQG.preset("eddy", 16, rek=5.787e-7 + 1e-7)
    by_function = eq.with_tendency(lambda e, z, t: e.evaluate(z, [Term("q2", "drag", drag)]))
    assert relative(by_term.tendency(z), stronger.tendency(z)) < 1e-13
    assert relative(by_function.tendency(z), stronger.tendency(z)) < 1e-13
    assert "more drag" in str(by_term)
    assert "added" in by_function.by_term(z)


def test_ring_forcing_feeds_energy_at_the_stated_rate():
    """Mean energy of 4000 noise increments within four standard errors of the rate; nothing outside the ring."""
    eq = TwoLayerQG.preset("eddy", 32)
    k = 2 * math.pi / 1e6 * 6
    forcing = ring_forcing(eq, rate=1e-9, wavenumber=k, width=2 * math.pi / 1e6 * 2)
    W = forcing(eq, torch.Generator().manual_seed(1), (4000,))
    energy = eq.energy(W)
    assert abs(float(energy.mean()) - 1e-9) < 4 * float(energy.std()) / math.sqrt(4000)
    assert float(forcing.input.sum()) == pytest.approx(1e-9, rel=1e-12)
    ring = (eq.grid.K2.sqrt() / (2 * math.pi / 1e6) - 6).abs() <= 1
    assert float(W[..., ~ring].abs().max()) == 0
    with pytest.raises(ValueError, match="no wavevector"):
        ring_forcing(eq, 1e-9, k, 0.0 * k - 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: TwoLayerQG(grid=Grid(8), rd=-1.0), "must be positive"),
        (lambda: LayeredQG(grid=Grid(8), H=(1.0, 2.0)), "reduced gravities"),
        (lambda: LayeredQG(grid=Grid(8), H=(1.0,), U=(1.0, 2.0)), "one entry"),
        (lambda: preset("eddies"), "eddy, jet"),
        (lambda: TwoLayerQG(grid=Grid(8), rd=1.0, relax_jet=1.0).terms, "psi_R"),
        (lambda: (TwoLayerQG(grid=Grid(8), rd=1.0) + Term("q3", "x", Field("q1"))).terms, "prognostic"),
        (lambda: (TwoLayerQG(grid=Grid(8), rd=1.0) + Term("q1", "x", Field("T"))).terms, "unknown fields"),
        (lambda: TwoLayerQG(grid=Grid(8), rd=1.0, topography=np.zeros((9, 8))).fixed, "does not fit"),
        (lambda: TwoLayerQG(grid=Grid(8), rd=1.0).init(torch.zeros(2, 8, 9)), "must have shape"),
    ],
)
def test_bad_input_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_names_of_the_budget_are_reserved():
    for name in ("advection", "KEspec", "residual", "added"):
        with pytest.raises(ValueError, match="choose another"):
            _ = (TwoLayerQG.preset("eddy", 8) + Term("q2", name, "-1e-7*q2*q2")).terms


def test_text_terms_know_parameters(rng):
    eq = TwoLayerQG.preset("eddy", 16)
    z = eq.init(1e-6 * torch.randn(2, 16, 16, dtype=torch.float64, generator=rng))
    double = eq + Term("q2", "again", "-rek*lap(psi2)")
    assert relative(double.tendency(z), TwoLayerQG.preset("eddy", 16, rek=2 * eq.rek).tendency(z)) < 1e-13


@pytest.mark.parametrize("parameter", ["beta", "U1", "rek"])
def test_parameters_that_are_no_numbers_are_refused(parameter):
    with pytest.raises(ValueError, match="not a finite number"):
        rk4(TwoLayerQG.preset("eddy", 8, **{parameter: math.nan}), 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(rate=-1.0), "energy input"),
        (dict(rate=math.nan), "energy input"),
        (dict(rate=1.0, layers=(1.0,)), "each of the 2 layers"),
        (dict(rate=1.0, layers=(0.0, 0.0)), "not all zero"),
    ],
)
def test_forcing_that_makes_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        ring_forcing(TwoLayerQG.preset("eddy", 16), wavenumber=4e-5, width=2e-5, **options)


@pytest.mark.parametrize(
    "changes",
    [
        dict(U1=np.zeros((8, 8))),
        dict(V1=np.zeros(8)),
        dict(filterfac=-1.0),
        dict(nu=1.0, nu_order=1.5),
        dict(rd=math.inf),
    ],
)
def test_more_bad_parameters(changes):
    with pytest.raises(ValueError, match="must"):
        rk4(TwoLayerQG.preset("eddy", 8, **changes), 1.0)


# -- derivatives by parameters ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("dealias", [1.0, 2 / 3])
@pytest.mark.parametrize(
    ("name", "value"), [("rd", 15e3), ("delta", 0.25), ("beta", 1.5e-11), ("rek", 5e-7), ("U1", 0.03)]
)
def test_gradients_by_parameters_are_those_of_finite_differences(name, value, dealias):
    q = sm.random_pv(sm.TwoLayerQG.preset("eddy", 16), seed=0, speed=0.1)

    def size(p):
        eq = sm.TwoLayerQG.preset("eddy", 16, dealias=dealias, **{name: p})
        return 1e12 * (sm.rollout(sm.rk4(eq, 7200.0), 10, every=10)(q).fields[-1] ** 2).mean()

    p = torch.tensor(value, dtype=torch.float64)
    expected = float((size(value * 1.0001) - size(value * 0.9999)) / (2e-4 * value))
    assert float(torch.func.grad(size)(p)) == pytest.approx(expected, rel=1e-5)
    size(p.requires_grad_()).backward()
    assert float(p.grad) == pytest.approx(expected, rel=1e-5)


def test_gradient_by_the_reduced_gravity_of_layers():
    def size(g):
        eq = sm.LayeredQG(grid=sm.Grid(16, Lx=1e6), H=(500.0, 2000.0), gprime=(g,), U=(0.025, 0.0), V=(0.01, 0.0))
        q = eq.grid.real(1e-5 * np.random.default_rng(0).standard_normal((2, 16, 16)))
        return 1e12 * (eq.read(sm.rk4(eq, 7200.0)(sm.State(eq.init(q))).z) ** 2).mean()

    p = torch.tensor(5e-3, dtype=torch.float64, requires_grad=True)
    size(p).backward()
    assert float(p.grad) == pytest.approx(float((size(5.001e-3) - size(4.999e-3)) / 2e-6), rel=1e-5)
