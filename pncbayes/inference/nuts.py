"""NUTS on the model of one number of states, started from its mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from pncbayes.inference.found_evidence import Evidence
from pncbayes.inference.grid import Grid
from pncbayes.inference.optimum import settle
from pncbayes.inference.posterior import Parameters, Posterior
from pncbayes.inference.pymc_model import initial_point, model_of
from pncbayes.physics.modelfile import ModelFile

__all__ = ["parameters_of", "sample_nuts"]


def parameters_of(draws: xr.Dataset) -> list[Parameters]:
    """Physical parameters of posterior draws.

    Parameters
    ----------
    draws
        Group ``posterior`` of what a sampler returns for a model of `pncbayes.build`.

    Returns
    -------
    list of Parameters
        One for each draw of each chain.
    """
    stacked = draws.stack(sample=("chain", "draw")).transpose("sample", ...)
    gate_rate = stacked["gate_rate_per_s"].values
    transition_rate = stacked["transition_rate_per_s"].values
    n_draws = gate_rate.shape[0]

    def values_of(name: str, missing: Any) -> Any:
        return stacked[name].values if name in stacked else [missing] * n_draws

    concentration = values_of("decay_concentration", np.nan)
    excess = values_of("excess_variance_ratio", None)
    return [
        Parameters(gate_rate[n], transition_rate[n], float(concentration[n]), excess[n])
        for n in range(n_draws)
    ]


def sample_nuts(
    grid: Grid,
    trace: xr.Dataset,
    spec: ModelFile,
    posterior: Posterior,
    evidence: Evidence,
    rng: np.random.Generator,
    *,
    n_tune: int = 500,
    n_draws: int = 1000,
    n_chains: int = 4,
    n_kept: int = 400,
    progressbar: bool = True,
) -> tuple[list[Parameters], dict[str, Any]]:
    """Sample the posterior of one number of states by NUTS.

    Parameters
    ----------
    grid, trace, spec
        What the posterior was made of.
    posterior
        The posterior to sample.
    evidence
        Its mode, where all chains start: chains started elsewhere may find other modes, of other
        weight, and stay there.
    rng
        Source of the seed.
    n_tune, n_draws, n_chains
        Steps of adaptation and draws of each chain, and number of chains.
    n_kept
        Most draws to return, evenly spaced.
    progressbar
        Show progress.

    Returns
    -------
    draws : list of Parameters
        States in the order of the mode.
    stats : dict
        ``r_hat`` (largest), ``ess`` and ``ess_tail`` (smallest, of bulk and tails),
        ``divergences`` (after adaptation), ``n_chains``.

    References
    ----------
    .. [1] Vehtari, A. et al. Rank-normalization, folding, and localization: an improved R-hat.
       Bayesian Anal. 16, 667 (2021), doi:10.1214/20-BA1221.
    """
    import arviz as az
    import nutpie

    # where delays tell states apart, two of about equal brightness must be free to pass each other
    settle(posterior, evidence.mode)
    start = posterior.unpack(evidence.mode.vector).ordered()
    model = model_of(posterior, ordered=posterior.n_gates == 1)
    compiled = nutpie.compile_pymc_model(
        model, jitter_rvs=set(), initial_points=initial_point(model, start)
    )
    tree = nutpie.sample(
        compiled,
        draws=n_draws,
        tune=n_tune,
        chains=n_chains,
        seed=int(rng.integers(2**31)),
        # the gates of a decay are tied by their sum, and all but empty ones have long tails
        adaptation="low_rank",
        save_warmup=False,
        progress_bar=progressbar,
    )
    free = [variable.name for variable in model.free_RVs]
    draws = tree["posterior"].to_dataset()
    stats = {
        "r_hat": _extreme(az.rhat(draws, var_names=free), np.max),
        "ess": _extreme(az.ess(draws, var_names=free, method="bulk"), np.min),
        "ess_tail": _extreme(az.ess(draws, var_names=free, method="tail"), np.min),
        "divergences": int(tree["sample_stats"]["diverging"].sum()),
        "n_chains": n_chains,
    }
    every = max(1, -(-n_chains * n_draws // n_kept))
    return parameters_of(draws)[::every], stats


def _extreme(values: xr.Dataset, extreme: Callable[[Any], Any]) -> float:
    """Extreme of all elements of all variables; NaN if one is, as of a chain that never moved."""
    return float(extreme([extreme(one.values) for one in values.data_vars.values()]))
