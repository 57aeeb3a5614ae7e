"""Parts of the comparison of dynamics that no verdict shows: curvature, joins, bleaching."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from pncbayes.inference.dynamics_checks import bleached_from, replicate
from pncbayes.inference.dynamics_group import level_draws
from pncbayes.inference.dynamics_hidden import joined_family
from pncbayes.inference.dynamics_point import DynamicsData, DynamicsPoint, Family
from pncbayes.inference.dynamics_posterior import DynamicsPosterior
from pncbayes.inference.dynamics_search import Optimum, evidence_at, seen_at
from pncbayes.physics.modelfile import load_model

MODEL = load_model("free")
WIDTH_S = 0.01


def place(family: Family, light: np.ndarray, rates: np.ndarray, levels: list[int]) -> Optimum:
    """A point of a family on counts of the levels given, 200 bins each."""
    rng = np.random.default_rng(1)
    share = np.array([0.5, 0.3, 0.2])
    rows = np.repeat(light[levels], 200)[:, None] * share * WIDTH_S
    counts = rng.poisson(rows).astype(float)
    data = DynamicsData(counts, WIDTH_S, np.zeros(3), share, concentration=300.0)
    n_levels = len(set(family.level_of)) or light.size
    posterior = DynamicsPosterior(data, MODEL, family, n_levels)
    vector = posterior.pack(DynamicsPoint(light[:, None] * share, rates, np.empty(0)))
    posterior.focus(vector)
    return seen_at(posterior, vector)


def test_the_curvature_of_the_prior_along_a_gate_is_its_own() -> None:
    rates = np.array([[0.0, 1.0], [2.0, 0.0]])
    one = evidence_at(place(Family(), np.array([8e3, 2e3]), rates, [0, 1, 0, 1]))
    assert one.prior_hessian is not None
    for gate in range(6):
        step = 1e-3 * np.eye(one.vector.size)[gate]
        ahead = one.posterior.log_prior(one.vector + step)[1][gate]
        behind = one.posterior.log_prior(one.vector - step)[1][gate]
        assert one.prior_hessian[gate] == pytest.approx(-(ahead - behind) / 2e-3, rel=0.1, abs=3.0)


def test_joined_states_are_left_as_often_as_they_were() -> None:
    rates = np.array([[0.0, 1.0, 2.0], [3.0, 0.0, 0.1], [5.0, 0.1, 0.0]])
    light = np.array([8e3, 2e3, 2e3])
    one = place(Family(level_of=(0, 1, 1)), light, rates, [0, 1, 0, 2])
    family, n_levels, point = joined_family(one)
    assert (family, n_levels) == (Family(), 2)
    assert point.signal_per_s.sum(axis=1) == pytest.approx([8e3, 2e3])
    assert point.transition_rate_per_s[0, 1] == pytest.approx(3.0)
    assert 3.0 < point.transition_rate_per_s[1, 0] < 5.0


def test_a_replicate_bleaches_when_the_dot_did() -> None:
    rates = np.array([[0.0, 1.0, 0.2], [2.0, 0.0, 0.2], [0.0, 0.0, 0.0]])
    light = np.array([8e3, 2e3, 1.0])
    one = place(Family(bleaching=True), light, rates, [0, 1, 0, 2, 2])
    end = bleached_from(one.posterior, one.vector)
    assert end == pytest.approx(600, abs=2)
    for seed in range(5):
        counts = replicate(
            one.posterior, one.vector, np.random.default_rng(seed), bleached_from=end
        )
        dark = counts.sum(axis=1) < 5
        assert dark[end:].all()
        assert dark[: end - 1].mean() < 0.05


def test_levels_one_of_which_is_never_left_are_not_drawn() -> None:
    rates = np.array([[0.0, 1.0, 0.2], [2.0, 0.0, 0.2], [0.0, 0.0, 0.0]])
    one = place(Family(bleaching=True), np.array([8e3, 2e3, 1.0]), rates, [0, 1, 0, 2, 2])
    found, draws = SimpleNamespace(best=one), [SimpleNamespace(n_states=3)]
    rng = np.random.default_rng(1)
    assert level_draws(cast(Any, found), cast(Any, draws), np.ones(3), rng) is None
