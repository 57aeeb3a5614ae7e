"""`pncbayes.fit` from photons to the summary: one fit of a blinking dot, seen from all sides."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from quick_fits import BACKGROUND_PER_S, blinking_dot, blinking_fit, contains, estimated_response

import pncbayes
from pncbayes.errors import PhotonFileError
from pncbayes.inference.results import Fit, load
from pncbayes.photons.binning import bin_photons
from pncbayes.physics.modelfile import load_model

INTERVAL = {"mean", "sd", "q05", "q95"}

pytestmark = estimated_response


def test_finds_two_states() -> None:
    found = blinking_fit()
    assert found.most_probable_n_states == 2
    assert found.n_states[2] > 0.95
    assert found.n_states.sum() == pytest.approx(1.0, rel=1e-9)
    assert list(found.n_states.index) == [1, 2, 3]
    assert "predictive check" not in " ".join(found.warnings)


def test_states_contain_the_truth() -> None:
    dot, states = blinking_dot(), blinking_fit().states
    spent = dot.occupancy_per_bin(0.02).mean(axis=0)
    lifetimes_ns = (0.6 * 20.0 + 0.4 * 6.0, 0.5 * 4.0 + 0.5 * 1.5)
    for k, (rate, lifetime_ns) in enumerate(zip((1.2e4, 1.5e3), lifetimes_ns, strict=True)):
        row = states.loc[k]
        assert contains(row, "rate_per_s", rate)
        # the response is estimated from the same photons
        assert contains(row, "lifetime_ns", lifetime_ns, slack=0.05)
        assert row["occupancy_mean"] == pytest.approx(spent[k], abs=0.01)
        assert contains(row, "amplitude_per_s_ns", rate / lifetime_ns, slack=0.05)
        # and they say something
        assert row["rate_per_s_sd"] < 0.05 * rate
        assert row["lifetime_ns_sd"] < 0.15 * lifetime_ns
        for name in ("rate_per_s", "lifetime_ns", "occupancy"):
            assert row[f"{name}_q05"] <= row[f"{name}_mean"] <= row[f"{name}_q95"]
    assert states["occupancy_mean"].sum() == pytest.approx(1.0, rel=1e-9)


def test_rates_contain_the_truth() -> None:
    found = blinking_fit()
    rates = found.rates
    assert list(rates["kind"]) == ["trapping", "detrapping"]
    for (_, row), truth in zip(rates.iterrows(), (8.0, 10.0), strict=True):
        assert contains(row, "per_s", truth)
        assert 0.05 * truth < row["per_s_sd"] < 0.5 * truth
    trap, detrap = found.k_trap_per_s, found.k_detrap_per_s
    assert trap is not None
    assert detrap is not None
    # of two states they are the two rates
    assert trap["mean"] == pytest.approx(rates["per_s_mean"][0], rel=1e-9)
    assert detrap["mean"] == pytest.approx(rates["per_s_mean"][1], rel=1e-9)
    assert found.on_fraction["mean"] == pytest.approx(found.states["occupancy_mean"][0], abs=1e-9)


def test_path_is_that_of_the_dot() -> None:
    spent = blinking_dot().occupancy_per_bin(0.02)
    states = blinking_fit().tree["states"]
    probability = states["probability"].values
    assert probability.shape == spent.shape
    np.testing.assert_allclose(probability.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(states["path"], probability.argmax(axis=1))
    # also where it switched inside the bin: the share of the bin is told
    assert np.abs(probability - spent).mean() < 0.02
    mixed = (spent[:, 0] > 0.2) & (spent[:, 0] < 0.8)
    assert mixed.sum() > 10
    assert np.abs(probability[mixed] - spent[mixed]).mean() < 0.1


def test_tree_has_the_stated_groups() -> None:
    found = blinking_fit()
    tree, trace = found.tree, bin_photons(blinking_dot().photons, 0.02)
    assert {"posterior", "evidence", "states", "predictive", "observed_data", "constant_data"} <= (
        set(tree.children)
    )
    posterior = tree["posterior"]
    assert posterior.sizes["chain"] == 1
    n_draws, n_gates = posterior.sizes["draw"], trace.sizes["gate"]
    for name, shape in (
        ("rate_per_s", (2,)),
        ("total_rate_per_s", (2,)),
        ("occupancy", (2,)),
        ("exit_rate_per_s", (2,)),
        ("lifetime_ns", (2,)),
        ("transition_rate_per_s", (2, 2)),
        ("gate_probability", (2, n_gates)),
    ):
        assert posterior[name].shape == (1, n_draws, *shape)
    np.testing.assert_allclose(posterior["gate_probability"].sum("gate"), 1.0, rtol=1e-9)
    exits = posterior["transition_rate_per_s"].sum("to_state")
    np.testing.assert_allclose(exits, posterior["exit_rate_per_s"], rtol=1e-12)
    background = posterior["total_rate_per_s"] - posterior["rate_per_s"]
    assert float(background.mean()) == pytest.approx(BACKGROUND_PER_S, rel=0.25)
    xr.testing.assert_equal(tree["observed_data"]["counts"].variable, trace["counts"].variable)
    assert tree["evidence"]["probability"].dims == ("n_states",)
    assert {"response", "background_gate_fraction"} <= set(tree["constant_data"].data_vars)
    assert {"count_histogram", "autocorrelation", "p_value", "gate_counts"} <= set(
        tree["predictive"].data_vars
    )
    attrs = tree.attrs
    assert attrs["width_s"] == 0.02
    assert attrs["likelihood_width_s"] < 0.02
    assert attrs["digest"] == blinking_dot().photons.digest
    assert attrs["model_digest"] == load_model("free").digest
    assert attrs["model_text"] == load_model("free").text
    assert attrs["random_seed"] == 1


def test_surely_bright_bins_have_the_bright_decay() -> None:
    """Counts per gate of the bins in one state, per s, are that state's rates."""
    tree = blinking_fit().tree
    seconds = tree["predictive"]["gate_counts_time_s"].values
    assert (seconds > 0.5).all()
    assert seconds.sum() < 6.0
    found = tree["predictive"]["gate_counts"].sum("gate").values / seconds
    expected = tree["posterior"]["total_rate_per_s"].mean(("chain", "draw")).values
    np.testing.assert_allclose(found, expected, rtol=0.05)


