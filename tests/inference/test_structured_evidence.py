"""Evidence and draws of structured hypotheses, against integrals worked out otherwise."""

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import structured_dots

from pncbayes.inference import structured_evidence as evidence
from pncbayes.inference import structured_search as search
from pncbayes.inference import walkers
from pncbayes.inference.alike import in_order
from pncbayes.inference.straight import Straight
from pncbayes.inference.structured import OWN, StructuredPosterior, coordinate_of, value_of
from pncbayes.inference.structured_assigned import Assigned
from pncbayes.inference.structured_compiled import CompiledPosterior
from pncbayes.inference.structured_search import find_structured_modes, mode_near
from pncbayes.inference.structured_starts import exchanged, levels_seen, smaller, starts
from pncbayes.inference.walkers import walk
from pncbayes.physics.modelfile import LogNormal
from pncbayes.physics.state_path import simulate_jumps
from pncbayes.physics.structured_kernels import layout_of
from pncbayes.physics.structures import Prior, Uniform


def posterior_of(name: str, n_states: int, **true: float) -> tuple[CompiledPosterior, np.ndarray]:
    """A dot of 10 s with named values of some parameters, the others in the middle."""
    models = structured_dots.narrowed(name).variants()
    model = next(model for model in models if model.n_states == n_states)
    recorder, own = structured_dots.instrument()
    prior = StructuredPosterior(model, np.zeros((1, 24)), 0.01, recorder, own)
    z = np.zeros(prior.size)
    for key, value in true.items():
        z[prior.names.index(key)] = coordinate_of(prior.priors[key], value)
    gates, rates, _ = prior.rates(z)
    path = simulate_jumps(rates, 10.0, initial_state=0, random_seed=1)
    rng = np.random.default_rng(2)
    counts = rng.poisson(path.occupancy_per_bin(0.01) @ gates * 0.01)
    return CompiledPosterior(StructuredPosterior(model, counts, 0.01, recorder, own)), z


@cache
def a_centre() -> tuple[CompiledPosterior, np.ndarray]:
    return posterior_of(
        "nbc", 2, exciton_rate_per_s=8e3, exciton_lifetime_ns=8.0, k_centre_per_ns=0.4,
        k_activate_per_s=3.0, k_deactivate_per_s=6.0,
    )  # fmt: skip


def known(prior: Prior) -> Prior:
    """A prior that leaves nothing open, at the middle of the one given."""
    if isinstance(prior, LogNormal):
        return LogNormal(prior.median, 1e-6)
    if isinstance(prior, Uniform):
        middle = 0.5 * (prior.low + prior.high)
        return Uniform(middle, middle + 1e-9)
    return type(prior)(prior.mean, 1e-9)


@pytest.mark.parametrize(
    "free", [("exciton_rate_per_s", "k_centre_per_ns"), ("k_centre_per_ns", "k_deactivate_per_s")]
)
def test_evidence_and_draws_are_those_of_a_brute_force_integral(free: tuple[str, str]) -> None:
    model = structured_dots.narrowed("nbc").variants()[0]
    recorder, own = structured_dots.instrument()
    posterior = StructuredPosterior(model, np.zeros((1, 24)), 0.02, recorder, own)
    posterior.priors |= {
        name: prior if name in free else known(prior)
        for name, prior in posterior.priors.items()
    }  # fmt: skip
    # a dim dot: which state a bin is in is far from sure
    posterior.priors["exciton_rate_per_s"] = LogNormal(600.0, 0.6 if free[0][0] == "e" else 1e-6)
    rng = np.random.default_rng(3)
    z = np.zeros(posterior.size)
    gates, rates, _ = posterior.rates(z)
    path = simulate_jumps(rates, 1.6, initial_state=0, random_seed=rng)
    counts = rng.poisson(path.occupancy_per_bin(0.02) @ gates * 0.02)
    priors = posterior.priors
    posterior = StructuredPosterior(model, counts, 0.02, recorder, own)
    posterior.priors |= priors
    # the lifetime of the dim state stays in its place
    posterior.model = type(model)(**{**vars(model), "slack": 1e-9})
    found = evidence.structured_evidence(posterior, np.random.default_rng(4))
    places = [posterior.names.index(name) for name in free]
    # all of the mass: seven standard deviations, and wider still where the draws were too narrow
    axes = [
        np.linspace(-7.0, 7.0, 41) * found.draws[:, place].std() + found.draws[:, place].mean()
        for place in places
    ]
    logs = np.empty((41, 41))
    for i, x in enumerate(axes[0]):
        for j, y in enumerate(axes[1]):
            z[places] = x, y
            logs[i, j] = evidence._value(posterior, z, posterior.first_photons(z))
    edge = np.concatenate([logs[0], logs[-1], logs[:, 0], logs[:, -1]])
    assert edge.max() < logs.max() - 12.0
    steps = np.prod([axis[1] - axis[0] for axis in axes])
    others = 0.5 * (posterior.size - 2) * np.log(2.0 * np.pi)
    expected = float(logsumexp(logs)) + np.log(steps) + others
    assert found.log_evidence == pytest.approx(expected, abs=0.15)
    assert found.error < 0.15
    weights = np.exp(logs - logsumexp(logs))
    for other, place, axis in ((1, places[0], axes[0]), (0, places[1], axes[1])):
        marginal = weights.sum(axis=other)
        mean = marginal @ axis
        sd = np.sqrt(marginal @ (axis - mean) ** 2)
        assert found.draws[:, place].mean() == pytest.approx(mean, abs=0.25 * sd)
        assert found.draws[:, place].std() == pytest.approx(sd, rel=0.2)


