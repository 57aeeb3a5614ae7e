"""The facts of a recording."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pncbayes.photons.facts import photon_facts, sparkline
from pncbayes.photons.stream import Photons


def test_facts():
    rng = np.random.default_rng(5)
    times = np.sort(rng.integers(0, 10_000_000, 50_000))
    photons = Photons(
        times,
        1e-6,
        delay_ticks=rng.exponential(50, times.size).astype(np.int32),
        delay_tick_ns=0.1,
        period_ns=400.0,
        duration_s=10.0,
        marker_ticks=np.array([1, 2, 3]),
        marker_codes=np.array([1, 1, 4], np.uint8),
    )
    facts = photon_facts(photons)
    counts = np.bincount(times // 10_000, minlength=1000)
    found = facts["counts_per_10_ms"]
    assert found["mean"] == pytest.approx(50.0)
    assert found["fano_factor"] == pytest.approx(counts.var(ddof=1) / counts.mean())
    assert found["q50"] == pytest.approx(np.median(counts), abs=1)
    assert found["largest"] == counts.max()
    assert facts["markers_per_code"] == {1: 2, 4: 1}
    assert len(facts["decay_sparkline"]) == 48
    assert facts["decay_sparkline"][0] == "█"
    json.dumps(facts)


def test_facts_of_little():
    facts = photon_facts(Photons(np.array([5]), 1e-6))
    assert facts["counts_per_10_ms"] is None
    assert facts["decay_sparkline"] is None
    dark = photon_facts(Photons(np.array([5]), 1e-6, duration_s=86_400.0))
    assert dark["counts_per_10_ms"]["n_bins"] == 8_640_000
    assert sparkline(np.zeros(3)) == "▁▁▁"
    assert sparkline(np.array([0.0, 0.5, 1.0])) == "▁▄█"
