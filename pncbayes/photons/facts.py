"""What a recording holds, in numbers and a few characters, before anything is inferred."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pncbayes.photons.stream import Photons

__all__ = ["photon_facts", "sparkline"]

_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH_S = 0.01
_DECAY_CHARACTERS = 48


def photon_facts(photons: Photons) -> dict[str, Any]:
    """Facts of a recording, ready for JSON.

    Parameters
    ----------
    photons
        The recording.

    Returns
    -------
    dict
        ``path``, ``instrument``, ``record_type``, ``n_photons``, ``photons_per_detector``,
        ``duration_s``, ``mean_rate_per_s``, ``tick_s``, ``period_ns``, ``laser_rate_per_s``,
        ``delay_tick_ns``, ``delay_range_ns``, ``counts_per_10_ms`` (``mean``, ``sd``, quantiles,
        ``fano_factor``: variance over mean, 1 for steady light), ``decay_sparkline`` (logarithmic),
        ``n_markers``, ``markers_per_code``, ``digest``, ``warnings``. What is not known is None.
    """
    duration_s = float(photons.duration_s or 0.0)
    codes, n_of_code = np.unique(photons.marker_codes, return_counts=True)
    delays = photons.delay_ticks
    delay_range_ns = None
    if delays is not None and delays.size and photons.delay_tick_ns is not None:
        ends = (int(delays.min()), int(delays.max()))
        delay_range_ns = [end * photons.delay_tick_ns for end in ends]
    return {
        "path": photons.path,
        "instrument": photons.instrument,
        "record_type": photons.record_type,
        "n_photons": photons.n_photons,
        "photons_per_detector": photons.detectors,
        "duration_s": duration_s,
        "mean_rate_per_s": photons.n_photons / duration_s if duration_s > 0 else None,
        "tick_s": photons.tick_s,
        "period_ns": photons.period_ns,
        "laser_rate_per_s": 1e9 / photons.period_ns if photons.period_ns else None,
        "delay_tick_ns": photons.delay_tick_ns if delays is not None else None,
        "delay_range_ns": delay_range_ns,
        "counts_per_10_ms": _count_facts(photons, duration_s),
        "decay_sparkline": _decay_sparkline(photons),
        "n_markers": int(photons.marker_ticks.size),
        "markers_per_code": {int(c): int(n) for c, n in zip(codes, n_of_code, strict=True)},
        "digest": photons.digest,
        "warnings": list(photons.warnings),
    }


def _count_facts(photons: Photons, duration_s: float) -> dict[str, float] | None:
    """Moments and quantiles of the counts in whole bins of 10 ms; None with fewer than two."""
    n_bins = int(duration_s / _WIDTH_S * (1 + 1e-12))
    if n_bins < 2:
        return None
    ticks_per_bin = _WIDTH_S / photons.tick_s
    if ticks_per_bin > 1 and abs(ticks_per_bin / round(ticks_per_bin) - 1) < 1e-12:
        index = photons.time_ticks // round(ticks_per_bin)
    else:
        index = (photons.time_ticks / ticks_per_bin).astype(np.int64)
    # By value and not by bin: a long dark recording has more bins than memory.
    filled = np.unique(index[index < n_bins], return_counts=True)[1]
    bins_of_count = np.bincount(filled) if filled.size else np.zeros(1, np.int64)
    bins_of_count[0] = n_bins - filled.size
    value = np.arange(bins_of_count.size)
    mean = float(np.average(value, weights=bins_of_count))
    variance = float(np.average((value - mean) ** 2, weights=bins_of_count)) * n_bins / (n_bins - 1)
    cumulated = np.cumsum(bins_of_count) / n_bins
    quantiles = {
        f"q{round(100 * q):02d}": int(np.searchsorted(cumulated, q)) for q in (0.05, 0.25, 0.5)
    }
    quantiles |= {
        f"q{round(100 * q):02d}": int(np.searchsorted(cumulated, q)) for q in (0.75, 0.95)
    }
    return {
        "mean": mean,
        "sd": variance**0.5,
        **quantiles,
        "largest": int(value[-1]),
        "fano_factor": variance / mean if mean > 0 else float("nan"),
        "n_bins": n_bins,
    }


def _decay_sparkline(photons: Photons) -> str | None:
    """Histogram of the delays over the laser period, on a logarithmic scale."""
    delays = photons.delay_ticks
    if delays is None or not delays.size or photons.delay_tick_ns is None:
        return None
    end = float(delays.max()) + 1.0
    if photons.period_ns is not None:
        end = max(photons.period_ns / photons.delay_tick_ns, 1.0)
    counts, _ = np.histogram(delays % end, bins=_DECAY_CHARACTERS, range=(0.0, end))
    return sparkline(np.log1p(counts))


def sparkline(values: NDArray[np.float64]) -> str:
    """Draw numbers from 0, shape ``(n,)``, as a line of ``n`` block characters."""
    values = np.asarray(values, np.float64)
    top = float(values.max()) if values.size else 0.0
    if top <= 0:
        return _BLOCKS[0] * values.size
    level = np.clip(np.ceil(values / top * len(_BLOCKS)) - 1, 0, len(_BLOCKS) - 1)
    return "".join(_BLOCKS[int(step)] for step in level)