def test_walkers_find_mean_and_integral_of_a_curved_ridge() -> None:
    def log_density(points: np.ndarray) -> np.ndarray:
        x, y, *rest = points.T
        far = sum((one**2 for one in rest), np.zeros(len(points)))
        return -0.5 * (x**2 + (y - np.exp(0.7 * x)) ** 2 / 0.05**2 + far) + 3.0

    start = np.array([[0.0, 1.0, 0.0, 0.0]])
    found = walk(log_density, start, np.diag([1.0, 0.5, 1.0, 1.0]), 1500, np.random.default_rng(1))
    expected = 3.0 + 2.0 * np.log(2.0 * np.pi) + np.log(0.05)
    assert found.log_integral == pytest.approx(expected, abs=0.2)
    assert found.points[:, 0].mean() == pytest.approx(0.0, abs=0.2)
    assert found.points[:, 0].std() == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("size", [1, 3])
def test_walkers_do_not_step_where_the_density_is_nothing(size: int) -> None:
    def log_density(points: np.ndarray) -> np.ndarray:
        inside = (points[:, 0] > 0.0) & np.isfinite(points).all(axis=1)
        return np.where(inside, -0.5 * (points**2).sum(axis=1), -np.inf)

    found = walk(log_density, np.full((1, size), 0.5), np.eye(size), 600, np.random.default_rng(1))
    assert (found.points[:, 0] > 0.0).all()
    expected = 0.5 * size * np.log(2.0 * np.pi) - np.log(2.0)
    assert found.log_integral == pytest.approx(expected, abs=0.15)


def test_leaps_of_a_poor_mixture_leave_the_density_as_it_is(monkeypatch) -> None:
    # two modes, the smaller with a tenth; the mixture gives them a half each
    monkeypatch.setattr(walkers, "_LEAPS", 1.0)

    class Half(walkers._Mixture):
        def __init__(self, points: np.ndarray, rng: np.random.Generator) -> None:
            self._parts = [multivariate_normal([at], [[1.0]]) for at in (-4.0, 4.0)]
            self._shares, self._size, self._scale = np.array([0.5, 0.5]), 1, np.ones(1)

    monkeypatch.setattr(walkers, "_Mixture", Half)

    def log_density(points: np.ndarray) -> np.ndarray:
        modes = [np.log(share) - 0.5 * (points[:, 0] - at) ** 2
                 for share, at in ((0.1, -4.0), (0.9, 4.0))]  # fmt: skip
        return np.logaddexp(*modes)

    starts = np.array([[-4.0], [4.0]])
    found = walk(log_density, starts, np.eye(1), 3000, np.random.default_rng(1))
    assert (found.points[:, 0] < 0.0).mean() == pytest.approx(0.1, abs=0.01)


