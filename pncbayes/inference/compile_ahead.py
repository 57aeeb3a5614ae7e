"""Compile, in a process of its own, what a fit needs last, while the fit compiles what comes first.

    python -m pncbayes.inference.compile_ahead

Compiled code is kept on disk: only the first fit on a machine takes long, and on two cores this
takes a good part off it. Nothing depends on it: a fit compiles what it does not find.
"""

from __future__ import annotations

import warnings

import numpy as np

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference.labels import compile_labels
from pncbayes.photons.binning import bin_photons
from pncbayes.photons.stream import Photons
from pncbayes.physics.lifetime import lifetime_fitter
from pncbayes.physics.modelfile import load_model
from pncbayes.physics.tied_decay import decay_table

__all__ = ["compile_last_steps"]

_N_PHOTONS = 20_000
_TICK_S, _PERIOD_TICKS, _TICK_NS = 1e-7, 1000, 0.1


def compile_last_steps() -> None:
    """Fit lifetimes of random photons, draw a path and mechanisms: for the compiled code left."""
    rng = np.random.default_rng(1)
    delay = 50 + np.minimum(rng.exponential(200.0, _N_PHOTONS), _PERIOD_TICKS - 51)
    photons = Photons(
        np.sort(rng.integers(10_000_000, size=_N_PHOTONS)),
        _TICK_S,
        delay_ticks=delay.astype(np.int32),
        delay_tick_ns=_TICK_NS,
        period_ns=_PERIOD_TICKS * _TICK_NS,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace = bin_photons(photons, 0.01)
        counts = np.asarray(trace["counts"].values, dtype=np.float64)
        total = counts.sum(axis=0)[None].repeat(2, axis=0)
        # as the draws of a fit have it: one background each
        lifetime_fitter(trace).fit(
            total, background_counts=np.ones(2), background_counts_sd=np.ones(2)
        )
    likelihood = BinnedLikelihood(counts[:100], 0.01)
    gate_rate = np.outer([1.0, 0.5], total[0] + 1.0)
    rates = np.array([[0.0, 1.0], [1.0, 0.0]])
    likelihood.smooth(gate_rate, rates)
    likelihood.sample_paths(gate_rate, rates, random_seed=rng)
    compile_labels(decay_table(trace), trace, load_model("free"), rng)


if __name__ == "__main__":
    compile_last_steps()
