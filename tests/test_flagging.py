"""What is taken for no measurement: fill values, limits, outliers, dates to come, times that run backwards."""

import numpy as np
import pytest

from sciml.flagging import ascending
from sciml.grid import Grid
from sciml.observations import QC, check, counts, gridded, observations
from tests.test_observations import container


@pytest.mark.filterwarnings("ignore:.*gross errors:UserWarning")
def test_fills_are_gross_errors_where_they_are_most_values():
    value = np.r_[np.random.default_rng(0).normal(280, 5, 40), np.full(30, -1e10), np.full(30, 32767.0)]
    obs = check(observations(value, 1.0, np.arange(100.0), np.arange(100.0), np.zeros(100)))
    assert counts(obs) == {"good": 40, "gross_error": 60}


@pytest.mark.filterwarnings("ignore:.*gross errors:UserWarning")
@pytest.mark.parametrize("fill", [-999.9, 214748.3647, -99.9, 1e4])
@pytest.mark.parametrize(("good", "bad"), [(40, 60), (7, 1)])
def test_undeclared_fills_do_not_reject_what_is_measured(fill, good, bad):
    """Heights in m, where most are fills, and where there are too few for a median; in single precision as well."""
    value = np.r_[np.random.default_rng(0).normal(0, 0.1, good), np.full(bad, fill)]
    for kind in (np.float64, np.float32):
        places = np.arange(float(len(value)))
        made = observations(value.astype(kind), 0.02, places, places, 0 * places, channels=("ssh",), units=("m",))
        assert counts(check(made)) == {"good": good, "gross_error": bad}


@pytest.mark.filterwarnings("ignore:.*gross errors:UserWarning")
@pytest.mark.parametrize("fill", [32.767, 99.99, 20.0, -20.0])
def test_one_number_that_is_most_of_a_channel_and_far_from_the_rest_is_no_measurement(fill):
    value = np.r_[np.random.default_rng(0).normal(0, 0.1, 80), np.full(120, fill)]
    places = np.arange(200.0)
    made = observations(value, 0.03, places, places, 0 * places, channels=("ssh",), units=("m",))
    assert check(made)["qc"].values.tolist() == [0] * 80 + [QC["gross_error"]] * 120
    rain = np.r_[np.random.default_rng(0).exponential(3.0, 80), np.zeros(120)]
    dry = observations(rain, 0.1, places, places, 0 * places)
    assert counts(check(dry)) == {"good": 200}, "a number that is common, and near the rest"


def test_absolute_temperatures_are_not_zero_and_their_differences_may_be():
    value, places = np.r_[np.full(30, 0.0), np.random.default_rng(0).normal(160, 10, 70)], np.arange(100.0)
    made = observations(value, 1.0, places, places, 0 * places, channels=("tb",), units=("K",))
    assert check(made)["qc"].values.tolist() == [QC["gross_error"]] * 30 + [0] * 70
    assert counts(check(made.assign(value=made["value"] - 160.0))) == {"good": 100}


def test_dates_to_come_are_flagged():
    now = np.datetime64("now", "ns")
    times = now + np.array([-9, 0, 400]).astype("timedelta64[D]")
    obs = check(observations(np.zeros(3), 1.0, times, lon=np.arange(3.0), lat=np.zeros(3)))
    assert counts(obs) == {"good": 2, "future": 1}


def test_a_channel_that_is_wrong_in_large_part_is_warned_of():
    """Heights in cm: those near zero look right."""
    places = np.arange(200.0)
    value = np.random.default_rng(0).normal(0, 0.1, 200)
    value[:90] = 250.0 + 50 * value[:90]
    made = observations(value, 0.02, places, places, 0 * places, channels=("ssh",), units=("m",))
    with pytest.warns(UserWarning, match="90 of 200 values of ssh from unknown are gross errors: the others"):
        assert counts(check(made)) == {"good": 110, "gross_error": 90}


@pytest.mark.parametrize("level", [176.0, 3812.0, -200.0, 5500.0, 1.3e6])
def test_what_is_far_from_zero_and_no_sea_level_is_not_flagged(level):
    places = np.arange(100.0)
    value = level + np.random.default_rng(0).normal(0, 1.0, 100)
    made = observations(value, 1.0, places, places, 0 * places, channels=("depth",), units=("m",))
    assert counts(check(made)) == {"good": 100}


def test_the_few_that_are_not_zero_are_kept():
    value, places = np.zeros(1000), np.arange(1000.0)
    value[::50] = np.random.default_rng(0).uniform(2, 3, 20)
    assert counts(check(observations(value, 0.05, places, places, 0 * places))) == {"good": 1000}


@pytest.mark.parametrize("sigma", [1e-9, 1e9])
def test_sigmas_in_other_units_are_warned_of(sigma):
    places = np.arange(50.0)
    obs = observations(np.random.default_rng(0).normal(size=50), sigma, places, places, 0 * places)
    with pytest.warns(UserWarning, match="value varies by .* and has sigmas of .*is that their unit"):
        assert counts(check(obs)) == {"good": 50}


def test_a_gridded_view_of_dates_says_what_it_needs():
    dates = np.datetime64("2001-01-01", "ns") + np.arange(3).astype("timedelta64[D]")
    with pytest.raises(ValueError, match="times in seconds, these are dates"):
        gridded(observations(np.zeros(3), 1.0, dates, np.zeros(3), np.zeros(3)), Grid(8, 8, 8.0, 8.0), 0.0, 1.0)


@pytest.mark.filterwarnings("ignore:.*gross errors:UserWarning")
def test_a_climatology_comes_before_the_median():
    """Half and more are a number that no unit forbids."""
    value = np.r_[np.random.default_rng(0).normal(0, 0.1, 40), np.full(60, 99.0)]
    made = observations(value, 0.02, np.arange(100.0), np.arange(100.0), np.zeros(100), channels=("ssh",), units=("m",))
    assert counts(check(made, usual={"ssh": (0.0, 0.1)})) == {"good": 40, "gross_error": 60}


def test_one_wrong_clock_costs_one_observation():
    time = np.arange(10.0)
    time[4] = 1e8
    assert np.flatnonzero(check(container(10, time=time))["qc"]).tolist() == [4]
    time[4] = -5.0
    assert np.flatnonzero(check(container(10, time=time))["qc"]).tolist() == [4]
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(60).astype(float)
    chain = ascending(shuffled)
    assert bool(np.all(np.diff(shuffled[chain]) > 0))
    best = np.ones(60, int)  # the longest rising part by the quadratic recurrence
    for i in range(60):
        best[i] += max((best[j] for j in range(i) if shuffled[j] < shuffled[i]), default=0)
    assert len(chain) == best.max()
