"""The photon-by-photon likelihood against closed forms, other integrators and stored numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import dblquad, quad, solve_ivp
from scipy.linalg import expm

from pncbayes.hmm import photon_by_photon as pbp
from pncbayes.hmm.photon_propagators import propagator

TICK_S = 1e-7


def some_photons(
    n_states: int, n_photons: int, *, n_gates: int = 4, seed: int = 0
) -> dict[str, Any]:
    """Arguments of `log_likelihood`: random photons and a random chain."""
    random = np.random.default_rng(seed)
    generator = random.uniform(5.0, 500.0, (n_states, n_states))
    np.fill_diagonal(generator, 0.0)
    times = np.cumsum(random.geometric(1 / 1_000, n_photons)) - 1
    return {
        "time_ticks": times,
        "tick_s": TICK_S,
        "gate": random.integers(0, n_gates, n_photons),
        "rate_per_s": np.geomspace(2e4, 5e2, n_states),
        "gate_probability": random.dirichlet(np.ones(n_gates), n_states),
        "generator_per_s": generator - np.diag(generator.sum(1)),
        "initial": random.dirichlet(np.ones(n_states)),
        "duration_s": (float(times[-1]) + 1234.5) * TICK_S if n_photons else 1e-3,
    }


def test_one_state_is_a_poisson_process() -> None:
    photons = some_photons(1, 300)
    rate, probability = photons["rate_per_s"][0], photons["gate_probability"][0]
    expected = (
        300 * np.log(rate)
        + np.log(probability[photons["gate"]]).sum()
        - rate * photons["duration_s"]
    )
    assert pbp.log_likelihood(**photons) == pytest.approx(expected, rel=1e-12)
    assert pbp.log_likelihood_reference(**photons) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n_states", [1, 2, 3, 5])
@pytest.mark.parametrize("n_photons", [0, 1, 400])
def test_numba_equals_reference(n_states: int, n_photons: int) -> None:
    photons = some_photons(n_states, n_photons, seed=n_states)
    assert pbp.log_likelihood(**photons) == pytest.approx(
        pbp.log_likelihood_reference(**photons), rel=1e-11, abs=1e-11
    )


def test_equals_integrated_differential_equation() -> None:
    photons = some_photons(3, 5, seed=7)
    decay = photons["generator_per_s"] - np.diag(photons["rate_per_s"])
    edges = np.concatenate([[0.0], photons["time_ticks"] * TICK_S, [photons["duration_s"]]])
    row = photons["initial"]
    for n in range(6):
        span = (0.0, edges[n + 1] - edges[n])
        solved = solve_ivp(
            lambda _, p: p @ decay, span, row, rtol=1e-12, atol=1e-16, method="DOP853"
        )
        row = solved.y[:, -1]
        if n < 5:
            row = row * photons["rate_per_s"] * photons["gate_probability"][:, photons["gate"][n]]
    assert pbp.log_likelihood(**photons) == pytest.approx(np.log(row.sum()), abs=1e-9)


def test_equals_sum_over_paths_by_quadrature() -> None:
    """Two states, a photon in the middle: paths of no, one and two switches, integrated."""
    rate, leave = np.array([3_000.0, 400.0]), np.array([8.0, 5.0])
    initial, duration_s, photon_tick = np.array([0.3, 0.7]), 1e-3, 4_000

    def weight(states: list[int], switches_s: list[float]) -> float:
        edges = [0.0, *switches_s, duration_s]
        log_weight = -sum(
            (rate[s] + leave[s]) * (b - a)
            for s, a, b in zip(states, edges[:-1], edges[1:], strict=True)
        )
        at_photon = states[int(np.searchsorted(switches_s, photon_tick * TICK_S))]
        before = float(np.prod([leave[s] for s in states[:-1]]))
        return float(initial[states[0]] * before * rate[at_photon] * np.exp(log_weight))

    middle_s = photon_tick * TICK_S
    total = 0.0
    for s in (0, 1):
        total += weight([s], [])
        for a, b in ((0.0, middle_s), (middle_s, duration_s)):
            total += quad(lambda u, s=s: weight([s, 1 - s], [u]), a, b)[0]
            total += dblquad(
                lambda v, u, s=s: weight([s, 1 - s, s], [u, v]), a, b, lambda u: u, lambda _, b=b: b
            )[0]
        total += dblquad(
            lambda v, u, s=s: weight([s, 1 - s, s], [u, v]), 0.0, middle_s, middle_s, duration_s
        )[0]
    generator = np.array([[-8.0, 8.0], [5.0, -5.0]])
    value = pbp.log_likelihood(
        [photon_tick], TICK_S, [0], rate, np.ones((2, 1)), generator, initial, duration_s
    )
    # paths of three switches and more weigh about (leave x duration)^3 / 6
    assert value == pytest.approx(np.log(total), abs=1e-6)


def test_does_not_depend_on_the_clock() -> None:
    """The same stream on a clock 100,000 times as fast: longer gaps, more digits."""
    coarse = some_photons(3, 300)
    fine = coarse | {"time_ticks": coarse["time_ticks"] * 100_000, "tick_s": TICK_S / 100_000}
    assert pbp.log_likelihood(**fine) == pytest.approx(pbp.log_likelihood(**coarse), rel=1e-12)


def test_long_dark_gap_neither_underflows_nor_loses_digits() -> None:
    """10 s of darkness: exp(-1e6) in the bright state, cut into pieces by the largest exponent."""
    arguments: dict[str, Any] = {
        "time_ticks": [10, 100_000_000],
        "tick_s": TICK_S,
        "gate": [0, 0],
        "rate_per_s": [1e5, 10.0],
        "gate_probability": np.ones((2, 1)),
        "initial": [0.5, 0.5],
        "duration_s": 10.5,
    }
    switching = arguments | {"generator_per_s": [[-3.0, 3.0], [2.0, -2.0]]}
    assert pbp.log_likelihood(**switching) == pytest.approx(
        pbp.log_likelihood_reference(**switching), rel=1e-9
    )
    check_gradient(switching, step=1e-5)
    never = arguments | {"generator_per_s": np.zeros((2, 2)), "initial": [1.0, 0.0]}
    assert pbp.log_likelihood(**never) == pytest.approx(2 * np.log(1e5) - 10.5e5, rel=1e-12)


def check_gradient(arguments: dict[str, Any], step: float = 1e-6) -> None:
    """Compare with central differences along directions that keep the arguments valid."""
    found = pbp.log_likelihood_and_gradient(**arguments)
    assert found.log_likelihood == pytest.approx(pbp.log_likelihood(**arguments), rel=1e-12)
    random = np.random.default_rng(3)
    for name in ("rate_per_s", "gate_probability", "generator_per_s", "initial"):
        value = np.asarray(arguments[name], np.float64)
        direction = value * random.normal(size=value.shape)
        if name == "generator_per_s":
            np.fill_diagonal(direction, 0.0)
            direction -= np.diag(direction.sum(1))
        elif name != "rate_per_s":
            direction -= value * direction.sum(-1, keepdims=True)
        up, down = (
            pbp.log_likelihood(**(arguments | {name: value + sign * step * direction}))
            for sign in (1.0, -1.0)
        )
        slope = float((getattr(found, name) * direction).sum())
        assert slope == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("n_states", [1, 2, 4])
def test_gradient_equals_differences(n_states: int) -> None:
    check_gradient(some_photons(n_states, 400, seed=n_states))


def test_gradient_holds_expected_switches_and_times() -> None:
    photons = some_photons(3, 400)
    found = pbp.log_likelihood_and_gradient(**photons)
    times_s = np.diag(found.generator_per_s)
    assert (times_s > 0).all()
    assert times_s.sum() == pytest.approx(photons["duration_s"], rel=1e-10)
    assert (photons["initial"] * found.initial).sum() == pytest.approx(1.0, rel=1e-10)


def test_state_probability_equals_forward_and_backward_reference() -> None:
    photons = some_photons(3, 60, seed=5)
    decay = photons["generator_per_s"] - np.diag(photons["rate_per_s"])
    edges = np.concatenate([[0.0], photons["time_ticks"] * TICK_S, [photons["duration_s"]]])
    moves = [expm(decay * gap) for gap in np.diff(edges)]
    weights = (photons["rate_per_s"][:, None] * photons["gate_probability"]).T[photons["gate"]]
    columns: list[NDArray[np.float64]] = [moves[-1].sum(1)]
    for move, weight in zip(moves[-2:0:-1], weights[:0:-1], strict=True):
        column = move @ (weight * columns[0])
        columns.insert(0, column / column.sum())
    row = photons["initial"]
    found = pbp.state_probability_at_photons(**photons)
    for n in range(60):
        row = row @ moves[n] * weights[n]
        row = row / row.sum()
        expected = row * columns[n] / (row @ columns[n])
        np.testing.assert_allclose(found[n], expected, rtol=1e-9)


def test_impossible_gate() -> None:
    photons = some_photons(2, 10, n_gates=2)
    photons["gate_probability"] = np.array([[1.0, 0.0], [1.0, 0.0]])
    photons["gate"] = np.ones(10, np.int64)
    assert pbp.log_likelihood(**photons) == -np.inf
    with pytest.raises(ValueError, match="likelihood is zero"):
        pbp.log_likelihood_and_gradient(**photons)


def test_propagator_keeps_the_digits_of_small_entries() -> None:
    """Three states in a row: the far corner is q^2 t^2 / 2 at first, here 1e-26."""
    decay = np.array([[-1.0, 1.0, 0.0], [0.0, -1.0, 1.0], [0.0, 0.0, 0.0]])
    time_s = 1e-13
    assert propagator(decay, time_s)[0, 2] == pytest.approx(time_s**2 / 2, rel=1e-12, abs=0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time_ticks": [3, 2, 4]}, "runs backwards at photon 1"),
        ({"time_ticks": [-3, 2, 4]}, "runs backwards at photon 0"),
        ({"time_ticks": [0.5, 2, 4]}, "must be integers"),
        ({"time_ticks": [1, 2]}, "has 2 photons but `gate` has 3"),
        ({"gate": [0, 1, 2]}, "`gate` must be 0 to 1, got 0 to 2"),
        ({"rate_per_s": [1.0, -1.0]}, "`rate_per_s` must be"),
        ({"rate_per_s": [1.0, np.nan]}, "`rate_per_s` must be"),
        ({"gate_probability": [[0.5, 0.4], [0.5, 0.5]]}, "must sum to 1"),
        ({"gate_probability": [[0.5, 0.5]]}, "must have shape"),
        (
            {"generator_per_s": [[-1.0, 1.0], [-1.0, 1.0]]},
            "`generator_per_s` must have no negative",
        ),
        ({"generator_per_s": [[-1.0, 2.0], [1.0, -1.0]]}, "rows that sum to 0"),
        ({"generator_per_s": [[0.0]]}, "2 x 2"),
        ({"initial": [0.5, 0.5, 0.0]}, "`initial` must have shape"),
        ({"initial": [1.5, -0.5]}, "none negative"),
        ({"tick_s": 0.0}, "`tick_s` must be a positive time"),
        ({"duration_s": 1e-8}, "`duration_s` is 1e-08"),
        ({"duration_s": np.nan}, "`duration_s` is nan"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "time_ticks": [1, 2, 4],
        "tick_s": TICK_S,
        "gate": [0, 1, 1],
        "rate_per_s": [2.0, 1.0],
        "gate_probability": [[0.5, 0.5], [0.1, 0.9]],
        "generator_per_s": [[-1.0, 1.0], [2.0, -2.0]],
        "initial": [0.5, 0.5],
        "duration_s": 1e-6,
    }
    assert np.isfinite(pbp.log_likelihood(**good))
    with pytest.raises(ValueError, match=message):
        pbp.log_likelihood(**(good | change))


def test_discrete_equals_reference_and_adds_over_bursts() -> None:
    photons = some_photons(3, 80, n_gates=2)
    transition = expm(photons["generator_per_s"] * TICK_S)
    times, marks = photons["time_ticks"], photons["gate"]
    rest = (transition, photons["gate_probability"], photons["initial"])
    first = pbp.log_likelihood_discrete_reference(times[:30], marks[:30], *rest)
    second = pbp.log_likelihood_discrete_reference(times[30:], marks[30:], *rest)
    assert pbp.log_likelihood_discrete(times, marks, *rest, burst_starts=[0, 30]) == pytest.approx(
        first + second, rel=1e-11
    )
    # a burst may start before the one that is listed before it
    swapped = np.concatenate([times[30:], times[:30]]), np.concatenate([marks[30:], marks[:30]])
    assert pbp.log_likelihood_discrete(*swapped, *rest, burst_starts=[0, 50]) == pytest.approx(
        first + second, rel=1e-11
    )
    for starts in ([1], [0, 30, 30], [], [0, 80]):
        with pytest.raises(ValueError, match="burst_starts"):
            pbp.log_likelihood_discrete(times, marks, *rest, burst_starts=starts)
    with pytest.raises(ValueError, match="runs backwards"):
        pbp.log_likelihood_discrete(*swapped, *rest)


def test_both_forms_agree_at_equal_rates() -> None:
    """With equal rates the photon times say nothing, and the forms differ by their density."""
    photons = some_photons(3, 500, n_gates=2)
    rate_per_s = 7_000.0
    generator, first = photons["generator_per_s"], int(photons["time_ticks"][0])
    whole = pbp.log_likelihood(**(photons | {"rate_per_s": np.full(3, rate_per_s)}))
    density = 500 * np.log(rate_per_s) - rate_per_s * photons["duration_s"]
    marks = pbp.log_likelihood_discrete(
        photons["time_ticks"],
        photons["gate"],
        expm(generator * TICK_S),
        photons["gate_probability"],
        photons["initial"] @ expm(generator * first * TICK_S),
    )
    assert whole - density == pytest.approx(marks, rel=1e-9)


@pytest.mark.shared_data
def test_discrete_equals_independent_h2mm(shared_data: Path) -> None:
    lines = (shared_data / "h2mm_oracle" / "sample_data_2det.txt").read_text().splitlines()
    times = [np.array(line.split(), np.int64) for line in lines[0::2]]
    detectors = [np.array(line.split(), np.int64) for line in lines[1::2]]
    assert len(times) == 4_468
    assert sum(map(len, times)) == 239_701
    value = pbp.log_likelihood_discrete(
        np.concatenate(times),
        np.concatenate(detectors),
        [
            [0.9999737418664758, 2.625804665859807e-05, 8.686559167312283e-11],
            [1.455229455234161e-05, 0.9999710726665848, 1.4375038862816684e-05],
            [1.116010035427578e-06, 1.027046989886763e-05, 0.9999886135200656],
        ],
        [
            [0.3071558474579712, 0.6928441525420288],
            [0.7830412996442393, 0.21695870035576065],
            [0.8905659789603505, 0.10943402103964951],
        ],
        [0.22722690429525869, 0.33564373290914923, 0.437129362795592],
        burst_starts=np.cumsum([0, *map(len, times[:-1])]),
    )
    assert value == pytest.approx(-120029.310451, abs=1e-6)