def test_walkers_know_what_is_narrow_beside_what_is_wide() -> None:
    sd = np.array([1.0, 1e-5, 1e3])

    def log_density(points: np.ndarray) -> np.ndarray:
        return -0.5 * ((points / sd) ** 2).sum(axis=1)

    found = walk(log_density, np.zeros((1, 3)), np.diag(sd**2), 300, np.random.default_rng(1))
    expected = 1.5 * np.log(2.0 * np.pi) + np.log(sd).sum()
    assert found.log_integral == pytest.approx(expected, abs=0.1)
    np.testing.assert_allclose(found.points.std(axis=0), sd, rtol=0.1)


def test_rates_of_switching_are_drawn_where_they_are() -> None:
    posterior, z = a_centre()
    bound = posterior.settled(z)
    assigned = Assigned(posterior, z, bound)
    for n in (30.0, 3e3, 6e4):
        assigned.n_switches[:], assigned.exposed_s[:] = n, n / 3.0
        assigned._tabulate()
        prior = posterior.priors[posterior.names[assigned.of_rates[0]]]
        rates = value_of(prior, assigned.draw_rates(20_000, np.random.default_rng(1)))
        if n > 100.0:
            # the prior says next to nothing
            assert rates[:, 0].mean() == pytest.approx(3.0, abs=0.05 * 3.0 / np.sqrt(n))
            assert rates[:, 0].std() == pytest.approx(3.0 / np.sqrt(n), rel=0.05)
        grid = np.linspace(-7.0, 7.0, 400_001)
        own = n * np.log(value_of(prior, grid))
        own -= n / 3.0 * value_of(prior, grid) + 0.5 * grid**2
        integral = logsumexp(own) + np.log(grid[1] - grid[0])
        table = assigned._tables[0]
        assert logsumexp(table[1]) + np.log(np.diff(table[0])[0]) == pytest.approx(
            integral, abs=1e-3
        )


def test_laplace_sees_no_edge_where_emitters_are_as_bright() -> None:
    posterior, z = posterior_of("two_emitters", 4)
    assigned = Assigned(posterior, z, posterior.settled(z))
    covariance, _ = assigned.curvature()
    assert np.sqrt(np.diag(covariance)).min() > 1e-4


@pytest.mark.parametrize("exchanged_parts", [False, True])
def test_parts_that_are_alike_count_once(exchanged_parts: bool) -> None:
    (model,) = structured_dots.narrowed("nbc").variants()[:1]
    one = model.parts[0]
    parts = (replace(one, name="a"), replace(one, name="b"))
    model = replace(model, parts=parts)
    assert model.n_alike == 2
    recorder, own = structured_dots.instrument()
    posterior = CompiledPosterior(
        StructuredPosterior(model, np.zeros((1, 24)), 1e-9, recorder, own)
    )
    # in order, or not: the point is the same
    z = 0.1 * np.random.default_rng(1).standard_normal(posterior.size)
    places = [posterior.names.index(f"{name}_k_centre_per_ns") for name in "ab"]
    z[places] = (-0.5, 0.5) if exchanged_parts else (0.5, -0.5)
    photons = np.arange(4.0)[:, None] * np.ones(24)
    ordered, moved = in_order(posterior, z, photons)
    assert ordered[places[0]] > ordered[places[1]]
    gates, rates, _ = posterior.rates(z)
    order = (moved[:, 0]).astype(int)
    assert (order.tolist() != [0, 1, 2, 3]) == exchanged_parts
    np.testing.assert_allclose(posterior.rates(ordered)[0], gates[order])
    np.testing.assert_allclose(posterior.rates(ordered)[1], rates[np.ix_(order, order)])
    # without light the likelihood is one, and so is the evidence
    assigned = Assigned(posterior, ordered, posterior.settled(ordered))
    found = walk(
        lambda own: assigned.light(assigned.from_straight(own)),
        assigned.to_straight(ordered[None]), assigned.curvature()[0], 1500,
        np.random.default_rng(2),
    )  # fmt: skip
    total = found.log_integral + assigned.log_integral_of_rates + np.log(model.n_alike)
    assert total == pytest.approx(0.0, abs=0.2)


