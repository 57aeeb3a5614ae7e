"""`pncbayes.build`: a model file and a trace as a `pymc.Model`, to change and sample as you like."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from numpy.typing import NDArray

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.hmm.op import binned_log_likelihood, family_of, likelihood_data
from pncbayes.inference.assemble import camera_numbers
from pncbayes.inference.grid import choose_grid
from pncbayes.inference.levels import exchangeable_rates, relative_levels
from pncbayes.inference.posterior import Posterior
from pncbayes.photons.binning import bin_photons, photons_of, rebin
from pncbayes.photons.formats import read
from pncbayes.photons.stream import Photons
from pncbayes.physics.modelfile import LogNormal, ModelFile, load_model

__all__ = ["build", "model_data", "model_of"]

_DATA_DIMS: dict[str, tuple[str, ...]] = {
    "counts": ("row", "gate"),
    "row_of_bin": ("bin",),
    "node": ("node_of_pair",),
    "node_weight": ("node_of_pair",),
    "pooled_gate_probability": ("gate",),
}


def build(
    data: Photons | xr.Dataset | str | os.PathLike[str],
    model: str | Path | ModelFile = "free",
    n_states: int | None = None,
    *,
    width_s: float | None = None,
    response: Any = None,
    excess_noise: bool = False,
    ordered: bool = True,
    random_seed: int | np.random.Generator | None = None,
) -> pm.Model:
    """Write a model with a given number of states as a PyMC model.

    Priors and likelihood are those of `pncbayes.fit`. Free variables, with named dimensions:

    ========================== ====================== ==========================================
    ``brightest_rate_per_s``                          counts per s of the brightest state, the
                                                      background included; log-normal
    ``relative_brightness``    dimmer_state           the others as shares of it, bright to dim;
                                                      uniform, without delays repelling each other
    ``gate_probability``       state, gate            decay of each state; Dirichlet around that
                                                      of all photons; with delays
    ``decay_concentration``                           its concentration; log-normal; with delays
    ``exit_rate_per_s``        state                  log-normal; from two states on
    ``jump_probability``       state, other_state     where an exit leads, the other states in
                                                      order; Dirichlet; from three states on
    ``excess_variance_ratio``  state                  log-normal; with excess noise
    ========================== ====================== ==========================================

    Deterministic are ``rate_per_s`` (state), ``gate_rate_per_s`` (state, gate) and
    ``transition_rate_per_s`` (state, to_state). The data are `pymc.Data` of the names that
    `model_data` gives. PyMC says that potentials are ignored in prior draws: the one here is the
    likelihood, and prior draws are to do without it.

    Parameters
    ----------
    data
        Photons, a trace, or the path of a file.
    model
        Name or path of a model file.
    n_states
        Number of states; 2, or the nearest that the model file allows, if not given.
    width_s
        Bin width of the likelihood in s; by the rule of `pncbayes.fit` if not given.
    response
        Instrument response, as in `pncbayes.bin_photons`; for photons only.
    excess_noise
        Give each state an excess variance ratio (negative binomial counts).
    ordered
        States from bright to dim. Otherwise ``rate_per_s`` is free, ``brightest_rate_per_s`` and
        ``relative_brightness`` are not, and states may pass each other: better where delays tell
        states of about equal brightness apart.
    random_seed
        Seed of the quick look that the rule for the bin width takes.

    Returns
    -------
    pymc.Model

    Raises
    ------
    ValueError
        If an argument is out of range.
    ModelFileError
        If the model file is not there or wrong.

    Examples
    --------
    >>> import pymc as pm
    >>> model = pnc.build(trace, n_states=2)  # doctest: +SKIP
    >>> draws = pm.sample(model=model)  # doctest: +SKIP

    What is known of the dot, as a prior or as a condition:

    >>> with model:  # doctest: +SKIP
    ...     pm.Potential("dim", pm.logp(pm.Normal.dist(400, 50), model["rate_per_s"][1]))
    >>> known = pm.observe(model, {"brightest_rate_per_s": 2.0e4})  # doctest: +SKIP
    """
    spec = load_model(model)
    fewest, most = spec.n_states
    number = min(max(2, fewest), most) if n_states is None else n_states
    if isinstance(number, bool) or not isinstance(number, int | np.integer):
        raise ValueError(f"`n_states` must be a whole number, got {n_states!r}")
    if not fewest <= number <= most:
        raise ValueError(
            f"`n_states` must be {fewest} to {most} in the model {spec.name!r}, got {n_states}; "
            "raise the limit in a copy of the model file"
        )
    if isinstance(data, str | os.PathLike):
        data = read(data)
    if isinstance(data, Photons):
        data = bin_photons(data, response=response)
    if not isinstance(data, xr.Dataset):
        raise ValueError(
            f"`data` must be Photons, a trace or the path of a file, got {type(data).__name__}"
        )
    counts, width = _counts(data, spec, width_s, np.random.default_rng(random_seed))
    likelihood = BinnedLikelihood(
        counts, width, excess_noise=excess_noise, camera=camera_numbers(data)
    )
    return model_of(Posterior(likelihood, spec, int(number)), ordered=ordered)


def _counts(
    trace: xr.Dataset, spec: ModelFile, width_s: float | None, rng: np.random.Generator
) -> tuple[NDArray[np.float64], float]:
    """Counts on the grid of the likelihood, and its width."""
    if width_s is None:
        grid = choose_grid(trace, spec, rng)
        return grid.counts, grid.width_s
    if not np.isclose(width_s, float(trace.attrs["width_s"]), rtol=1e-9):
        if trace.attrs["kind"] != "photons" or photons_of(trace) is None:
            raise ValueError(
                f"`width_s` is {width_s} s but the trace has bins of {trace.attrs['width_s']} s "
                "and no photons to bin anew; leave `width_s` out"
            )
        trace = rebin(trace, width_s)
    return np.asarray(trace["counts"].values, dtype=np.float64), float(width_s)


def model_data(posterior: Posterior) -> dict[str, NDArray[Any]]:
    """Return the data of `model_of` by name, for `pymc.set_data` with those of another dot."""
    data = likelihood_data(posterior.likelihood)
    if posterior.n_gates > 1:
        data["pooled_gate_probability"] = posterior.pooled
    return data


def model_of(posterior: Posterior, *, ordered: bool = True) -> pm.Model:
    """Write a posterior as a PyMC model; see `build`.

    With states in order the density is K! times that of the posterior, which is spread over all
    orders.
    """
    spec, n_states, n_gates = posterior.model, posterior.n_states, posterior.n_gates
    others = range(n_states - 1)
    coords = {
        "state": range(n_states), "to_state": range(n_states), "dimmer_state": range(1, n_states),
        "other_state": others, "gate": range(n_gates),
    }  # fmt: skip
    with pm.Model(coords=coords) as model:
        data = {
            name: pm.Data(name, values, dims=_DATA_DIMS.get(name))
            for name, values in model_data(posterior).items()
        }
        rate = _rate(posterior, ordered)
        gate_rate = rate[:, None]
        if n_gates > 1:
            concentration = _log_normal("decay_concentration", spec.decay_concentration)
            weight = concentration * data["pooled_gate_probability"]
            shape = pm.Dirichlet("gate_probability", weight, dims=("state", "gate"))
            gate_rate = rate[:, None] * shape
        gate_rate = pm.Deterministic("gate_rate_per_s", gate_rate, dims=("state", "gate"))
        transition_rate = pt.zeros((n_states, n_states))
        if n_states > 1:
            exits = _log_normal("exit_rate_per_s", spec.exit_rate_per_s, dims="state")
            flow = exits[:, None]
            if n_states > 2:
                flow = flow * pm.Dirichlet(
                    "jump_probability",
                    np.full(n_states - 1, spec.jump_concentration),
                    dims=("state", "other_state"),
                )
            off_diagonal = np.flatnonzero(~np.eye(n_states, dtype=bool))
            flat = pt.zeros(n_states**2)[off_diagonal].set(flow.ravel())
            transition_rate = flat.reshape((n_states, n_states))
        transition_rate = pm.Deterministic(
            "transition_rate_per_s", transition_rate, dims=("state", "to_state")
        )
        excess = None
        if posterior.has_excess:
            prior = spec.excess_variance_ratio
            excess = _log_normal("excess_variance_ratio", prior, dims="state")
        value = binned_log_likelihood(
            gate_rate,
            transition_rate,
            data,
            family=family_of(posterior.likelihood),
            excess=excess,
        )
        pm.Potential("log_likelihood", value)
    return model


def _log_normal(name: str, prior: LogNormal, **kwargs: Any) -> Any:
    return pm.LogNormal(name, np.log(prior.median), prior.sigma, **kwargs)


def _rate(posterior: Posterior, ordered: bool) -> Any:
    """Counts per s of the states, shape ``(n_states,)``."""
    prior, n_states = posterior.model.brightest_rate_per_s, posterior.n_states
    if ordered or n_states == 1:
        top = _log_normal("brightest_rate_per_s", prior)
        levels = pt.ones(1)
        if n_states > 1:
            dimmer = relative_levels(
                "relative_brightness", n_states - 1, posterior.repulsion, dims="dimmer_state"
            )
            levels = pt.concatenate([levels, dimmer])
        return pm.Deterministic("rate_per_s", top * levels, dims="state")
    rate = exchangeable_rates("rate_per_s", prior, n_states, posterior.repulsion, dims="state")
    pm.Deterministic("brightest_rate_per_s", pt.max(rate))
    return rate
