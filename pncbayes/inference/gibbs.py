"""Posterior draws by Gibbs sampling: for where the draws of the importance sampler are too few.

One sweep draws the path and what happened inside the bins given the parameters, then the photons
of every state, and the parameters given those. Each step is exact or a Metropolis step for the
same posterior that the evidence integrates, and none gets harder with the number of gates. It
gives no evidence.

References
----------
.. [1] Scott, S. L. Bayesian methods for hidden Markov models. J. Am. Stat. Assoc. 97, 337 (2002),
   doi:10.1198/016214502753479464.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pncbayes.hmm import numba_kernels as kernels
from pncbayes.hmm.emission import PoissonEmission
from pncbayes.hmm.likelihood import FASTEST_PER_BIN
from pncbayes.hmm.sparse import Active, SparseColumns
from pncbayes.hmm.switching import switch_weights
from pncbayes.inference.collapsed import CollapsedPosterior
from pncbayes.inference.gibbs_kernels import attribute_photons, draw_levels, draw_rates
from pncbayes.inference.optimum import settle
from pncbayes.inference.posterior import Parameters, Posterior

if TYPE_CHECKING:
    from pncbayes.inference.found_evidence import Evidence

__all__ = ["N_CHAINS", "GibbsSampler", "PosteriorDraws", "posterior_draws", "run_chains"]

Array = NDArray[np.float64]

# Effective importance draws that make intervals by themselves.
_ENOUGH_DRAWS = 150.0
N_CHAINS = 4
_WARM_UP, _SWEEPS, _KEEP_EVERY = 60, 200, 2
# Sweeps of the warm-up after which bins that may hold a switch are looked for anew.
_REFOCUS = (0, 5, 15, 30, 59)


@dataclass(frozen=True)
class PosteriorDraws:
    """Equally weighted draws for one number of states.

    Attributes
    ----------
    draws
        The draws; states in any order.
    source
        ``"importance"``, ``"gibbs"`` or ``"mode"`` (copies of the best point: no uncertainty).
    effective
        Number of independent draws that they are worth.
    r_hat
        Largest of brightness and exit rates over the chains; NaN for other sources.
    """

    draws: list[Parameters]
    source: str
    effective: float
    r_hat: float = float("nan")


def posterior_draws(
    evidence: Evidence, posterior: Posterior, rng: np.random.Generator
) -> PosteriorDraws:
    """Draws for the number of states of an evidence: its own, or where they are few, by Gibbs.

    Parameters
    ----------
    evidence
        What `scan_n_states` found for the number of states.
    posterior
        The density of that number of states.
    rng
        Source of the draws.
    """
    if len(evidence.draws):
        draws = _unpacked(posterior, evidence.draws, rng)
    else:
        settle(posterior, evidence.mode)
        draws = [posterior.unpack(evidence.mode.vector)]
    few = evidence.method != "importance" or evidence.effective_draws < _ENOUGH_DRAWS
    if few and evidence.chains is not None:
        return evidence.chains
    if few and GibbsSampler.can_sample(posterior):
        return run_chains(posterior, draws, rng)
    if len(evidence.draws):
        return PosteriorDraws(draws, "importance", evidence.effective_draws)
    return PosteriorDraws(draws * (N_CHAINS * _SWEEPS // _KEEP_EVERY), "mode", 0.0)


def _unpacked(posterior: Posterior, vectors: Array, rng: np.random.Generator) -> list[Parameters]:
    if isinstance(posterior, CollapsedPosterior):
        return [posterior.unpack_draw(vector, rng) for vector in vectors]
    return [posterior.unpack(vector) for vector in vectors]


def run_chains(
    posterior: Posterior, starts: list[Parameters], rng: np.random.Generator
) -> PosteriorDraws:
    """Draws of four chains, one after the other, from points drawn among `starts`."""
    sampler = GibbsSampler(posterior, rng)
    chains = []
    for index in rng.integers(len(starts), size=N_CHAINS):
        point, kept = starts[index], []
        sampler.forget()
        for sweep in range(_WARM_UP + _SWEEPS):
            if sweep in _REFOCUS:
                sampler.focus(point)
            point = sampler.sweep(point)
            if sweep >= _WARM_UP and sweep % _KEEP_EVERY == 0:
                kept.append(point)
        chains.append(kept)
    r_hat, effective = _agreement(chains)
    return PosteriorDraws([draw for chain in chains for draw in chain], "gibbs", effective, r_hat)


def _agreement(chains: list[list[Parameters]]) -> tuple[float, float]:
    """Largest r_hat and fewest effective draws, over brightness and exits of states in order."""
    from arviz_stats.base.array import array_stats

    ordered = [[draw.ordered() for draw in chain] for chain in chains]
    columns = [np.log([[draw.rate_per_s for draw in chain] for chain in ordered])]
    if chains[0][0].n_states > 1:
        columns.append(np.log([[draw.exit_rate_per_s for draw in chain] for chain in ordered]))
    values = np.concatenate(columns, axis=2)
    hats, sizes = [], []
    for column in np.moveaxis(values, 2, 0):
        axes = {"chain_axis": 0, "draw_axis": 1}
        hats.append(float(array_stats.rhat(column, **axes)))  # type: ignore[no-untyped-call]
        sizes.append(float(array_stats.ess(column, **axes)))  # type: ignore[no-untyped-call]
    return float(np.max(hats)), float(np.min(sizes))


class GibbsSampler:
    """Gibbs sampler of the free parameters, for Poisson counts.

    Parameters
    ----------
    posterior
        The density; its likelihood holds the data.
    rng
        Source of the draws.

    """

    def __init__(self, posterior: Posterior, rng: np.random.Generator) -> None:
        if not self.can_sample(posterior):
            raise ValueError("the Gibbs sampler is for Poisson counts without excess noise")
        self.posterior, self.rng = posterior, rng
        self.likelihood = posterior.likelihood
        self._active: Active | None = None
        emission = self.likelihood.emission
        assert isinstance(emission, PoissonEmission)
        self._rows = np.ascontiguousarray(emission.counts)
        self._fastest = 0.9 * FASTEST_PER_BIN / self.likelihood.width_s

    @staticmethod
    def can_sample(posterior: Posterior) -> bool:
        """Whether the model is one whose photons can be given to states."""
        emission = posterior.likelihood.emission
        known = posterior.n_gates == 1 or isinstance(posterior, CollapsedPosterior)
        return isinstance(emission, PoissonEmission) and not emission.has_excess and known

    def forget(self) -> None:
        """Forget which bins may hold a switch."""
        self._active = None

    def focus(self, point: Parameters) -> None:
        """Look for bins that may hold a switch at a point, and keep those found before."""
        self._active = self.likelihood.active_rows(
            point.gate_rate_per_s, point.transition_rate_per_s, tolerance=0.01, besides=self._active
        )

    def sweep(self, point: Parameters) -> Parameters:
        """Return the parameters after one sweep, with the time that its path spends in states."""
        photons, time_s, n_stay, n_pair = self._attribute(point)
        posterior, model, rng = self.posterior, self.posterior.model, self.rng
        brightest, exits = model.brightest_rate_per_s, model.exit_rate_per_s
        rate = draw_levels(
            np.maximum(point.rate_per_s, 1e-290),
            photons.sum(axis=1),
            time_s,
            float(np.log(brightest.median)),
            brightest.sigma,
            posterior.repulsion,
            rng,
        )
        gate_rate, concentration, base = rate[:, None], float("nan"), None
        if isinstance(posterior, CollapsedPosterior):
            base = posterior.base if point.base_decay is None else point.base_decay
            base, concentration = posterior.decays.draw(photons, base, point.concentration, rng)
            weight = concentration * base + photons
            shape = np.maximum(rng.standard_gamma(weight), 1e-300)
            gate_rate = rate[:, None] * shape / shape.sum(axis=1, keepdims=True)
        rates = point.transition_rate_per_s
        if posterior.n_states > 1:
            likelihood = self.likelihood
            rates = draw_rates(
                np.maximum(rates, 1e-290),
                likelihood.width_s,
                likelihood.nodes,
                likelihood.node_weights,
                n_stay,
                n_pair,
                (float(np.log(exits.median)), exits.sigma, model.jump_concentration),
                self._fastest,
                rng,
            )
        return replace(
            point,
            gate_rate_per_s=gate_rate,
            transition_rate_per_s=rates,
            concentration=concentration,
            occupied_s=time_s,
            base_decay=base,
        )

    def path(self, point: Parameters) -> tuple[Array, Array]:
        """Seconds in each state, and switches out of it, of a path drawn at a point.

        Returns
        -------
        seconds, switches : ndarray
            Shape ``(n_states,)``.
        """
        _, seconds, jumped = self.complete(point)
        return seconds, jumped.sum(axis=1)

    def complete(self, point: Parameters) -> tuple[Array, Array, Array]:
        """Photons, seconds and switches of a path drawn at a point.

        Returns
        -------
        photons : ndarray
            Photons of each state and gate, shape ``(n_states, n_gates)``.
        seconds : ndarray
            Time in each state, shape ``(n_states,)``.
        switches : ndarray
            From each state to each, shape ``(n_states, n_states)``.
        """
        photons, seconds, _, n_pair = self._attribute(point)
        n_states = self.posterior.n_states
        switches = np.zeros((n_states, n_states))
        pairs = itertools.combinations(range(n_states), 2)
        for (i, j), kinds in zip(pairs, n_pair.sum(axis=2), strict=True):
            switches[i, j] = kinds[0] + kinds[2] + kinds[3]
            switches[j, i] = kinds[1] + kinds[2] + kinds[3]
        return photons, seconds, switches

    def _attribute(self, point: Parameters) -> tuple[Array, Array, Array, Array]:
        """Draw path and photons: per state and gate, time in s, and switches inside bins."""
        likelihood, n_states = self.likelihood, self.posterior.n_states
        rates = np.maximum(point.transition_rate_per_s, 0.0)
        stay, pair_weights = switch_weights(
            rates, likelihood.width_s, likelihood.nodes, likelihood.node_weights
        )
        if self._active is not None:
            sparse = SparseColumns(likelihood, point.gate_rate_per_s, None, self._active)
            matrices, pure = sparse.matrices(stay, pair_weights), sparse.pure
        else:
            matrices, columns, stay, pair_weights = likelihood._matrices(
                point.gate_rate_per_s, rates, None
            )
            pure = np.ascontiguousarray(columns[:, :n_states])
        initial = np.full(n_states, 1.0 / n_states)
        uniforms = self.rng.random(likelihood.n_bins + 1)
        try:
            path = kernels.sample_path(matrices, likelihood.row_of_bin, initial, uniforms)
        except ZeroDivisionError:
            if self._active is None:
                raise
            # a bin that takes a switch here was left out at the points looked at before
            self.focus(point)
            return self._attribute(point)
        photons, time_bins, n_stay, n_pair = attribute_photons(
            self._rows,
            likelihood.row_of_bin,
            path,
            pure,
            matrices,
            point.gate_rate_per_s * likelihood.width_s,
            stay,
            pair_weights,
            likelihood.nodes,
            self.rng,
        )
        return photons, time_bins * likelihood.width_s, n_stay, n_pair
