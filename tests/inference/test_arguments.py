"""Every wrong argument gets one ValueError of the library's own, before any work is done."""

import inspect
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

with warnings.catch_warnings():
    # importing PyMC may warn about deprecations that are not ours
    warnings.simplefilter("ignore")
    import pymc  # noqa: F401

import pncbayes
from pncbayes.inference.build import build
from pncbayes.inference.fit import fit
from pncbayes.photons.binning import bin_photons
from pncbayes.photons.stream import Photons
from pncbayes.physics.simulate import simulate
from pncbayes.physics.simulated_dot import SimulatedState

PACKAGE = str(Path(pncbayes.__file__).parent)

pytestmark = pytest.mark.filterwarnings("ignore:.*response was estimated.*")

WIDTHS = ["a", "0.01", [0.01], True, 1j, np.complex128(1), 0, -0.01, np.nan, np.inf]
SEEDS = ["a", -1, 1.5, True, [1, 2], np.nan]
FLAGS = ["yes", None, 1, 0.0, [True]]
OF_BOTH: list[tuple[str, Any]] = [
    *(("width_s", value) for value in WIDTHS),
    *(("random_seed", value) for value in SEEDS),
    *(("excess_noise", value) for value in FLAGS),
    *(("model", value) for value in (3, None, b"free", ["free"])),
]
OF_FIT: list[tuple[str, Any]] = [
    *(("mechanisms", value) for value in FLAGS),
    *(("dynamics", value) for value in FLAGS),
    *(("exposure", value) for value in ("yes", 1.0, None, [1.0, 2.0])),
    *(("exciton", value) for value in (2.0e4, (2.0e4, 5.0), "exciton", {"lifetime_ns": 5.0})),
    *(("progressbar", value) for value in FLAGS),
    *(("strict", value) for value in FLAGS),
    *(("max_states", value) for value in ("3", [2], 0, 13, 2.0, True, np.nan)),
    *(("sampler", value) for value in (None, 3, "NUTS", np.array(["nuts", "evidence"]))),
]
OF_BUILD: list[tuple[str, Any]] = [
    *(("ordered", value) for value in FLAGS),
    *(("n_states", value) for value in ("2", 0, 7, 2.0, True)),
]


@cache
def photons() -> Photons:
    state = SimulatedState(rate_per_s=3e3, lifetimes_ns=(10.0,))
    return simulate([state], None, 2.0, period_ns=100.0, random_seed=1).photons


def trace() -> xr.Dataset:
    return bin_photons(photons(), 0.01).assign_attrs(digest="of no photons", path="")


def refused(function: Callable[..., Any], data: Any, name: str, value: Any) -> str:
    """The message of a ValueError that the library raised itself, and that names the argument."""
    with pytest.raises(ValueError, match=f"`{name}`") as caught:
        function(data, **{name: value})
    assert str(caught.traceback[-1].path).startswith(PACKAGE)
    return str(caught.value)


@pytest.mark.parametrize(("name", "value"), OF_BOTH + OF_FIT)
@pytest.mark.parametrize("data", [photons, trace])
def test_fit_refuses(data: Callable[[], Any], name: str, value: Any) -> None:
    message = refused(fit, data(), name, value)
    assert "must be" in message
    assert f"got {value!r}" in message


@pytest.mark.parametrize(("name", "value"), OF_BOTH + OF_BUILD)
@pytest.mark.parametrize("data", [photons, trace])
def test_build_refuses(data: Callable[[], Any], name: str, value: Any) -> None:
    message = refused(build, data(), name, value)
    assert "must be" in message
    assert f"got {value!r}" in message


@pytest.mark.parametrize("value", [*WIDTHS, 10**400, 3.0])
def test_bin_photons_refuses_widths(value: Any) -> None:
    assert f"got {value!r}" in refused(bin_photons, photons(), "width_s", value)


@pytest.mark.parametrize("data", ["dot.ptu", None, 3, xr.Dataset()])
def test_bin_photons_refuses_what_is_no_photons(data: Any) -> None:
    with pytest.raises(ValueError, match=r"`photons` must be Photons, got .*`pncbayes.read`"):
        bin_photons(data)


@pytest.mark.parametrize("value", [{}, object(), ["a"], [[1.0, 2.0]], True, -1.0])
@pytest.mark.parametrize("function", [fit, build])
def test_no_response(function: Callable[..., Any], value: Any) -> None:
    refused(function, photons(), "response", value)
    assert "beside a trace" in refused(function, trace(), "response", value)


BROKEN: list[tuple[Callable[[xr.Dataset], xr.Dataset], str]] = [
    (lambda good: good.drop_vars("counts"), "lacks the variable `counts`"),
    (lambda good: good.assign_attrs(kind="x"), "`kind` 'x', allowed are photons, camera"),
    (lambda good: good.assign_attrs(kind="camera"), "camera trace without gain, offset"),
    (lambda good: good.assign_attrs(width_s=0.0), "positive number of seconds as `width_s`"),
    (lambda good: good.assign_attrs(duration_s="a"), "`duration_s`, got 'a'"),
    (lambda good: good.isel(time=slice(0)), "numbers in one bin or more"),
    (lambda good: good.isel(gate=0), r"dimensions \(time, gate\)"),
    (lambda good: good.transpose("gate", "time", ...), r"dimensions \(time, gate\)"),
    (lambda good: good.assign(counts=good["counts"].astype(str)), "numbers in one bin"),
    (lambda good: good.assign(counts=good["counts"] - 1e6), "negative or not finite"),
    (lambda good: good.assign(counts=good["counts"] * np.nan), "negative or not finite"),
    (lambda good: good.assign(counts=good["counts"] * 0), "no photon in any bin"),
]


@pytest.mark.parametrize(("breaking", "message"), BROKEN)
@pytest.mark.parametrize("function", [fit, build])
def test_broken_traces(function: Callable[..., Any], breaking: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        function(breaking(trace()))
    assert "`data`" in str(caught.value)


@pytest.mark.parametrize("name", ["kind", "width_s", "duration_s"])
def test_traces_that_lack_an_attribute(name: str) -> None:
    lacking = trace()
    del lacking.attrs[name]
    for function in (fit, build):
        with pytest.raises(ValueError, match=f"not a trace, it lacks the attribute `{name}`"):
            function(lacking)


def test_every_argument_of_fit_is_covered() -> None:
    tested = {name for name, _ in OF_BOTH + OF_FIT} | {"data", "response"}
    assert set(inspect.signature(fit).parameters) == tested


def test_numbers_of_numpy_are_numbers() -> None:
    found = fit(
        trace(),
        width_s=np.float64(0.01),
        max_states=np.int64(1),
        random_seed=np.uint8(3),
        strict=np.bool_(False),
        dynamics=False,
        progressbar=False,
    )
    assert found.summary()["random_seed"] == 3
