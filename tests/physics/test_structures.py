"""Structured hypotheses: states and rates by hand, emission by plain formulas, wrong files."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import pncbayes as pnc
from pncbayes.errors import ModelFileError
from pncbayes.physics.convolution import as_response, exponential_gate_probability
from pncbayes.physics.modelfile import LogNormal, find_model_files, load_model
from pncbayes.physics.simulate import simulate
from pncbayes.physics.simulated_dot import SimulatedState
from pncbayes.physics.structured_emission import gate_rate_per_s, recorder_of
from pncbayes.physics.structured_file import is_structured, load_structured, structured_names
from pncbayes.physics.structures import Part, StructuredModel

with warnings.catch_warnings():
    # importing PyTensor may warn about deprecations that are not ours
    warnings.simplefilter("ignore")
    import pytensor
    import pytensor.tensor as pt

STRUCTURED = [name for name in structured_names() if name != "steady"]
COMMON = {
    "exciton_rate_per_s": 1e4, "exciton_lifetime_ns": 5.0, "quantum_yield": 0.8,
    "log_lifetime_spread": 1.1, "fast_amplitude": 0.4, "scatter_share": 0.01,
    "afterpulsing_share": 0.02, "biexciton_share": 0.05, "biexciton_lifetime_ns": 0.2,
    "biexciton_power": 0.5, "background_rate_per_s": 150.0, "response_shift": 0.0,
    "response_width": 0.0, "after_biexciton_share": 0.1,
}  # fmt: skip


@cache
def trace() -> xr.Dataset:
    dot = simulate(
        [SimulatedState(1e4, (5.0,))], None, 1.0, period_ns=100.0, delay_tick_ns=0.016,
        pulse_ns=5.0, random_seed=1,
    )  # fmt: skip
    return pnc.bin_photons(dot.photons, 0.01, response=0.1)


def first(name: str) -> StructuredModel:
    return load_structured(name).variants()[0]


def test_states_of_the_shipped_models() -> None:
    assert {name: first(name).n_states for name in structured_names()} == {
        "steady": 1, "auger": 2, "hot_carrier": 2, "nbc": 2, "mixed": 4, "two_emitters": 4,
    }  # fmt: skip
    assert [model.n_states for model in load_structured("nbc").variants()] == [2, 3]
    assert first("mixed").state_names == ["exciton", "centre", "charge", "charge + centre"]
    assert first("two_emitters").state_names == [
        "exciton", "dim of 2", "dim of 1", "dim of 1, dim of 2",
    ]  # fmt: skip
    assert first("mixed").mechanisms == ("auger", "nbc")
    assert all(is_structured(name) for name in STRUCTURED)
    assert not is_structured("free")
    assert not is_structured("steady")


def test_independent_parts_give_a_factorial_generator() -> None:
    """The generator of independent parts is the Kronecker sum of theirs."""
    model = first("mixed")
    rates = {"k_trap_per_s": 2.0, "k_detrap_per_s": 3.0, "k_activate_per_s": 5.0,
             "k_deactivate_per_s": 7.0}  # fmt: skip
    charge, centre = np.array([[-2.0, 2.0], [3.0, -3.0]]), np.array([[-5.0, 5.0], [7.0, -7.0]])
    expected = np.kron(charge, np.eye(2)) + np.kron(np.eye(2), centre)
    np.fill_diagonal(expected, 0.0)
    np.testing.assert_allclose(model.transition_rate_per_s(rates), expected)


def test_each_of_several_centres_switches_by_itself() -> None:
    """Two centres alike are two independent ones, with the states of one active centre joined."""
    two = load_structured("nbc").variants()[1]
    rates = two.transition_rate_per_s({"k_activate_per_s": 2.0, "k_deactivate_per_s": 3.0})
    np.testing.assert_allclose(rates, [[0.0, 4.0, 0.0], [3.0, 0.0, 2.0], [0.0, 6.0, 0.0]])
    charges = load_structured("auger").variants()[1]
    rates = charges.transition_rate_per_s({"k_trap_per_s": 2.0, "k_detrap_per_s": 3.0})
    np.testing.assert_allclose(rates, [[0.0, 2.0, 0.0], [3.0, 0.0, 2.0], [0.0, 3.0, 0.0]])


def plain(decays: list[tuple[float, float]], brightness: float, data: xr.Dataset) -> np.ndarray:
    """Light of a state by plain formulas: amplitudes and rates of its exponentials."""
    edges = np.append(data["gate_start_ns"].to_numpy(), data["gate_stop_ns"].to_numpy()[-1])
    response = as_response(data["response"].to_numpy(), float(data.attrs["delay_tick_ns"]))
    weights = np.array([a / k for a, k in decays])
    shares = exponential_gate_probability(
        np.array([k for _, k in decays]), edges, response, 100.0, recorder_of(data).table.shift_ns
    )
    return 1e4 * brightness * (weights / weights.sum()) @ shares


@pytest.mark.parametrize(
    ("name", "own", "f", "g"),
    [
        ("auger", {"radiative_scaling": 2.5, "k_auger_per_ns": 0.9}, None, None),
        ("hot_carrier", {"hot_carrier_yield": 0.3}, 0.3, 1.0),
        ("nbc", {"k_centre_per_ns": 0.5}, None, None),
    ],
)
def test_emission_is_that_of_plain_formulas(name: str, own: dict, f: float, g: float) -> None:
    """Second state, without instrument effects; extra rates worked out by hand."""
    model, data = first(name), trace()
    off = {"scatter_share": 0.0, "afterpulsing_share": 0.0, "biexciton_share": 0.0,
           "background_rate_per_s": 0.0, "after_biexciton_share": 0.0}  # fmt: skip
    values = COMMON | own | off
    ratio = np.exp(1.1)
    short = 5.0 / (0.4 + 0.6 * ratio)
    exciton = [(0.4, 1.0 / short), (0.6, 1.0 / (short * ratio))]
    assert sum(a / k for a, k in exciton) == pytest.approx(5.0)
    extra, scaling = 0.0, 1.0
    if name == "auger":
        scaling = 2.5
        extra = 1.5 * 0.8 / 5.0 + 0.9
    elif name == "nbc":
        extra = 0.5
    faster = [(a, k + extra) for a, k in exciton]
    lifetime = sum(a / k for a, k in faster) / 5.0
    brightness = scaling * lifetime if f is None else f
    found = gate_rate_per_s(model, recorder_of(data), values, np.zeros((1, 1)))
    np.testing.assert_allclose(found[0], plain(exciton, 1.0, data), rtol=2e-3, atol=0.2)
    np.testing.assert_allclose(found[1], plain(faster, brightness, data), rtol=2e-3, atol=0.2)
    assert g is None or lifetime == pytest.approx(g)


def test_deviation_changes_the_lifetime_and_not_the_brightness() -> None:
    data, model = trace(), first("nbc")
    values = COMMON | {
        "k_centre_per_ns": 0.5,
        "log_lifetime_spread": 0.0,
        "biexciton_share": 0.0,
        "after_biexciton_share": 0.0,
    }
    recorder = recorder_of(data)
    moved = gate_rate_per_s(model, recorder, values, np.full((1, 1), 1.5))
    slower = values | {
        "k_centre_per_ns": (0.5 + 0.2) * np.exp(-1.5 * model.slack) - 0.2,
    }
    other = gate_rate_per_s(model, recorder, slower, np.zeros((1, 1)))
    base = gate_rate_per_s(model, recorder, values, np.zeros((1, 1)))
    assert moved[1].sum() == pytest.approx(base[1].sum(), rel=1e-3)
    same = data.sizes["gate"] - 1
    shape, wanted = (x[1] - x[1].min() for x in (moved, other))
    np.testing.assert_allclose(shape / shape.sum(), wanted / wanted.sum(), atol=4e-3)
    assert abs(moved[1] - base[1]).max() > 20.0
    assert same > 15


@pytest.mark.parametrize("pair_ns", [0.3, 4.999, 5.0])
def test_light_after_a_biexciton_waits_for_it(pair_ns: float) -> None:
    """Delays drawn as a sum of two, the biexciton's and the exciton's; alike ones as well."""
    data, model = trace(), first("steady")
    recorder = recorder_of(data)
    values = COMMON | {
        "log_lifetime_spread": 0.0, "biexciton_share": 0.0, "scatter_share": 0.0,
        "afterpulsing_share": 0.0, "background_rate_per_s": 0.0, "after_biexciton_share": 1.0,
        "biexciton_lifetime_ns": pair_ns,
    }  # fmt: skip
    light = gate_rate_per_s(model, recorder, values, np.zeros((1, 0)))[0]
    rng, n = np.random.default_rng(4), 400_000
    response = as_response(data["response"].to_numpy(), float(data.attrs["delay_tick_ns"]))
    start = rng.choice(response.weight.size, size=n, p=response.weight / response.weight.sum())
    at = (start + rng.random(n)) * response.tick_ns + recorder.table.shift_ns
    at += rng.exponential(pair_ns, n) + rng.exponential(5.0, n)
    edges = np.append(data["gate_start_ns"].to_numpy(), data["gate_stop_ns"].to_numpy()[-1])
    counts, _ = np.histogram(edges[0] + (at - edges[0]) % 100.0, edges)
    expected = n * light / 1e4
    assert abs(counts - expected).max() < 5.0 * np.sqrt(n * 0.08)
    assert (abs(counts - expected) < 4.5 * np.sqrt(expected + 1.0) + 2e-3 * expected).all()


def test_light_of_two_emitters_adds_up() -> None:
    data, model = trace(), first("two_emitters")
    recorder = recorder_of(data)
    own = {"exciton_rate_per_s": 1e4, "exciton_lifetime_ns": 5.0, "log_lifetime_spread": 0.5,
           "fast_amplitude": 0.5, "relative_brightness": 0.2, "relative_lifetime": 0.3}  # fmt: skip
    values = {f"emitter_{n}_{key}": value for n in (1, 2) for key, value in own.items()}
    values["emitter_2_exciton_rate_per_s"] = 3e3
    shared = {key: value for key, value in COMMON.items() if key not in own} | {
        "background_rate_per_s": 0.0, "scatter_share": 0.0, "biexciton_share": 0.0,
        "afterpulsing_share": 0.0,
    }  # fmt: skip
    light = gate_rate_per_s(model, recorder, values | shared, np.zeros((2, 1)))
    np.testing.assert_allclose(light[0] + light[3], light[1] + light[2], rtol=1e-12)
    np.testing.assert_allclose(light.sum(axis=1) / light[0].sum(), [1, 10.6 / 13, 5 / 13, 2.6 / 13],
                               rtol=1e-3)  # fmt: skip


@pytest.mark.parametrize("name", structured_names())
def test_formulas_are_the_same_in_pytensor(name: str) -> None:
    """One function over NumPy and PyTensor, and its derivative there against differences."""
    rng = np.random.default_rng(5)
    data, model = trace(), first(name)
    recorder = recorder_of(data)
    priors = model.priors()
    values = {
        key: 0.5 if not isinstance(prior, LogNormal) else prior.median * np.exp(rng.normal() * 0.3)
        for key, prior in priors.items()
    } | {"background_rate_per_s": 90.0, "response_shift": 0.4, "response_width": -0.3}
    deviation = rng.normal(size=(model.n_emitters, len(model.levels) - 1))
    variables = {key: pt.dscalar(key) for key in values}
    graph = gate_rate_per_s(model, recorder, variables, pt.constant(deviation), pt)
    moves = model.transition_rate_per_s(variables, pt)
    slope = pt.grad(graph[:, 3].sum(), variables[model.exciton_parameter("exciton_lifetime_ns", 0)])
    compiled = pytensor.function(
        list(variables.values()), [graph, moves, slope], mode="FAST_COMPILE",
        on_unused_input="ignore",
    )  # fmt: skip
    light, rates, by_lifetime = compiled(*values.values())
    np.testing.assert_allclose(light, gate_rate_per_s(model, recorder, values, deviation))
    np.testing.assert_allclose(rates, model.transition_rate_per_s(values))
    key = model.exciton_parameter("exciton_lifetime_ns", 0)

    def column(shift: float) -> float:
        moved = values | {key: values[key] + shift}
        return float(gate_rate_per_s(model, recorder, moved, deviation)[:, 3].sum())

    assert by_lifetime == pytest.approx((column(1e-5) - column(-1e-5)) / 2e-5, rel=1e-4)


def test_parts_that_are_alike_are_counted() -> None:
    model = first("nbc")
    part = model.parts[0]
    other = Part("second", part.mechanism, 2, part.priors)
    assert replace(model, parts=(part, other)).n_alike == 2
    unlike = dict(part.priors) | {"k_centre_per_ns": LogNormal(1.0, 1.0)}
    assert replace(model, parts=(part, Part("second", "nbc", 2, unlike))).n_alike == 1
    assert first("two_emitters").n_alike == 2
    names = replace(model, parts=(part, other)).priors()
    assert {"centre_k_activate_per_s", "second_k_activate_per_s"} <= set(names)


def test_free_models_are_not_compared_by_evidence() -> None:
    with pytest.raises(ModelFileError, match=r"'free' has free decays.*compare among steady, aug"):
        load_structured("free")
    with pytest.raises(ModelFileError, match=r"structured model, for `pncbayes\.build`"):
        load_model("auger")


@pytest.mark.parametrize("name", STRUCTURED)
def test_numbers_are_those_of_the_file(name: str) -> None:
    model = load_structured(name)
    assert model.name == name
    assert all(reference.startswith("10.") for reference in model.references)
    assert load_structured(find_model_files()[name]) == model
    prior = model.exciton["exciton_lifetime_ns"]
    assert prior == LogNormal(6.0, 1.5)


WRONG = [
    ("n_levels = [2, 3]", "n_levels = 1", "part.. 1 n_levels must be a whole number from 2"),
    ("n_levels = [2, 3]", "n_levels = [3, 2]", "n_levels must be a whole number from 3"),
    ("n_levels = [2, 3]", "n_levels = 9", "from 2 to 8, got 9"),
    ('mechanism = "auger"', 'mechanism = "magic"', "must be one of auger, hot_carrier.*'magic'"),
    ('name = "charge"', 'name = "my charge"', "letters, digits and underscores, got 'my charge'"),
    ("k_detrap_per_s", "k_detrap", "unknown key 'k_detrap'.*allowed are .*k_detrap_per_s"),
    ("low = 0.3, high = 1.0", "low = 0.3, high = 1.5", "0 <= low < high <= 1, got 0.3 and 1.5"),
    ("slack = 0.1", "slack = 2.0", "slack must be within 0.01 to 0.5, got 2"),
    ("n_emitters = 1", "n_emitters = 3", "`?n_emitters`? must be a whole number from 1 to 2"),
    ("median = 6.0", "median = -6.0", "median and sigma must be positive, got -6"),
    ('{ dist = "LogNormal", median = 6.0, sigma = 1.5 }', "6.0", "must be a prior, .*got 6.0"),
    ("[[part]]", "[part]", r"each under \[\[part\]\]"),
    ("schema = 1", "schema = 7", "`schema` is 7; this version reads 1"),
    ("median = 1000.0", 'median = "big"', "concentration median must be a number.*'big'"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "says"), WRONG, ids=[new for _, new, _ in WRONG])
def test_wrong_file_says_what_is_wrong(tmp_path: Path, old: str, new: str, says: str) -> None:
    text = find_model_files()["auger"].read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ModelFileError, match=says) as caught:
        load_structured(path)
    assert str(path) in str(caught.value)


def test_too_many_states_are_refused(tmp_path: Path) -> None:
    text = find_model_files()["mixed"].read_text(encoding="utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace("n_levels = 2", "n_levels = 5"), encoding="utf-8")
    with pytest.raises(ModelFileError, match="the parts make 25 states, at most 16"):
        load_structured(path)
