"""What `pncbayes.fit` refuses, and the least that it takes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from quick_fits import blinking_dot, estimated_response, levels, quick_fit, without_photons

from pncbayes.errors import PhotonFileError
from pncbayes.inference.results import load
from pncbayes.photons.binning import bin_photons

pytestmark = estimated_response

ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"max_states": 0}, "`max_states` must be a whole number from 1 to 12, got 0"),
    ({"max_states": 13}, "`max_states` must be a whole number from 1 to 12, got 13"),
    ({"max_states": 2.5}, "`max_states` must be a whole number from 1 to 12, got 2.5"),
    ({"max_states": True}, "`max_states` must be a whole number from 1 to 12, got True"),
    ({"sampler": "metropolis"}, "`sampler` must be 'evidence' or 'nuts', got 'metropolis'"),
    ({"model": "fre"}, "no model named 'fre'"),
    ({"width_s": 0.05}, "`width_s` is 0.05 s but the trace has bins of 0.02 s"),
    ({"random_seed": -1}, "`random_seed` must be a whole number, 0 or more, .* got -1"),
]


@pytest.mark.parametrize(("settings", "message"), ARGUMENTS)
def test_bad_arguments(settings: dict[str, Any], message: str) -> None:
    trace = bin_photons(blinking_dot().photons, 0.02)
    with pytest.raises(ValueError, match=message):
        quick_fit(trace, **settings)


@pytest.mark.parametrize("width_s", [0.0, -0.01, np.nan, 100.0])
def test_bad_widths(width_s: float) -> None:
    with pytest.raises(ValueError, match="`width_s` must be"):
        quick_fit(blinking_dot().photons, width_s=width_s)


@pytest.mark.parametrize("data", [None, 3, np.arange(5), [1.0, 2.0], {"counts": 1}])
def test_bad_data(data: Any) -> None:
    with pytest.raises(ValueError, match="`data` must be Photons, a trace or the path of a file"):
        quick_fit(data)


def test_trace_cut_after_binning_is_refused() -> None:
    """The likelihood would bin all photons anew, those cut off as well."""
    trace = bin_photons(blinking_dot().photons, 0.02)
    with pytest.raises(ValueError, match=r"trace of 100 bins .* fills 300: it was cut"):
        quick_fit(trace.isel(time=slice(100)))
    alone = without_photons(trace.isel(time=slice(20), gate=slice(1)))
    assert quick_fit(alone, max_states=1).tree["states"].sizes["time"] == 20


def test_missing_file() -> None:
    with pytest.raises(PhotonFileError, match=r"nowhere\.ptu"):
        quick_fit("nowhere.ptu")


def test_dataset_that_is_no_trace() -> None:
    with pytest.raises(ValueError, match="trace"):
        quick_fit(xr.Dataset({"counts": ("time", np.arange(5))}))


def test_response_beside_a_trace_is_refused() -> None:
    trace = without_photons(bin_photons(levels([3e3], None, 2.0, 6).photons, 0.01))
    with pytest.raises(ValueError, match="response"):
        quick_fit(trace, response="nowhere.ptu", max_states=1)


def test_counts_that_are_all_zero() -> None:
    trace = without_photons(bin_photons(levels([3e3], None, 2.0, 6).photons, 0.01))
    dark = trace.copy(deep=True)
    dark["counts"].values[:] = 0
    found = quick_fit(dark, max_states=1)
    assert found.states["rate_per_s_q95"][0] < 20.0
    # with two, one may be bright and never visited: the time is spent in the dark all the same
    draws = quick_fit(dark, max_states=2).tree["posterior"].dataset
    light_per_s = (draws["occupancy"] * draws["rate_per_s"]).sum("state")
    assert float(light_per_s.max()) < 10.0


def simple_counts(counts: NDArray[np.float64]) -> xr.Dataset:
    """A trace of few bins."""
    trace = without_photons(bin_photons(levels([3e3], None, 2.0, 6).photons, 0.01))
    few = trace.isel(time=slice(len(counts))).copy(deep=True)
    few["counts"].values[:, 0] = counts
    return few


@pytest.mark.parametrize("n_bins", [1, 2, 5])
def test_few_bins(n_bins: int, tmp_path: Path) -> None:
    """No warning of NumPy's on the way, and a check that cannot be made is said, not passed."""
    found = quick_fit(simple_counts(np.full(n_bins, 30.0)), max_states=2)
    assert found.n_states.sum() == pytest.approx(1.0)
    assert found.tree["states"].sizes["time"] == n_bins
    p_values = found.diagnostics["predictive_p_values"]
    assert np.isnan(p_values["autocorrelation"]) == (n_bins < 4)
    assert 0.0 < p_values["count_histogram"] <= 1.0
    said = any("check not made: autocorrelation. It takes four" in one for one in found.warnings)
    assert said == (n_bins < 4)
    found.save(tmp_path / "fit.nc")
    xr.testing.assert_identical(load(tmp_path / "fit.nc").tree, found.tree)
