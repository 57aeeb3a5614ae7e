"""Mechanisms of a dot, averaged over its number of states, and what follows of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import expit

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference.assemble import ordered_draws
from pncbayes.inference.collapsed import CollapsedPosterior, working_posterior
from pncbayes.inference.found_evidence import Evidence
from pncbayes.inference.gibbs import GibbsSampler, posterior_draws
from pncbayes.inference.labels import Labels, label_states
from pncbayes.inference.optimum import settle
from pncbayes.inference.posterior import Parameters
from pncbayes.inference.shared_kernels import (
    BRIGHT,
    LIFETIME,
    PAIR_POWER,
    PAIR_SHARE,
    SCATTER,
    SLACK,
    unpack,
)
from pncbayes.physics.exciton import Exciton
from pncbayes.physics.mechanism_kernels import AUGER, BACKGROUND, HOT_CARRIER, NBC, UNRESOLVED
from pncbayes.physics.mechanisms import (
    MECHANISMS,
    MechanismPriors,
    auger_rate_per_ns,
    charging_shares,
    radiative_scaling,
)
from pncbayes.physics.modelfile import ModelFile
from pncbayes.physics.tied_decay import decay_table
from pncbayes.physics.tied_kernels import extra_rate

__all__ = ["mechanisms_group"]

Array = NDArray[np.float64]

# Numbers of states less probable than this do not change the mechanisms of the dot.
_NEGLIGIBLE = 0.02
_N_DRAWS = 400


def mechanisms_group(
    evidences: list[Evidence],
    probability: Array,
    draws: list[Parameters],
    likelihood: BinnedLikelihood,
    trace: xr.Dataset,
    model: ModelFile,
    rng: np.random.Generator,
    on_step: Callable[[str], None],
    exciton: Exciton | None = None,
) -> xr.Dataset | None:
    """Probability of the mechanisms, and draws of what follows of them.

    Parameters
    ----------
    evidences, probability
        Of each number of states.
    draws
        Of the most probable number of states, in the order of the result.
    likelihood
        Holds the data.
    trace
        For the instrument and its background.
    model
        The priors.
    rng
        Source of the draws.
    on_step
        Told what comes next.
    exciton
        What is known of the neutral exciton.

    Returns
    -------
    xr.Dataset or None
        None where there are no delays, no response, or no Poisson counts.
    """
    if "response" not in trace or not np.isfinite(trace.attrs.get("period_ns", np.nan)):
        return None
    best = int(np.argmax(probability))
    posterior = working_posterior(likelihood, model, evidences[best].n_states)
    if not isinstance(posterior, CollapsedPosterior) or not GibbsSampler.can_sample(posterior):
        return None
    table = decay_table(trace)
    takes_part, total = np.zeros(len(MECHANISMS)), 0.0
    labels: Labels | None = None
    for k in np.argsort(-probability):
        if k != best and probability[k] < _NEGLIGIBLE:
            continue
        evidence = evidences[k]
        total += probability[k]
        if evidence.n_states == 1 and (exciton is None or exciton.rate_per_s is None):
            continue
        on_step(f"mechanisms, {evidence.n_states}")
        own = working_posterior(likelihood, model, evidence.n_states)
        mine = draws
        if k != best:
            settle(own, evidence.mode)
            point = own.unpack(evidence.mode.vector).ordered()
            mine = ordered_draws(posterior_draws(evidence, own, rng).draws, point)
        found = label_states(
            mine, GibbsSampler(own, rng), table, trace, rng, exciton=exciton, n_draws=_N_DRAWS
        )
        takes_part += probability[k] * found.takes_part
        if k == best:
            labels = found
    takes_part /= total
    n_states = evidences[best].n_states
    group = xr.Dataset(
        {"takes_part": ("mechanism", takes_part)},
        coords={"mechanism": list(MECHANISMS), "state": np.arange(n_states)},
    )
    if labels is None:
        group["probability"] = (("state", "mechanism"), np.zeros((1, len(MECHANISMS))))
        group["reference"] = ("state", np.ones(1))
        group["no_reference"] = 0.0
        return group
    occupancy = np.array([_occupancy(draws[path]) for path in labels.path])
    return group.assign(_consequences(labels, occupancy, model.mechanism, table.width_ns, rng))


def _occupancy(draw: Parameters) -> Array:
    """Share of the time in each state: of the path if it is known, else in the long run."""
    if draw.occupied_s is not None:
        return draw.occupied_s / draw.occupied_s.sum()
    rates = np.array(draw.transition_rate_per_s, dtype=np.float64)
    np.fill_diagonal(rates, 0.0)
    balance = np.vstack([rates.T - np.diag(rates.sum(axis=1)), np.ones(len(rates))])
    scale = np.append(np.full(len(rates), 1.0 / max(rates.max(), 1e-300)), 1.0)
    shares, *_ = np.linalg.lstsq(
        balance * scale[:, None], np.append(np.zeros(len(rates)), 1.0), rcond=None
    )
    shares = np.maximum(shares, 0.0)
    return np.asarray(shares / shares.sum())


def _consequences(
    labels: Labels,
    occupancy: Array,
    priors: MechanismPriors,
    width_ns: float,
    rng: np.random.Generator,
) -> dict[str, tuple[tuple[str, ...], Array]]:
    """Variables of the group, from the draws of mechanisms and places."""
    brightness, lifetime = np.exp(labels.log_brightness), np.exp(labels.log_lifetime)
    exciton_ns = np.exp(labels.shared[:, LIFETIME])
    is_label = {name: labels.label == number for number, name in enumerate(MECHANISMS)}
    log_r = labels.log_brightness - labels.log_lifetime
    scaling = radiative_scaling(log_r, np.exp(labels.shared[:, SLACK, None]), priors, rng)
    added = _added_rates(labels, lifetime)
    auger = auger_rate_per_ns(added, scaling, exciton_ns[:, None], priors, rng)
    centres = np.maximum(added, 0.0)
    charged = charging_shares(labels.log_brightness, labels.log_lifetime, priors.scaling_median)

    def only(name: str, values: Array) -> Array:
        return np.where(is_label[name], values, np.nan)

    f = np.where(labels.label == BACKGROUND, 0.0, np.where(labels.label < 0, 1.0, brightness))
    lost = occupancy * np.clip(1.0 - f, 0.0, None)
    by_mechanism = np.stack([(lost * is_label[name]).sum(axis=1) for name in MECHANISMS], axis=1)
    total = by_mechanism.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(total > 0.0, by_mechanism / total, np.nan)
    by_state, per_draw = ("sample", "state"), ("sample",)
    own_ns = lifetime * exciton_ns[:, None]
    added_light = _light_of_others(labels.shared, brightness) / brightness
    return {
        "probability": (("state", "mechanism"), labels.probability),
        "reference": (("state",), labels.reference),
        "no_reference": ((), np.array(labels.no_reference)),
        "reference_occupancy": ((), labels.occupancy[int(np.argmax(labels.reference))]),
        "broad_log_radiative_ratio_sd": (("state",), _of_known(np.std, labels.broad_log_r)),
        "lifetime_over_response": (("state",), _of_known(np.median, own_ns) / width_ns),
        "added_over_own_light": (("state",), _of_known(np.median, added_light)),
        "label": (by_state, labels.label.astype(np.float64)),
        "relative_brightness": (by_state, np.where(labels.label == UNRESOLVED, brightness, f)),
        "relative_lifetime": (by_state, np.where(labels.label == UNRESOLVED, np.nan, lifetime)),
        "exciton_lifetime_ns": (per_draw, exciton_ns),
        "exciton_rate_per_s": (per_draw, np.exp(labels.shared[:, BRIGHT])),
        "auger_rate_per_ns": (by_state, only(MECHANISMS[AUGER], auger)),
        "radiative_scaling": (by_state, only(MECHANISMS[AUGER], scaling)),
        "hot_carrier_yield": (by_state, only(MECHANISMS[HOT_CARRIER], brightness)),
        "centre_rate_per_ns": (by_state, only(MECHANISMS[NBC], centres)),
        "charged_share": (by_state, only(MECHANISMS[UNRESOLVED], charged)),
        "loss_share": (("sample", "mechanism"), share),
        "effective_paths": ((), np.array(labels.effective_paths)),
    }


def _added_rates(labels: Labels, lifetime: Array) -> Array:
    """Rate per ns by which each exponential of the exciton's decay is faster in a state.

    Of a decay of two exponentials it is less than the difference of the inverse mean lifetimes.
    """
    added = np.full(lifetime.shape, math.nan)
    amplitudes, rates = np.empty(2), np.empty(2)
    for draw, point in enumerate(labels.shared):
        unpack(point, amplitudes, rates)
        for state in np.flatnonzero(np.isfinite(lifetime[draw])):
            added[draw, state] = extra_rate(amplitudes, rates, lifetime[draw, state])
    return added


def _light_of_others(shared: Array, brightness: Array) -> Array:
    """Scatter and biexcitons in each state, over the signal of the exciton."""
    scatter = np.exp(shared[:, SCATTER, None] - shared[:, BRIGHT, None])
    power = expit(shared[:, PAIR_POWER, None])
    return np.asarray(scatter + np.exp(shared[:, PAIR_SHARE, None]) * brightness**power)


def _of_known(what: Callable[[Array], np.floating], values: Array) -> Array:
    """Something of each column, over what is finite; NaN where less than half is."""
    out = np.full(values.shape[1], math.nan)
    for column in range(values.shape[1]):
        known = values[np.isfinite(values[:, column]), column]
        if len(known) > len(values) / 2:
            out[column] = what(known)
    return out
