"""Figures: every panel draws what the fit holds, whatever the fit lacks."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib import colors
from matplotlib import pyplot as plt

from pncbayes.report import plots
from pncbayes.report.drawing import state_colours
from pncbayes.report.intensity_lifetime import plot_intensity_lifetime
from pncbayes.report.overview import plot_overview, save_overview


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def three(make_fit: Callable[..., Any]) -> Any:
    return make_fit(3)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"n_states": 1}, id="one state"),
        pytest.param({"n_states": 2, "predictive": False}, id="no checks"),
        pytest.param({"n_states": 3, "n_gates": 1}, id="no delays"),
        pytest.param({"n_states": 2, "n_gates": 1, "predictive": False}, id="nothing optional"),
        pytest.param({"n_states": 6, "duration_s": 120.0}, id="six states"),
        pytest.param({"n_states": 3, "duration_s": 0.05}, id="five bins"),
        pytest.param({"n_states": 2, "max_states": 2}, id="most states"),
        pytest.param({"n_states": 2, "n_gates": 1, "camera": True}, id="camera"),
        pytest.param({"n_states": 2, "n_draws": 1}, id="one draw"),
        pytest.param({"warnings": ("first", "x" * 400, "third")}, id="warnings"),
    ],
)
def test_overview_is_drawn(
    make_fit: Callable[..., Any], tmp_path: Path, settings: dict[str, Any]
) -> None:
    fit = make_fit(**settings)
    with_delays = settings.get("n_gates", 24) > 1
    figure, axes = plot_overview(fit)
    assert ("decays" in axes) == with_delays
    assert ("flid" in axes) == with_delays
    assert ("autocorrelation" in axes) == (not with_delays and settings.get("predictive", True))
    for name in ("trace", "counts", "zoom", "n_states", "rates"):
        assert axes[name].figure is figure
    save_overview(fit, tmp_path / "overview.png")
    assert (tmp_path / "overview.png").read_bytes().startswith(b"\x89PNG")


def test_overview_says_what_was_fitted_and_what_it_warns_of(make_fit: Callable[..., Any]) -> None:
    figure, _ = plot_overview(make_fit(2, warnings=("may be more than one dot", *"bcdef")))
    text = " ".join(one.get_text() for one in figure.texts)
    for part in ("dot_017.ptu", "30 s", "bins of 10 ms", "may be more than one dot", "2 more"):
        assert part in text


def test_overview_of_a_reopened_tree(three: Any, tmp_path: Path) -> None:
    three.save(tmp_path / "fit.nc")
    with xr.open_datatree(tmp_path / "fit.nc", engine="h5netcdf") as tree:
        save_overview(tree, tmp_path / "overview.png")
    assert (tmp_path / "overview.png").stat().st_size > 10_000


def test_saving_leaves_no_open_figure_and_no_changed_settings(three: Any, tmp_path: Path) -> None:
    before = plt.rcParams.copy()
    save_overview(three, tmp_path / "overview.png")
    plot_overview(three)
    assert plt.rcParams == before
    assert len(plt.get_fignums()) == 1


def test_every_plot_draws_on_given_axes(three: Any) -> None:
    for name in ("trace", "counts", "decays", "n_states", "rates", "autocorrelation"):
        _, ax = plt.subplots()
        assert getattr(plots, f"plot_{name}")(three, ax) is ax
        assert ax.get_xlabel()
        assert getattr(plots, f"plot_{name}")(three.tree) is not ax


def test_long_trace_keeps_its_extremes(make_fit: Callable[..., Any]) -> None:
    fit = make_fit(2, duration_s=100.0, width_s=0.002)
    ax = plots.plot_trace(fit)
    (envelope,) = [one for one in ax.patches if hasattr(one, "get_data")]
    values, edges, baseline = envelope.get_data()
    kcps = fit.tree["observed_data"]["counts"].sum("gate").values / 0.002 / 1e3
    assert len(values) < kcps.size / 10
    assert np.isclose(np.max(values), kcps.max())
    assert np.isclose(np.min(baseline), kcps.min())
    assert edges[0] == 0
    assert np.isclose(edges[-1], 100.0)


def test_trace_of_a_part(three: Any) -> None:
    low, high = plots.plot_trace(three, start_s=3.0, stop_s=4.0).get_xlim()
    assert np.isclose([low, high], [3.0, 4.0]).all()


def test_state_lines_lie_at_the_total_rates(three: Any) -> None:
    (lines,) = plots.plot_trace(three).collections
    levels = {round(float(one[0, 1]), 6) for one in lines.get_segments()}
    expected = three.tree["posterior"]["total_rate_per_s"].mean(("chain", "draw")).values / 1e3
    assert levels == {round(float(one), 6) for one in expected}


@pytest.mark.parametrize("predictive", [True, False])
def test_histogram_of_counts_is_complete(make_fit: Callable[..., Any], predictive: bool) -> None:
    fit = make_fit(2, predictive=predictive)
    ax = plots.plot_counts(fit)
    observed = [one for one in ax.patches if one.get_label() == "observed"]
    bins = fit.tree["observed_data"].sizes["time"]
    assert observed[0].get_data().values.sum() == bins
    filled = [one.get_data().values.sum() for one in ax.patches if one.get_alpha() == 0.3]
    assert len(filled) == 2
    assert np.isclose(sum(filled), bins, rtol=1e-3)


def test_states_of_a_camera_lie_at_its_counts(make_fit: Callable[..., Any]) -> None:
    fit = make_fit(2, n_gates=1, camera=True)
    ax = plots.plot_trace(fit)
    assert ax.get_ylabel() == "Counts per frame"
    levels = {float(one[0, 1]) for one in ax.collections[0].get_segments()}
    assert min(levels) > 240


def test_overview_without_lifetimes_has_decays_and_autocorrelation(three: Any) -> None:
    """Delays without a laser pulse: gates, but no response."""
    tree = three.tree.copy()
    tree["posterior"] = xr.DataTree(tree["posterior"].to_dataset().drop_vars("lifetime_ns"))
    figure, axes = plot_overview(tree)
    assert {"decays", "autocorrelation", "rates"} <= set(axes)
    assert "flid" not in axes
    plt.close(figure)
    with pytest.raises(ValueError, match="show no laser pulse"):
        plot_intensity_lifetime(tree)


def test_decays_need_delays(make_fit: Callable[..., Any]) -> None:
    fit = make_fit(2, n_gates=1, predictive=False)
    with pytest.raises(ValueError, match="needs delays"):
        plots.plot_decays(fit)
    with pytest.raises(ValueError, match="predictive checks"):
        plots.plot_autocorrelation(fit)


def test_only_the_rates_in_use_are_drawn(make_fit: Callable[..., Any]) -> None:
    ax = plots.plot_rates(make_fit(6, duration_s=60.0))
    assert len(ax.get_yticks()) == 12
    assert "12 most used of 30" in ax.get_title(loc="right")


@pytest.mark.parametrize("n_states", range(1, 10))
def test_state_colours_differ_and_keep_their_ends(n_states: int) -> None:
    found = [colors.to_rgb(one) for one in state_colours(n_states)]
    assert len(found) == n_states
    assert found[0] == colors.to_rgb("#D55E00")
    for i, first in enumerate(found):
        for second in found[:i]:
            assert np.abs(np.subtract(first, second)).max() > 0.1


def test_colours_can_be_told_apart_without_red_and_green() -> None:
    # brightness and blueness are what protanopes and deuteranopes see
    for n_states in (2, 3, 4, 5, 6):
        rgb = np.array([colors.to_rgb(one) for one in state_colours(n_states)])
        seen = np.column_stack([rgb @ [0.2126, 0.7152, 0.0722], rgb[:, 2]])
        distance = np.abs(seen[:, None] - seen).max(-1)
        assert (distance[np.triu_indices(n_states, 1)] > 0.1).all()
