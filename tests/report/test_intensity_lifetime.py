"""States beside the mechanisms: the picture says what the fit says."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib import colors
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline

import pncbayes
from pncbayes.physics.mechanisms import MECHANISMS
from pncbayes.physics.modelfile import load_model
from pncbayes.report.intensity_lifetime import MECHANISM_COLOURS, plot_intensity_lifetime
from pncbayes.report.overview import save_overview

BANDS = {"auger", "nbc", "hot_carrier", "unresolved_charging"}


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def named_fit(
    make_fit: Callable[..., Any], most_probable: list[tuple[str, float]], *, reference: int = 0
) -> Any:
    """A made-up fit whose states have these mechanisms, with draws of tied decays."""
    n_states, n_draws = len(most_probable), 50
    fit = make_fit(n_states)
    probability = np.zeros((n_states, len(MECHANISMS)))
    label = np.full((n_draws, n_states), -1.0)
    for state, (name, share) in enumerate(most_probable):
        if state != reference:
            probability[state, MECHANISMS.index(name)] = share
            probability[state, MECHANISMS.index("other")] += 1.0 - share
            label[:, state] = MECHANISMS.index(name)
    posterior = fit.tree["posterior"]
    middle = [
        posterior[name].mean(("chain", "draw")).values for name in ("lifetime_ns", "rate_per_s")
    ]
    by_state = ("sample", "state")
    fit.tree["mechanisms"] = xr.DataTree(
        xr.Dataset(
            {
                "takes_part": ("mechanism", probability.max(axis=0)),
                "probability": (("state", "mechanism"), probability),
                "reference": ("state", np.eye(n_states)[reference]),
                "broad_log_radiative_ratio_sd": ("state", np.full(n_states, 0.05)),
                "lifetime_over_response": ("state", np.full(n_states, 10.0)),
                "label": (by_state, label),
                "relative_lifetime": (
                    by_state,
                    np.tile(middle[0] / middle[0][reference], (n_draws, 1)),
                ),
                "relative_brightness": (
                    by_state,
                    np.tile(middle[1] / middle[1][reference], (n_draws, 1)),
                ),
                "exciton_lifetime_ns": ("sample", np.full(n_draws, middle[0][reference])),
                "exciton_rate_per_s": ("sample", np.full(n_draws, middle[1][reference])),
            },
            coords={"mechanism": list(MECHANISMS)},
        )
    )
    return fit


def patches_of(ax: Any) -> dict[str, Any]:
    return {patch.get_gid(): patch for patch in ax.patches if patch.get_gid()}


def texts_of(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_it_is_public_and_returns_the_axes(make_fit: Callable[..., Any]) -> None:
    assert pncbayes.plot_intensity_lifetime is plot_intensity_lifetime
    _, ax = plt.subplots()
    assert plot_intensity_lifetime(make_fit(2), ax) is ax
    assert plot_intensity_lifetime(make_fit(2).tree) is not ax
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Lifetime (ns)", "Intensity (kcps)")
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_states_have_the_colour_and_the_name_of_their_mechanism(
    make_fit: Callable[..., Any],
) -> None:
    said = [("nbc", 1.0), ("auger", 0.91), ("nbc", 0.62), ("hot_carrier", 0.999)]
    ax = plot_intensity_lifetime(named_fit(make_fit, said))
    labels = ["0 exciton", "1 Auger 91 %", "2 NBC? 62 %", "3 hot carrier > 99 %"]
    assert set(labels) <= set(texts_of(ax))
    wanted = ["reference", "auger", "undetermined", "hot_carrier"]
    patches = patches_of(ax)
    for label, name in zip(labels, wanted, strict=True):
        colour = colors.to_rgb(MECHANISM_COLOURS[name])
        assert patches[f"state {label}"].get_facecolor()[:3] == pytest.approx(colour)
        (text,) = [text for text in ax.texts if text.get_text() == label]
        assert colors.to_rgb(text.get_color()) == pytest.approx(colour)


def test_an_ellipse_holds_ninety_percent_of_the_draws(make_fit: Callable[..., Any]) -> None:
    fit = make_fit(3)
    rng = np.random.default_rng(2)
    logs = rng.multivariate_normal([1.0, 8.0], [[0.04, 0.015], [0.015, 0.01]], 200)
    fit.tree["posterior"]["lifetime_ns"][0, :, 1] = np.exp(logs[:, 0])
    fit.tree["posterior"]["rate_per_s"][0, :, 1] = np.exp(logs[:, 1])
    ellipse = Outline(np.log(patches_of(plot_intensity_lifetime(fit))["state 1"].get_xy()))
    draws = np.column_stack([logs[:, 0], logs[:, 1] - np.log(1e3)])
    # 90 % of 200, and three standard deviations of that
    assert 0.9 - 0.065 < ellipse.contains_points(draws).mean() < 0.9 + 0.065
    # long along the correlation, not across
    assert ellipse.contains_points([[1.3, 8.1 - np.log(1e3)]])[0]
    assert not ellipse.contains_points([[1.3, 7.9 - np.log(1e3)]])[0]


def test_a_skewed_posterior_has_a_skewed_outline(make_fit: Callable[..., Any]) -> None:
    fit = make_fit(2)
    shorter = np.random.default_rng(3).exponential(0.3, 200)
    fit.tree["posterior"]["lifetime_ns"][0, :, 1] = 4.0 * np.exp(-shorter)
    outline = patches_of(plot_intensity_lifetime(fit))["state 1"].get_xy()[:, 0]
    middle = 4.0 * np.exp(-np.median(shorter))
    assert 4.0 * np.exp(-shorter.min()) >= outline.max() > middle
    # as far as the shortest 1.6 % of the draws
    assert outline.min() == pytest.approx(4.0 * np.exp(-np.quantile(shorter, 0.984)), rel=0.05)


@pytest.mark.parametrize("reference", [0, 1])
def test_bands_start_at_the_exciton_found(make_fit: Callable[..., Any], reference: int) -> None:
    said = [("auger", 0.95), ("auger", 0.95), ("nbc", 0.95)]
    fit = named_fit(make_fit, said, reference=reference)
    posterior = fit.tree["posterior"]
    exciton_ns = float(posterior["lifetime_ns"].isel(state=reference).median())
    kcps = float(posterior["rate_per_s"].isel(state=reference).median()) / 1e3
    patches = patches_of(plot_intensity_lifetime(fit))
    assert set(patches) >= BANDS
    inside = {
        "hot_carrier": (exciton_ns, 0.3 * kcps),
        "nbc": (0.3 * exciton_ns, 0.3 * kcps),
        "auger": (0.2 * exciton_ns, 0.4 * kcps),
        "unresolved_charging": (0.7 * exciton_ns, 0.95 * kcps),
    }
    for name, place in inside.items():
        assert Outline(patches[name].get_xy()).contains_points([place])[0]
        elsewhere = [other for key, other in inside.items() if key != name]
        assert not Outline(patches[name].get_xy()).contains_points(elsewhere).any()
        assert patches[name].get_facecolor()[:3] == pytest.approx(
            colors.to_rgb(MECHANISM_COLOURS[name])
        )


def test_bands_are_those_of_the_model_of_the_fit(make_fit: Callable[..., Any]) -> None:
    fit = make_fit(2)
    text = load_model("free").text
    fit.tree.attrs["model_text"] = text.replace("median = 2.0", "median = 1.5")
    assert fit.tree.attrs["model_text"] != text
    ax = plot_intensity_lifetime(fit)
    assert "Auger, R = 1.5" in texts_of(ax)
    middle = [0.2 * float(fit.tree["posterior"]["lifetime_ns"].isel(state=0).median())]
    middle += [0.3 * float(fit.tree["posterior"]["rate_per_s"].isel(state=0).median()) / 1e3]
    assert Outline(patches_of(ax)["auger"].get_xy()).contains_points([middle])[0]


def test_a_model_that_cannot_be_read_has_the_default_bands(make_fit: Callable[..., Any]) -> None:
    fit = make_fit(2)
    fit.tree.attrs["model_text"] = "schema = 99"
    assert "Auger, R = 2" in texts_of(plot_intensity_lifetime(fit))


def test_a_ring_stands_where_scatter_moved_a_state_from(make_fit: Callable[..., Any]) -> None:
    fit = named_fit(make_fit, [("nbc", 1.0), ("hot_carrier", 0.95), ("nbc", 0.95)])
    assert "ring: scatter taken out" not in texts_of(plot_intensity_lifetime(fit))
    group = fit.tree["mechanisms"]
    group["relative_lifetime"][:, 1] = 1.0
    group["relative_brightness"][:, 1] = 0.1
    ax = plot_intensity_lifetime(fit)
    assert "ring: scatter taken out" in texts_of(ax)
    exciton = [float(group[f"exciton_{name}"][0]) for name in ("lifetime_ns", "rate_per_s")]
    rings = [line for line in ax.lines if line.get_markerfacecolor() == "white"]
    assert len(rings) == 1
    np.testing.assert_allclose(rings[0].get_xydata()[0], [exciton[0], 0.1e-3 * exciton[1]])


def test_without_mechanisms_states_have_their_own_colours(make_fit: Callable[..., Any]) -> None:
    ax = plot_intensity_lifetime(make_fit(3))
    assert {"0", "1", "2"} <= set(texts_of(ax))
    assert set(patches_of(ax)) >= BANDS | {"state 0", "state 1", "state 2"}


def test_labels_cover_neither_each_other_nor_a_state(make_fit: Callable[..., Any]) -> None:
    said = [("nbc", 1.0)] + [("auger", 0.93), ("hot_carrier", 0.5), ("nbc", 0.9)] * 2
    fit = named_fit(make_fit, said[:6])
    for size in ((6.4, 4.8), (4.2, 2.8)):
        figure, ax = plt.subplots(figsize=size, layout="constrained")
        plot_intensity_lifetime(fit, ax)
        figure.canvas.draw()
        boxes = [text.get_window_extent() for text in ax.texts if text.get_weight() == "bold"]
        assert len(boxes) == 6
        frame = ax.get_window_extent()
        for box in boxes:
            assert box.x0 >= frame.x0 - 1
            assert box.x1 <= frame.x1 + 1
            assert frame.y0 - 1 <= box.y0 < box.y1 <= frame.y1 + 1
        for one, other in itertools.combinations(boxes, 2):
            assert not one.overlaps(other)
        middles = [line.get_xydata()[0] for line in ax.lines]
        for at, box in itertools.product(ax.transData.transform(middles), boxes):
            assert not box.contains(*at)


@pytest.mark.parametrize("n_draws", [1, 2, 3])
def test_few_draws_have_no_ellipse_but_a_place(make_fit: Callable[..., Any], n_draws: int) -> None:
    ax = plot_intensity_lifetime(make_fit(2, n_draws=n_draws))
    assert ("state 0" in patches_of(ax)) == (n_draws > 2)
    assert len(ax.lines) == 2


def test_lifetimes_that_some_draws_cannot_say(make_fit: Callable[..., Any]) -> None:
    fit = make_fit(2)
    fit.tree["posterior"]["lifetime_ns"][0, :50, 1] = np.nan
    ax = plot_intensity_lifetime(fit)
    assert not [text for text in texts_of(ax) if text.startswith("dark")]
    assert "state 1" in patches_of(ax)
    ax.figure.canvas.draw()


@pytest.mark.parametrize("first_dark", [0, 1, 2])
def test_a_dark_state_is_named_but_not_placed(
    make_fit: Callable[..., Any], tmp_path: Path, first_dark: int
) -> None:
    fit = make_fit(3, predictive=False)
    posterior = fit.tree["posterior"]
    posterior["rate_per_s"][..., first_dark:] *= -1e-4
    posterior["lifetime_ns"][..., first_dark:] = np.nan
    ax = plot_intensity_lifetime(fit)
    dark = ", ".join(str(state) for state in range(first_dark, 3))
    assert f"dark: {dark}" in texts_of(ax)
    assert len(ax.lines) == first_dark
    save_overview(fit, tmp_path / "overview.png")


def test_lifetimes_are_needed(make_fit: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="needs lifetimes"):
        plot_intensity_lifetime(make_fit(2, n_gates=1))


def test_a_figure_without_a_display_has_placed_labels(
    make_fit: Callable[..., Any], tmp_path: Path
) -> None:
    figure = Figure(layout="constrained")
    ax = plot_intensity_lifetime(make_fit(4), figure.add_subplot())
    before = [text.get_position() for text in ax.texts if text.get_weight() == "bold"]
    figure.savefig(tmp_path / "plane.png")
    after = [text.get_position() for text in ax.texts if text.get_weight() == "bold"]
    assert len(before) == 4
    assert before != after


def test_colours_of_mechanisms_can_be_told_apart_without_red_and_green() -> None:
    assert set(MECHANISM_COLOURS) == {*MECHANISMS, "undetermined", "reference"}
    rgb = np.array([colors.to_rgb(one) for one in MECHANISM_COLOURS.values()])
    seen = np.column_stack([rgb @ [0.2126, 0.7152, 0.0722], rgb[:, 2]])
    distance = np.abs(seen[:, None] - seen).max(-1)
    assert (distance[np.triu_indices(len(rgb), 1)] > 0.05).all()
