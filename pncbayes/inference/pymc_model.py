"""The posterior of a model as a `pymc.Model`: the same priors, the same likelihood, with names."""

# PyTensor is typed in part.
# mypy: allow-untyped-calls, allow-untyped-decorators
from __future__ import annotations

from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from numpy.typing import NDArray

from pncbayes.hmm.op import binned_log_likelihood, family_of, likelihood_data
from pncbayes.inference.levels import brightest_rate, exchangeable_rates, relative_levels
from pncbayes.inference.posterior import Parameters, Posterior
from pncbayes.physics.modelfile import LogNormal

__all__ = ["initial_point", "model_data", "model_of"]

_DATA_DIMS: dict[str, tuple[str, ...]] = {
    "counts": ("row", "gate"),
    "row_of_bin": ("bin",),
    "node": ("node_of_pair",),
    "node_weight": ("node_of_pair",),
}


def model_data(posterior: Posterior) -> dict[str, NDArray[Any]]:
    """Return the data of `model_of` by name, for `pymc.set_data` with those of another dot."""
    return likelihood_data(posterior.likelihood)


def model_of(
    posterior: Posterior, *, ordered: bool = True, start_rate_per_s: NDArray[Any] | None = None
) -> pm.Model:
    """Write a posterior as a PyMC model; `pncbayes.build` says what is in it.

    Parameters
    ----------
    posterior
        Data, priors and number of states.
    ordered
        States from bright to dim. The density is then K! times that of the posterior, which is
        spread over all orders.
    start_rate_per_s
        Rates that samplers start from, bright to dim, shape ``(n_states,)``; everything else, and
        these if they are not given, starts from the middle of the priors.
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
        rate = _rate(posterior, ordered, start_rate_per_s)
        gate_rate = rate[:, None]
        if n_gates > 1:
            # at the middle of the prior all gates are alike and the slopes along the base exactly
            # zero, which nutpie takes for an error; an initial value would do, but a model that
            # has any cannot be conditioned (`pymc.observe`)
            uneven = 1.0 + 1e-9 * np.linspace(-1.0, 1.0, n_gates)
            concentration = _log_normal("decay_concentration", spec.decay_concentration)
            base = pm.Dirichlet(
                "base_gate_probability",
                spec.decay_base_concentration * uneven,
                dims="gate",
            )
            shape = pm.Dirichlet("gate_probability", concentration * base, dims=("state", "gate"))
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


def decreasing(rate: NDArray[Any]) -> NDArray[Any]:
    """Rates from bright to dim as shares of the brightest, each a little below the one before."""
    # a value on the edge of its support has no logarithm
    shares = np.minimum.accumulate(rate / rate[0])
    lowered: NDArray[Any] = shares * (1.0 - 1e-9 * np.arange(rate.size))
    return lowered


def initial_point(model: pm.Model, parameters: Parameters) -> dict[str, Any]:
    """Values of the free variables of a model at physical parameters.

    Parameters
    ----------
    model
        As `pncbayes.inference.build.model_of` writes it.
    parameters
        The point; states from bright to dim if those of the model are.

    Returns
    -------
    dict
        Values by name, for `initvals` of `pymc.sample` or `nutpie.compile_pymc_model`.
    """
    rate, exits = parameters.rate_per_s, parameters.exit_rate_per_s
    n_states = parameters.n_states
    shape = np.maximum(parameters.gate_rate_per_s / rate[:, None], 1e-12)
    base = parameters.base_decay if parameters.base_decay is not None else shape.sum(axis=0)
    values = {
        "brightest_rate_per_s": rate[0],
        "relative_brightness": decreasing(rate)[1:],
        "rate_per_s": rate,
        "gate_probability": shape / shape.sum(axis=1, keepdims=True),
        "base_gate_probability": base / base.sum(),
        "decay_concentration": parameters.concentration,
        "exit_rate_per_s": exits,
        "excess_variance_ratio": parameters.excess,
    }
    if n_states > 2:
        off_diagonal = ~np.eye(n_states, dtype=bool)
        jumps = parameters.transition_rate_per_s[off_diagonal].reshape(n_states, n_states - 1)
        jumps = np.maximum(jumps / exits[:, None], 1e-12)
        values["jump_probability"] = jumps / jumps.sum(axis=1, keepdims=True)
    return {variable.name: values[variable.name] for variable in model.free_RVs}


def _log_normal(name: str, prior: LogNormal, **kwargs: Any) -> Any:
    return pm.LogNormal(name, np.log(prior.median), prior.sigma, **kwargs)


def _rate(posterior: Posterior, ordered: bool, start: NDArray[Any] | None) -> Any:
    """Counts per s of the states, shape ``(n_states,)``."""
    prior, n_states = posterior.model.brightest_rate_per_s, posterior.n_states
    if not ordered and n_states > 1:
        rate = exchangeable_rates(
            "rate_per_s", prior, n_states, posterior.repulsion, dims="state", start=start
        )
        pm.Deterministic("brightest_rate_per_s", pt.max(rate))
        return rate
    top_start, dimmer_start = None, None
    if start is not None:
        top_start, dimmer_start = float(start[0]), decreasing(start)[1:]
    top = brightest_rate("brightest_rate_per_s", prior, start=top_start)
    levels = pt.ones(1)
    if n_states > 1:
        dimmer = relative_levels(
            "relative_brightness",
            n_states - 1,
            posterior.repulsion,
            dims="dimmer_state",
            start=dimmer_start,
        )
        levels = pt.concatenate([levels, dimmer])
    return pm.Deterministic("rate_per_s", top * levels, dims="state")