def test_the_assigned_density_follows_the_bound() -> None:
    posterior, z = a_centre()
    z, bound = mode_near(posterior, z, np.random.default_rng(1))
    assigned = Assigned(posterior, z, bound)
    assigned.weaken()
    assert assigned.value(z[None])[0] == pytest.approx(bound.value, abs=1e-6)
    assert assigned.n_switches.sum() == pytest.approx(40, abs=15)
    assert assigned.exposed_s.sum() == pytest.approx(10.0, abs=1e-6)
    rng = np.random.default_rng(2)
    own = assigned.to_straight(z[None])
    covariance, _ = assigned.curvature()
    nearby = own + rng.multivariate_normal(np.zeros(own.size), covariance, size=30)
    points = assigned.from_straight(nearby)
    points[:, assigned.of_rates] = assigned.draw_rates(30, rng)
    full = [evidence._value(posterior, point, bound.photons) for point in points]
    apart = np.array(full) - assigned.value(points)
    assert np.ptp(full) > 10.0
    assert np.quantile(np.abs(apart), 0.8) < 0.5


def test_straight_coordinates_keep_volumes_and_can_be_undone() -> None:
    rng = np.random.default_rng(1)
    for name, n_states in (("nbc", 2), ("mixed", 4), ("two_emitters", 4)):
        posterior, z = posterior_of(name, n_states)
        layout = layout_of(posterior.model, posterior.recorder, posterior.names, posterior.priors)
        every = np.arange(len(posterior.names))
        straight = Straight(posterior, layout, z, np.arange(n_states, 0.0, -1.0), every)
        np.testing.assert_allclose(straight.bent(z[None])[0], z, atol=1e-12)
        points = z + 0.5 * rng.standard_normal((20, z.size))
        bent = straight.bent(points)
        assert np.abs(bent - points).max() > 0.05
        np.testing.assert_allclose(straight.unbent(bent), points, atol=1e-9)
        steps = 1e-5 * np.eye(z.size)
        jacobian = straight.bent(points[0] + steps) - straight.bent(points[0] - steps)
        assert np.linalg.det(jacobian / 2e-5) == pytest.approx(1.0, abs=1e-4)


def test_two_emitters_share_what_they_add_up_to_in_straight_coordinates() -> None:
    # levels A + B, a + B, A + b: how they are split between the two, they do not say
    posterior, z = posterior_of("two_emitters", 4)
    layout = layout_of(posterior.model, posterior.recorder, posterior.names, posterior.priors)
    seconds = np.full(4, 10.0)
    light = [n for n, name in enumerate(posterior.names) if name.startswith("emitter_")]
    straight = Straight(posterior, layout, z, seconds, np.array(light))
    rates = [posterior.names.index(f"emitter_{e}_exciton_rate_per_s") for e in (1, 2)]
    (free,) = set(rates) - set(straight.shifted.tolist())
    moved = z.copy()
    moved[free] += 0.1
    before, plain, kept = (
        posterior.rates(point)[0].sum(axis=1) for point in (z, moved, straight.bent(moved[None])[0])
    )
    assert np.abs(plain / before - 1.0).max() > 0.01
    np.testing.assert_allclose(kept, before, rtol=1e-4)


def test_the_order_of_emitters_changes_nothing_but_names() -> None:
    posterior, _ = posterior_of("two_emitters", 4)
    rng = np.random.default_rng(1)
    z = 0.3 * rng.standard_normal(posterior.size)
    first, second = (posterior.names.index(f"emitter_{e}_exciton_rate_per_s") for e in (1, 2))
    z[first], z[second] = -1.0, 1.0
    ordered = in_order(posterior, z)[0]
    assert ordered[first] > ordered[second]
    np.testing.assert_array_equal(in_order(posterior, ordered)[0], ordered)
    values = [posterior.settled(point).value for point in (z, ordered)]
    assert values[0] == pytest.approx(values[1], abs=1e-6)
    assigned = Assigned(posterior, ordered, posterior.settled(ordered))
    assert np.isfinite(assigned.light(ordered[None])[0])
    assert np.isneginf(assigned.light(z[None])[0])


def test_an_exciton_that_is_hardly_ever_seen_is_found() -> None:
    # both traps are open most of the time: all levels that are often seen are dim ones
    posterior, z = posterior_of(
        "hot_carrier", 3, exciton_rate_per_s=8e3, k_trap_per_s=15.0, k_detrap_per_s=2.0,
        hot_carrier_yield=0.4,
    )  # fmt: skip
    rng = np.random.default_rng(1)
    _, from_truth = mode_near(posterior, z, rng)
    best, bound = find_structured_modes(posterior, rng)[0]
    assert bound.value > from_truth.value - 1.0
    assert posterior.values(best)["hot_carrier_yield"] == pytest.approx(0.4, abs=0.1)


