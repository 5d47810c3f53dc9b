"""Figures of observations in longitude and latitude: labels, limits, what is drawn where."""

from __future__ import annotations

import numpy as np
import pytest

from sciml import charts
from sciml.observations import QC, observations

BOX = (-5.0, 5.0, 40.0, 45.0)


@pytest.fixture
def heights():
    """A pass across Greenwich with one height on land."""
    time = np.datetime64("2020-01-01", "ns") + np.arange(20) * np.timedelta64(1, "s")
    obs = observations(np.linspace(-0.1, 0.1, 20), 0.03, time, lon=np.linspace(356, 364, 20) % 360,
                       lat=np.linspace(41, 44, 20), channels=["ssha"], units=["m"], platforms=["Jason"])  # fmt: skip
    obs["qc"][3] = QC["land"]
    return obs


@pytest.mark.parametrize(("value", "letters", "label"), [
    (-5, "EW", "5°W"), (355, "EW", "5°W"), (0, "EW", "0°"), (360, "EW", "0°"), (12.5, "EW", "12.5°E"),
    (-41, "NS", "41°S"),
])  # fmt: skip
def test_degrees(value, letters, label):
    axis = charts.pyplot().subplots()[1].xaxis
    charts.degrees(axis, letters)
    assert axis.get_major_formatter()(value, 0) == label


def test_tracks_are_continuous_across_greenwich(heights):
    figure = charts.tracks(heights, heights, heights.isel(obs=slice(0, 4)), BOX, 0.0, 0.1)
    places = np.asarray(figure.axes[0].collections[0].get_offsets())
    assert len(places) == 19, "land is drawn apart"
    assert (np.diff(places[:, 0]) > 0).all()
    assert figure.axes[1].get_xlim() == BOX[:2]
    labels = [t.get_text() for ax in figure.axes[:2] for t in ax.get_legend().get_texts()]
    assert {"edited, land or missing", "box", "withheld"} <= set(labels)


def test_tracks_name_their_axes_and_share_a_colour_bar(heights):
    warm = observations(np.full(20, 150.0), 1.0, heights["time"], lon=heights["lon"], lat=heights["lat"],
                        channels=["tb"], units=["K"], platforms=["Jason"])  # fmt: skip
    figure = charts.tracks(heights, warm, heights.isel(obs=slice(0, 4)), BOX, 0.0, 0.1)
    left, middle, right, bar = figure.axes
    assert (right.get_xlabel(), right.get_ylabel()) == ("latitude", "brightness temperature (K)")
    assert bar.get_xlabel() == "height minus mean (m), both maps"
    figure.canvas.draw()
    place = bar.get_position()
    assert place.y1 < min(left.get_position().y0, middle.get_position().y0), "below both maps"
    assert left.get_position().x0 < place.x0 < left.get_position().x1
    assert middle.get_position().x0 < place.x1 < middle.get_position().x1


def test_maps_share_their_box_and_hide_unused_axes(heights):
    axes = (np.linspace(-5, 5, 6), np.linspace(40, 45, 4))
    panels = [charts.Panel("a", np.ones((4, 6)), 2.0), charts.Panel("b", np.ones((4, 6)), 2.0, signed=False)] * 2
    figure = charts.maps(panels[:3], axes, BOX, heights, "title")
    drawn = [ax for ax in figure.axes if ax.collections and ax.get_title()]
    assert [ax.get_title() for ax in drawn] == ["a", "b", "a"]
    assert [ax.collections[0].get_clim() for ax in drawn] == [(-2.0, 2.0), (0.0, 2.0), (-2.0, 2.0)]
    assert all(ax.get_ylim() == BOX[2:] for ax in drawn)


def test_along_track_panels(heights):
    first = np.arange(20) < 8
    figure = charts.along_track(heights, [first, ~first], np.arange(20) % 2 == 0, {"oi": np.zeros(20)})
    assert len(figure.axes) == 2
    lines = {line.get_label(): line for line in figure.axes[1].lines}
    assert set(lines) == {"observed, used", "observed, withheld", "oi"}
    assert len(lines["oi"].get_xdata()) == 12
    assert figure.axes[0].get_title() == "Jason, 2020-01-01T00:00"
