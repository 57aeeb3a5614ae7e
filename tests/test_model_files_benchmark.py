"""The benchmark of the structured model files says what it should of made-up answers."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import model_files
import structured_dots

from pncbayes.physics.simulate import StatePath
from pncbayes.physics.structured_file import load_structured


def test_priors_are_narrower_and_nothing_else_is_changed() -> None:
    shipped, narrow = load_structured("auger"), structured_dots.narrowed("auger")
    assert narrow.exciton["exciton_rate_per_s"] == structured_dots.NARROWER["exciton_rate_per_s"]
    assert narrow.exciton["quantum_yield"] == shipped.exciton["quantum_yield"]
    assert narrow.parts[0].priors["k_auger_per_ns"] == shipped.parts[0].priors["k_auger_per_ns"]
    assert narrow.parts[0].priors["k_trap_per_s"] == structured_dots.NARROWER["k_trap_per_s"]
    assert [v.n_states for v in narrow.variants()] == [v.n_states for v in shipped.variants()]


def test_photons_follow_path_and_gates() -> None:
    path = StatePath(np.array([0.0, 0.3]), np.array([1, 0]), 1.0, 2)
    gates = np.zeros((2, 24))
    gates[1, 5], gates[0, 20] = 30_000.0, 10_000.0
    photons = structured_dots.photons_along(path, gates, np.random.default_rng(1))
    early = photons.time_s < 0.3
    assert early.sum() == pytest.approx(9_000, rel=0.05)
    assert (~early).sum() == pytest.approx(7_000, rel=0.05)
    edges = structured_dots.gate_edges_ns()
    delay_ns = np.asarray(photons.delay_ticks) * structured_dots.DELAY_TICK_NS
    assert (np.digitize(delay_ns[early] + 1e-6, edges) == 6).all()
    assert (np.digitize(delay_ns[~early] + 1e-6, edges) == 21).all()


def test_a_dot_has_the_rates_of_its_coordinates() -> None:
    model = structured_dots.narrowed("steady")
    dot = structured_dots.draw_structured_dot(model, np.random.default_rng(3))
    expected = dot.posterior.rates(dot.z)[0].sum() * structured_dots.DURATION_S
    assert dot.posterior.counts.sum() == pytest.approx(expected, rel=0.02)
    assert dot.posterior.counts.shape == (3000, 24)
    assert dot.trace.attrs["response_source"] == "known"


def test_emitters_are_ranked_by_brightness_in_truth_and_draws() -> None:
    model = structured_dots.narrowed("two_emitters")
    dot = structured_dots.draw_structured_dot(model, np.random.default_rng(1), duration_s=0.1)
    posterior, z = dot.posterior, np.zeros((2, dot.posterior.size))
    first, second = (posterior.names.index(f"emitter_{e}_exciton_rate_per_s") for e in (1, 2))
    lifetime = posterior.names.index("emitter_1_exciton_lifetime_ns")
    z[0, first], z[1, second], z[:, lifetime] = 1.0, 1.0, 1.0
    values = model_files.by_brightness(posterior, z)
    assert not any(name.startswith("emitter_") for name in values)
    brighter, dimmer = values["brighter_exciton_rate_per_s"], values["dimmer_exciton_rate_per_s"]
    assert brighter[0] == brighter[1] > dimmer[0] == dimmer[1]
    long, short = values["brighter_exciton_lifetime_ns"], values["dimmer_exciton_lifetime_ns"]
    assert long[0] > short[0]
    assert long[1] < short[1]


def test_ranks_are_shares_of_draws_below_the_truth() -> None:
    model = structured_dots.narrowed("steady")
    dot = structured_dots.draw_structured_dot(model, np.random.default_rng(1), duration_s=0.1)
    size = dot.posterior.size
    draws = np.tile(np.linspace(-1.0, 1.0, 399)[:, None], (1, size))
    z = np.full(size, 0.5)
    rows = model_files.entries(dot.posterior, z, draws, np.random.default_rng(1))
    assert len(rows) == len(dot.posterior.names)
    for row in rows:
        assert row["rank"] == pytest.approx(0.75, abs=0.01)
        assert row["q05"] < row["truth"] < row["q95"]
    far = model_files.entries(dot.posterior, np.full(size, 2.0), draws, np.random.default_rng(1))
    assert all(row["rank"] > 0.99 and row["truth"] > row["q95"] for row in far)


def test_uniformity_fails_where_intervals_are_too_narrow_or_shifted() -> None:
    rng = np.random.default_rng(1)
    even = model_files.uniformity(rng.random(60))
    shifted = model_files.uniformity(rng.beta(3.0, 1.0, 60))
    narrow = model_files.uniformity(rng.beta(0.3, 0.3, 60))
    assert min(even) > 0.02
    assert shifted[0] < 1e-3
    assert narrow[1] < 1e-2


def recovery_rows(right: bool) -> pd.DataFrame:
    rows = []
    for number in range(30):
        chosen = number % 6
        probability = np.full(6, 0.01)
        probability[chosen] = 0.95
        true = model_files.MODELS[chosen if right else (chosen + 1) % 6]
        rows.append({"true": true, "probability": probability.tolist(), "seconds": 1.0})
    return pd.DataFrame(rows)


def test_recovery_fails_where_sure_answers_are_wrong() -> None:
    good = "\n".join(model_files.recovery_lines(recovery_rows(True)))
    bad = "\n".join(model_files.recovery_lines(recovery_rows(False)))
    assert "| right where P > 0.8 | 30 of 30 |" in good
    assert "FAIL" not in good
    assert "| right where P > 0.8 | 0 of 30 |" in bad
    assert bad.count("FAIL") == 2


def test_a_rank_cell_of_a_short_dot(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = structured_dots.draw_structured_dot
    monkeypatch.setattr(
        structured_dots, "draw_structured_dot", lambda model, rng: whole(model, rng, duration_s=2.0)
    )
    row = model_files.work(model_files.common.Task(0, "ranks_steady"))
    assert {entry["quantity"] for entry in row["entries"]} >= {"exciton_rate_per_s"}
    assert row["above_truth_nats"] > -1.0
    table = pd.DataFrame([{**row, "cell": "ranks_steady"}])
    lines = "\n".join([*model_files.ranks_lines("steady", table), *model_files.pooled_lines(table)])
    assert "within 1 nat of the one found from the truth, or above it, in 1 of 1" in lines