def test_warnings_do_not_repeat() -> None:
    found = blinking_fit()
    assert len(set(found.warnings)) == len(found.warnings)


def test_summary_keeps_the_contract() -> None:
    found = blinking_fit()
    summary = found.summary()
    # what is promised in writing; keys may be added, none may go
    assert {
        "schema",
        "file",
        "n_photons",
        "duration_s",
        "width_s",
        "n_states",
        "most_probable_n_states",
        "states",
        "mechanisms",
        "verdict",
        "rates",
        "auger_rate_per_ns",
        "on_fraction",
        "loss_budget",
        "diagnostics",
        "warnings",
    } <= set(summary)
    assert summary["schema"] == 1
    assert summary["n_photons"] == blinking_dot().photons.n_photons
    assert summary["duration_s"] == 6.0
    assert summary["width_s"] == 0.02
    assert summary["n_states"] == {str(k): float(p) for k, p in found.n_states.items()}
    assert len(summary["states"]) == summary["most_probable_n_states"] == 2
    for state in summary["states"]:
        for name in ("rate_per_s", "lifetime_ns", "occupancy"):
            assert set(state[name]) == INTERVAL
        assert {"mechanism", "named_mechanism", "reference"} <= set(state)
    brightness = [state["rate_per_s"]["mean"] for state in summary["states"]]
    assert brightness == sorted(brightness, reverse=True)
    assert [(rate["from"], rate["to"], rate["kind"]) for rate in summary["rates"]] == [
        (0, 1, "trapping"),
        (1, 0, "detrapping"),
    ]
    assert all(set(rate["per_s"]) == INTERVAL for rate in summary["rates"])
    (dim,) = summary["trap_rates"]
    # neither state has a mechanism with a rate of its own
    assert summary["mechanism_rates"] == []
    named = summary["states"][1]["named_mechanism"]
    assert [rate["mechanism"] for rate in summary["rates"]] == [named, named]
    assert (dim["state"], dim["mechanism"]) == (1, named)
    assert isinstance(named, str)
    for name, rate in zip(("k_trap_per_s", "k_detrap_per_s"), summary["rates"], strict=True):
        assert set(dim[name]) == INTERVAL
        # with two states, the rates between them and those of the dot
        assert dim[name] == pytest.approx(rate["per_s"])
        assert dim[name] == pytest.approx(summary[name])
    assert set(summary["on_fraction"]) == INTERVAL
    diagnostics = summary["diagnostics"]
    assert {"log_evidence", "log_evidence_error", "r_hat", "ess", "pareto_k", "divergences"} <= (
        set(diagnostics)
    )
    for name in ("log_evidence", "log_evidence_error", "method"):
        assert set(diagnostics[name]) == {"1", "2", "3"}
    assert diagnostics["n_states_probability_rough"] == pytest.approx(
        sum(found.n_states[int(k)] for k, how in diagnostics["method"].items() if how == "rough")
    )
    assert set(diagnostics["predictive_p_values"]) == {"count_histogram", "autocorrelation"}
    assert all(isinstance(text, str) for text in summary["warnings"])
    # plain numbers and text
    assert json.loads(json.dumps(summary))["states"] == summary["states"]
    assert repr(found).startswith("Fit(photons, P(number of states) = {2: ")


def test_saved_and_opened_again_is_the_same(tmp_path: Path) -> None:
    found = blinking_fit()
    path = tmp_path / "fit.nc"
    found.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["fit.nc"]
    again = load(path)
    xr.testing.assert_identical(again.tree, found.tree)
    # a NaN equals no NaN, but reads the same
    texts = [json.dumps(one.summary(), default=int) for one in (again, found)]
    assert texts[0] == texts[1]
    assert repr(again) == repr(found)
    # over an older result too
    found.save(path)
    assert isinstance(pncbayes.load(path), Fit)


def test_summary_of_an_opened_fit_is_ready_for_json(tmp_path: Path) -> None:
    blinking_fit().save(tmp_path / "fit.nc")
    again = json.dumps(load(tmp_path / "fit.nc").summary())
    assert again == json.dumps(blinking_fit().summary())


def test_a_failed_save_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        blinking_fit().save(tmp_path / "nowhere" / "fit.nc")
    assert not list(tmp_path.iterdir())


def test_what_is_no_saved_fit(tmp_path: Path) -> None:
    text, other = tmp_path / "text.nc", tmp_path / "other.nc"
    text.write_text("not netCDF", encoding="utf-8")
    xr.Dataset({"x": 1.0}).to_netcdf(other, engine="h5netcdf")
    for path in (text, other, tmp_path / "missing.nc"):
        with pytest.raises(PhotonFileError, match=path.name):
            load(path)