def test_levels_and_starts_come_from_the_counts() -> None:
    posterior, _ = a_centre()
    rng = np.random.default_rng(1)
    levels = levels_seen(posterior, rng)
    rates = posterior.rates(a_centre()[1])[0].sum(axis=1)
    np.testing.assert_allclose(levels.rate_per_s, rates, rtol=0.1)
    assert levels.lifetime_ns[0] > 1.5 * levels.lifetime_ns[1]
    seen, unseen, drawn = starts(posterior, levels, 50, rng)
    assert seen.shape == unseen.shape == drawn.shape == (50, posterior.size)
    totals = np.array([posterior.rates(z)[0].sum(axis=1) for z in seen])
    assert (np.abs(np.log(totals / rates)).max(axis=1) < 0.5).mean() > 0.15
    exciton = posterior.values(unseen)["exciton_rate_per_s"]
    assert np.median(exciton) > 1.3 * np.median(posterior.values(seen)["exciton_rate_per_s"])


def test_a_smaller_recording_keeps_photons_where_bins_are_narrow() -> None:
    posterior, _ = a_centre()
    assert smaller(posterior) is posterior
    counts = np.tile(posterior.counts, (12, 1))
    fine = StructuredPosterior(
        posterior.model, counts, 0.001, posterior.recorder,
        {k: posterior.priors[k] for k in OWN},
    )  # fmt: skip
    less = smaller(CompiledPosterior(fine))
    assert less.width_s == pytest.approx(0.004)
    assert less.counts.sum() == counts.sum()


@pytest.mark.parametrize("name", ["auger", "nbc", "two_emitters"])
def test_the_compiled_posterior_is_the_given_one(name: str) -> None:
    model = structured_dots.narrowed(name).variants()[-1]
    recorder, own = structured_dots.instrument()
    counts = np.random.default_rng(1).poisson(2.0, size=(30, 24))
    given = StructuredPosterior(model, counts, 0.01, recorder, own)
    compiled = CompiledPosterior(given)
    for z in np.random.default_rng(2).standard_normal((5, given.size)):
        for one, other in zip(given.rates(z), compiled.rates(z), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9)
        one, other = given.settled(z), compiled.settled(z)
        assert one.value == pytest.approx(other.value, abs=1e-6)
        np.testing.assert_allclose(one.slope, other.slope, rtol=1e-4, atol=1e-3)


def test_levels_of_one_brightness_change_places() -> None:
    posterior, _ = posterior_of("two_emitters", 4)
    names, z = posterior.names, np.zeros(posterior.size)
    for emitter, brightness in ((1, 2.0), (2, -2.0)):
        z[names.index(f"emitter_{emitter}_relative_brightness")] = brightness
        z[names.index(f"emitter_{emitter}_relative_lifetime")] = 0.5
        z[names.index(f"emitter_{emitter}_k_trap_per_s")] = 0.7
    before = posterior.values(z)
    (turned,) = (posterior.values(point) for point in exchanged(posterior, z))
    shares = [before[f"emitter_1_relative_{key}"] for key in ("brightness", "lifetime")]
    for key, factor in zip(("rate_per_s", "lifetime_ns"), shares, strict=True):
        name = f"emitter_1_exciton_{key}"
        assert turned[name] == pytest.approx(before[name] * factor)
    assert turned["emitter_1_relative_lifetime"] == pytest.approx(1.0 / shares[1])
    assert turned["emitter_1_k_trap_per_s"] == pytest.approx(before["emitter_1_k_detrap_per_s"])
    assert turned["emitter_1_k_detrap_per_s"] == pytest.approx(before["emitter_1_k_trap_per_s"])
    # a level of another brightness stays
    assert turned["emitter_2_k_trap_per_s"] == pytest.approx(before["emitter_2_k_trap_per_s"])


def test_photons_of_states_of_one_brightness_are_changed_over() -> None:
    posterior, _ = posterior_of("two_emitters", 4)
    z = np.zeros(posterior.size)
    # two emitters that are alike: either one alone is as bright
    photons = np.arange(4.0)[:, None] * np.ones((1, posterior.counts.shape[1]))
    found = search._relabelled(posterior, z, photons)
    assert [own[:, 0].tolist() for own in found] == [[0.0, 2.0, 1.0, 3.0]]
