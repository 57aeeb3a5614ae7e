"""A structured hypothesis as a `pymc.Model` whose free variables are its named parameters."""

# PyTensor is typed in part.
# mypy: allow-untyped-calls, allow-untyped-decorators
from __future__ import annotations

from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from numpy.typing import NDArray

from pncbayes.hmm.op import binned_log_likelihood, family_of, likelihood_data
from pncbayes.inference.structured import StructuredPosterior
from pncbayes.physics.modelfile import LogNormal
from pncbayes.physics.structured_emission import gate_rate_per_s
from pncbayes.physics.structures import Normal, Prior, Uniform

__all__ = ["structured_model_of"]

_DATA_DIMS: dict[str, tuple[str, ...]] = {
    "counts": ("row", "gate"),
    "row_of_bin": ("bin",),
    "node": ("node_of_pair",),
    "node_weight": ("node_of_pair",),
}
_LEAST_RATE_PER_S = 1e-9


def structured_model_of(
    posterior: StructuredPosterior,
    *,
    scatter: bool = True,
    start: NDArray[Any] | None = None,
) -> pm.Model:
    """Write a structured hypothesis as a PyMC model; `pncbayes.build` says what is in it.

    Parameters
    ----------
    posterior
        Data, priors and hypothesis.
    scatter
        Let the decay of each state scatter around its shape.
    start
        Coordinates that samplers start from, shape ``(size,)``; the middle of the priors if not
        given.
    """
    model, n_gates = posterior.model, posterior.counts.shape[1]
    n_dim = len(model.levels) - 1
    coords: dict[str, Any] = {
        "state": model.state_names, "to_state": model.state_names, "gate": range(n_gates),
        "emitter": range(model.n_emitters), "dim_level": range(n_dim),
    }  # fmt: skip
    values_at_start = None if start is None else posterior.values(start)
    with pm.Model(coords=coords) as written:
        likelihood = posterior.plain_likelihood
        data = {
            name: pm.Data(name, values, dims=_DATA_DIMS.get(name))
            for name, values in likelihood_data(likelihood).items()
        }
        values: dict[str, Any] = {}
        for name, prior in posterior.priors.items():
            if name == "decay_concentration" and not scatter:
                continue
            at = None if values_at_start is None else float(values_at_start[name])
            values[name] = _variable(name, prior, at)
        deviation: Any = pt.zeros((model.n_emitters, 0))
        if n_dim:
            at_start = np.zeros((model.n_emitters, n_dim))
            if start is not None:
                at_start = posterior.deviations(start)
            deviation = _variable(
                "lifetime_deviation", Normal(0.0, 1.0), at_start, ("emitter", "dim_level")
            )
        gates = gate_rate_per_s(model, posterior.recorder, values, deviation, pt)
        gates = pt.maximum(gates, _LEAST_RATE_PER_S)
        total = pm.Deterministic("rate_per_s", gates.sum(axis=1), dims="state")
        if scatter:
            # of a Dirichlet density, as good as normal in the logarithm where it is narrow
            share = gates / total[:, None]
            offset = pm.Normal("decay_deviation", 0.0, 1.0, dims=("state", "gate"))
            worth = values["decay_concentration"] * share + 1.0
            bent = share * pt.exp(offset / pt.sqrt(worth) - 0.5 / worth)
            gates = total[:, None] * bent / bent.sum(axis=1, keepdims=True)
        gates = pm.Deterministic("gate_rate_per_s", gates, dims=("state", "gate"))
        moves = pm.Deterministic(
            "transition_rate_per_s",
            model.transition_rate_per_s(values, pt),
            dims=("state", "to_state"),
        )
        if "quantum_yield" in values:
            pm.Deterministic(
                "k_radiative_per_ns", values["quantum_yield"] / values["exciton_lifetime_ns"]
            )
        found = binned_log_likelihood(gates, moves, data, family=family_of(likelihood))
        pm.Potential("log_likelihood", found)
    return written


def _variable(name: str, prior: Prior, start: Any, dims: Any = None) -> Any:
    """Variable with a prior, from which samplers start where they are told to."""
    if isinstance(prior, LogNormal):
        law, first, second = pm.LogNormal, np.log(prior.median), prior.sigma
        middle, transform = prior.median, pm.distributions.transforms.log
    elif isinstance(prior, Uniform):
        law, first, second = pm.Uniform, prior.low, prior.high
        middle = 0.5 * (prior.low + prior.high)
        transform = pm.distributions.transforms.Interval(prior.low, prior.high)
    else:
        law, first, second, middle, transform = pm.Normal, prior.mean, prior.sd, prior.mean, None
    at = middle if start is None else start

    def place(rv: Any, size: Any, *parameters: Any) -> Any:
        return pt.as_tensor(at)

    # PyMC cannot condition a model that has initial values, so they hide in the distribution
    return pm.CustomDist(
        name,
        first,
        second,
        dist=lambda a, b, size: law.dist(a, b, size=size),
        support_point=place,
        class_name=f"{law.__name__}From",
        default_transform=transform,
        dims=dims,
    )
