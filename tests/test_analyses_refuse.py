"""Settings and states that analyses refuse, with the words that say why."""

import math

import pytest
import torch

from sciml import (
    LETKF,
    Covariance,
    EnKF,
    FourDVar,
    Grid,
    OptimalInterpolation,
    Space,
    State,
    ThreeDVar,
    TwoLayerQG,
    rk4,
)
from sciml.assim.cycle import cycle
from sciml.instruments import simulate
from sciml.observations import observations
from sciml.observe import Channel, Operator, level, windows

GRID = Grid(8, Lx=1e6)


@pytest.fixture
def setting():
    """A model, one window with an observation, and a covariance."""
    eq = TwoLayerQG(grid=GRID, rd=15e3, U1=0.02, beta=1.5e-11)
    H = Operator(GRID, lambda z: GRID.ifft(eq.psi(z)), (Channel("psi", level(1), 10.0),))
    obs = observations([5.0], 10.0, 1800.0, 5e5, 5e5, channels=["psi"])
    root = torch.eye(2, dtype=torch.float64)[:, :, None, None] * torch.ones(GRID.modes, dtype=torch.float64) * 1e-6
    return rk4(eq, 3600.0), windows(obs, H, 0.0, 3600.0, 1, 1)[0], Covariance(GRID, root)


@pytest.mark.parametrize("make", [OptimalInterpolation, ThreeDVar, FourDVar])
def test_variational_methods_take_a_state_or_a_batch(setting, make):
    step, window, B = setting
    z = torch.zeros(2, *GRID.modes, dtype=torch.complex128)
    assert torch.isfinite(make(B)(State(z), window, step).state.z.abs()).all()
    with pytest.raises(ValueError, match=r"takes a state, .*, or several, .*, not \(4, 3, 2, "):
        make(B)(State(z.expand(4, 3, *z.shape)), window, step)


@pytest.mark.parametrize("make", [
    lambda: EnKF(inflation=0.0), lambda: EnKF(inflation=float("nan")),
    lambda: LETKF(Space(GRID, torch.abs, torch.abs), 1e5, inflation=-1.0),
])  # fmt: skip
def test_inflation_is_positive(make):
    with pytest.raises(ValueError, match="inflation"):
        make()


@pytest.mark.parametrize(("name", "value", "message"), [
    ("radius", 0.0, "radius must be positive and finite, got 0.0"),
    ("radius", math.inf, "radius must be positive and finite, got inf"),
    ("radius", math.nan, "radius must be positive and finite, got nan"),
    ("rtps", -0.1, "rtps, .* must be between 0 and 1, got -0.1"),
    ("rtps", 1.1, "rtps, .* must be between 0 and 1, got 1.1"),
    ("rtps", math.nan, "rtps, .* must be between 0 and 1, got nan"),
    ("adaptive", -1.0, "adaptive, .* must be between 0 and 1, got -1.0"),
    ("adaptive", 1.5, "adaptive, .* must be between 0 and 1, got 1.5"),
    ("adaptive", math.nan, "adaptive, .* must be between 0 and 1, got nan"),
])  # fmt: skip
def test_settings_of_the_local_filter(name, value, message):
    """A NaN rate would leave inflation at 1 without a word, a negative one would drive it away from the right value."""
    with pytest.raises(ValueError, match=message):
        LETKF(Space(GRID, torch.abs, torch.abs), **({"radius": 1e5} | {name: value}))


def test_ends_of_the_ranges_are_allowed():
    for end in (0.0, 1.0):
        LETKF(Space(GRID, torch.abs, torch.abs), 1e5, rtps=end, adaptive=end)


def test_weights_are_functions_and_lags_whole_windows(setting):
    with pytest.raises(ValueError, match="weights must be a function"):
        EnKF("etkf")
    for lag, error in ((0, 0.0), (1, -1.0)):
        with pytest.raises(ValueError, match="lag must be at least 1"):
            FourDVar(setting[2], lag, model_error=error)


def test_cycles_refuse_other_steps_and_states(setting):
    step, window, B = setting
    z = torch.zeros(2, *GRID.modes, dtype=torch.complex128)
    analysis = OptimalInterpolation(B)
    with pytest.raises(ValueError, match="no windows to cycle through"):
        cycle(step, analysis, [], State(z))
    with pytest.raises(ValueError, match=r"steps of 3600 s, the model of 1800 s; make them with step\.dt"):
        cycle(rk4(step.equation, 1800.0), analysis, [window], State(z))
    for start in (z, State(z.real), State(z[..., :2]), State(z[:1])):
        with pytest.raises(ValueError, match=r"start must be State\(z\), coefficients \(\[member,\] 2, "):
            cycle(step, analysis, [window], start)


def test_searches_take_an_iteration_at_least(setting):
    for outer, inner in ((0, 5), (1, 0)):
        with pytest.raises(ValueError, match="outer and inner must be at least 1"):
            FourDVar(setting[2], 1, outer, inner)


def test_observations_that_no_window_can_use_are_told(setting):
    window = setting[1]
    with pytest.warns(UserWarning, match="none of 1 can be used: {'outside_window': 1}"):
        assert not len(windows(window.obs, window.operator, 1e9, 3600.0, 1, 1)[0])


def test_what_is_observed_has_the_unit_of_its_channel(setting):
    window = setting[1]
    cm = window.obs.assign(value=window.obs["value"].assign_attrs(units="cm"))
    with pytest.raises(ValueError, match="value is in 'cm', its channels in '1'"):
        windows(cm, window.operator, 0.0, 3600.0, 1, 1)
    with pytest.raises(ValueError, match="quantity of channel 'ssh' must be a function"):
        Channel("ssh", "ssh", 0.1)


def test_fields_and_members_are_no_trajectory(setting):
    H = setting[1].operator
    z = torch.zeros(3, 2, *GRID.modes, dtype=torch.complex128)
    for states in (GRID.ifft(z), z[None], z[..., :2], [z]):
        with pytest.raises(ValueError, match=r"states must be coefficients \(steps \+ 1, n, "):
            simulate(H, [], states, 0.0, 3600.0, 0)
    with pytest.raises(ValueError, match="states are not finite"):
        simulate(H, [], z * float("nan"), 0.0, 3600.0, 0)
