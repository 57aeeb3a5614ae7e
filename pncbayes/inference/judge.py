"""What should keep a reader from believing a result, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pncbayes.inference.found_evidence import Evidence
from pncbayes.inference.grid import Grid
from pncbayes.inference.posterior import Parameters
from pncbayes.photons.spectrum import spectral_lines
from pncbayes.photons.stream import Photons

__all__ = ["Judgement", "alike_states", "dead_time_notes", "hum_notes", "judge", "sampler_failures"]

Array = NDArray[np.float64]

# States closer than this share of their brightness, and of their decay, may be one level.
_TWIN = 0.05
# Limits for chains, after Vehtari et al., doi:10.1214/20-BA1221.
_MOST_R_HAT = 1.01
_LEAST_ESS_OF_A_CHAIN = 100
# Four short chains cannot show less; fewer draws than these make no interval.
_MOST_R_HAT_OF_GIBBS = 1.1
_LEAST_ESS = 20
# Ratio of wanted to used nodes above which the likelihood loses tens of nats.
_NODES_TOO_FEW = 2.5
# Share of a frame below which the time without light collected matters.
_FULL_EXPOSURE = 0.9
_LOG_BAYES_FACTOR = 3.0


@dataclass(frozen=True)
class Judgement:
    """What was found when a fit was held against its own diagnostics.

    Attributes
    ----------
    failures
        Reasons not to trust the result.
    remarks
        What else a reader has to know.
    """

    failures: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    @property
    def texts(self) -> list[str]:
        """All of it, failures first."""
        return [*self.failures, *self.remarks]


def judge(
    evidences: list[Evidence],
    probability: Array,
    sensitivity: tuple[Array, Array],
    p_values: Mapping[str, float],
    grid: Grid,
    draws: list[Parameters],
    stats: Mapping[str, Any],
    nodes_too_few: float = 1.0,
    *,
    capped: bool = True,
) -> Judgement:
    """Hold a fit against its diagnostics.

    Parameters
    ----------
    evidences, probability
        Evidence and probability of each number of states.
    sensitivity
        Probabilities under wider and under narrower priors.
    p_values
        Predictive checks by name; NaN where a check could not be made.
    grid
        Data of the likelihood.
    draws
        Posterior draws of the most probable number of states, states in one order.
    stats
        What the sampler says of its draws.
    nodes_too_few
        Nodes wanted inside a bin over those used, of the likelihood.
    capped
        Whether the largest number of states is a limit, and not what another family asks for.

    Returns
    -------
    Judgement
    """
    best = int(np.argmax(probability))
    failures = _evidence_failures(evidences, probability, capped)
    failures += _check_failures(p_values)
    if any(int(np.argmax(other)) != best for other in sensitivity):
        failures.append(
            "the most probable number of states changes when the priors are made twice as wide "
            "or half as wide"
        )
    failures += sampler_failures(stats)
    failures += alike_states(draws)
    exits = np.median([draw.exit_rate_per_s for draw in draws], axis=0)
    fastest = float(exits.max()) * grid.width_s
    if evidences[best].n_states > 1 and (fastest > 0.5 or grid.loss_nats > 2.0):
        failures.append(
            f"switching is too fast for bins of {grid.width_s * 1e3:g} ms ({fastest:.2g} exits "
            "per bin): rates and the number of states may be off; use finer bins or the photons"
        )
    if evidences[best].n_states > 1 and nodes_too_few > _NODES_TOO_FEW:
        failures.append(
            f"bins of {grid.width_s * 1e3:g} ms hold so many counts that they tell when in a bin "
            "a switch happened, more finely than the likelihood resolves: states may be invented; "
            "use finer bins or the photons"
        )
    factor = stats.get("excess_noise_log_bayes_factor")
    if factor is None:
        return Judgement(tuple(failures))
    verdict = "ask for" if factor > _LOG_BAYES_FACTOR else "do not ask for"
    remark = f"the data {verdict} excess noise (log Bayes factor {factor:.1f})"
    return Judgement(tuple(failures), (remark,))


def _evidence_failures(evidences: list[Evidence], probability: Array, capped: bool) -> list[str]:
    notes = []
    for one, share in zip(evidences, probability, strict=True):
        if share > 0.02 and one.method == "rough":
            notes.append(
                f"evidence of {one.n_states} states is rough (Pareto k {one.pareto_k:.2f}, "
                f"{one.effective_draws:.0f} effective draws): P({one.n_states}) is uncertain"
            )
        apart = abs(one.laplace - one.log_evidence)
        if share > 0.05 and np.isfinite(apart) and apart > 1.0 + 3.0 * one.error:
            notes.append(
                f"the two evidence methods differ by {apart:.1f} nats at {one.n_states} states"
            )
    best = int(np.argmax(probability))
    number = evidences[best].n_states
    if capped and best == len(evidences) - 1 and number > 1:
        notes.append(
            f"the most states allowed ({number}) are the most probable: read it as {number} or "
            "more; a continuous change of brightness buys discrete states without end"
        )
    return notes


def _check_failures(p_values: Mapping[str, float]) -> list[str]:
    notes = []
    failed = [name.replace("_", " ") for name, p in p_values.items() if p < 0.02]
    if failed:
        notes.append(
            f"predictive check failed: {', '.join(failed)}. Data drawn from the model do not look "
            "like these; the number of states is that of the best such model, not of the dot"
        )
    missing = [name.replace("_", " ") for name, p in p_values.items() if np.isnan(p)]
    if missing:
        notes.append(
            f"predictive check not made: {', '.join(missing)}. It takes four bins or more, and "
            "counts in them; the trace does not say whether the model fits"
        )
    return notes


def sampler_failures(stats: Mapping[str, Any]) -> list[str]:
    """Say where the draws behind the intervals are not to be trusted.

    Parameters
    ----------
    stats
        ``sampler``, and the rest as `pncbayes.inference.nuts.sample_nuts` returns it; or
        ``draws_from``, ``ess`` and ``r_hat`` of `pncbayes.inference.gibbs.PosteriorDraws`.
    """
    if stats.get("sampler") != "nuts":
        return _draw_failures(stats)
    remedy = "compare the default sampler, or sample `pnc.build` for longer"
    notes = []
    # written so that NaN, as of a chain that never moved, fails too
    if not stats["r_hat"] <= _MOST_R_HAT:
        notes.append(
            f"the NUTS chains disagree (largest r_hat {stats['r_hat']:.3f}, at most {_MOST_R_HAT} "
            f"is allowed): intervals of states and rates are not to be trusted; {remedy}"
        )
    least = _LEAST_ESS_OF_A_CHAIN * stats["n_chains"]
    if not (stats["ess"] >= least and stats["ess_tail"] >= least):
        notes.append(
            f"NUTS gave too few independent draws ({stats['ess']:.0f} in the bulk and "
            f"{stats['ess_tail']:.0f} in the tails, at least {least} are needed): intervals of "
            f"states and rates are uncertain; {remedy}"
        )
    if stats["divergences"]:
        notes.append(
            f"NUTS diverged {stats['divergences']} times (never is allowed): part of the posterior "
            f"was not reached; {remedy}"
        )
    return notes


def _draw_failures(stats: Mapping[str, Any]) -> list[str]:
    remedy = 'compare sampler="nuts"'
    source = stats.get("draws_from")
    if source == "mode":
        return [
            "no posterior draws for the most probable number of states: its intervals are points; "
            + remedy
        ]
    if source == "importance" and stats["ess"] < _LEAST_ESS:
        return [
            f"intervals of states and rates rest on {stats['ess']:.0f} effective draws, at least "
            f"{_LEAST_ESS} are needed; {remedy}"
        ]
    if source == "gibbs" and not stats["r_hat"] <= _MOST_R_HAT_OF_GIBBS:
        return [
            f"the chains behind the intervals disagree (largest r_hat {stats['r_hat']:.2f}, at "
            f"most {_MOST_R_HAT_OF_GIBBS} is allowed): intervals of states and rates are uncertain"
            f"; {remedy}"
        ]
    return []


def alike_states(draws: list[Parameters]) -> list[str]:
    """Say which states differ in when the dot leaves them rather than in what they emit.

    Two states are alike if their brightnesses lie within 5 % in most draws, and their decays
    differ by less than 5 % in total variation.

    Parameters
    ----------
    draws
        Posterior draws, states in one order.
    """
    gates = np.stack([draw.gate_rate_per_s for draw in draws])
    # a state that no photon speaks for may be as dark as numbers go
    rate = np.maximum(gates.sum(axis=2), 1e-300)
    # over draws, the noise of single ones would make equal decays look different
    shape = np.median(gates / rate[:, :, None], axis=0)
    n_states = rate.shape[1]
    group = list(range(n_states))
    for i in range(n_states):
        for j in range(i + 1, n_states):
            apart = np.abs(rate[:, i] - rate[:, j]) / np.maximum(rate[:, i], rate[:, j])
            bent = 0.5 * np.abs(shape[i] - shape[j]).sum()
            if np.median(apart) < _TWIN and bent < _TWIN:
                group = [group[i] if one == group[j] else one for one in group]
    groups = [[k for k in range(n_states) if group[k] == first] for first in sorted(set(group))]
    alike = [
        f"{', '.join(str(k) for k in members[:-1])} and {members[-1]}"
        for members in groups
        if len(members) > 1
    ]
    if not alike:
        return []
    return [
        f"states {', and states '.join(alike)} emit alike: one level with dwell times that no "
        "single exit rate explains would look so, too"
    ]


def hum_notes(photons: Photons | None) -> list[str]:
    """Say whether the light is modulated at fixed frequencies; nothing without photons."""
    lines = spectral_lines(photons) if photons is not None else []
    if not lines:
        return []
    some = ", ".join(f"{line.frequency_hz:.0f} Hz (depth {line.depth:.2f})" for line in lines[:3])
    return [
        f"the light is modulated at {some}: most likely the instrument. The model does not know "
        "it and may buy states and fast switching to follow it"
    ]


def dead_time_notes(trace: xr.Dataset) -> list[str]:
    """Say whether frames of a camera collect light only part of the time."""
    width_s = float(trace.attrs["width_s"])
    exposure_s = float(trace.attrs.get("exposure_s", width_s))
    if exposure_s >= _FULL_EXPOSURE * width_s:
        return []
    return [
        f"frames collect light for {exposure_s:.4g} s of {width_s:.4g} s: switches in the dead "
        "part of a frame are treated as if seen, so fast switching is off; counts per s are per s "
        "of the whole frame"
    ]
