"""`pncbayes.fit`: from photons or a trace to the number of states, their properties and rates."""

from __future__ import annotations

import dataclasses
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pncbayes.errors import DiagnosticError
from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference.arguments import (
    check_exciton,
    check_exposure,
    check_flags,
    check_whole_number,
    check_width,
    random_generator,
)
from pncbayes.inference.assemble import (
    camera_numbers,
    evidence_group,
    ordered_draws,
    posterior_group,
    states_group,
)
from pncbayes.inference.checks import predictive_checks
from pncbayes.inference.collapsed import working_posterior
from pncbayes.inference.dynamics import Dynamics
from pncbayes.inference.dynamics_group import (
    dynamics_group,
    level_draws,
    level_probability,
    numbers_worth_a_scan,
)
from pncbayes.inference.find_dynamics import correct_instrument, dynamics_of_trace
from pncbayes.inference.found_evidence import Evidence
from pncbayes.inference.gibbs import posterior_draws
from pncbayes.inference.grid import Grid, choose_grid
from pncbayes.inference.judge import dead_time_notes, hum_notes, judge
from pncbayes.inference.mechanism_group import mechanisms_group
from pncbayes.inference.mechanism_tables import MechanismTables
from pncbayes.inference.optimum import settle
from pncbayes.inference.posterior import Parameters, Posterior
from pncbayes.inference.progress import progress
from pncbayes.inference.results import Fit
from pncbayes.inference.scan import probabilities, scan_n_states
from pncbayes.inference.sensitivity import reweighted_probabilities
from pncbayes.inference.trace import trace_to_fit
from pncbayes.photons.exposure_curve import Exposure
from pncbayes.photons.stream import Photons
from pncbayes.physics.exciton import Exciton
from pncbayes.physics.modelfile import ModelFile, load_model

__all__ = ["fit"]

_N_REPLICATES = 100
_ON_THRESHOLD = 0.5
_MOST_STATES = 12
# Bins that lie in one state with more than this probability show its decay unmixed.
_SURE = 0.995


def fit(
    data: Photons | xr.Dataset | str | os.PathLike[str],
    *,
    width_s: float | None = None,
    max_states: int | None = None,
    model: str | Path | ModelFile = "free",
    response: Any = None,
    excess_noise: bool = False,
    mechanisms: bool = True,
    exciton: Exciton | None = None,
    dynamics: bool = True,
    exposure: Exposure | bool = True,
    sampler: Literal["evidence", "nuts"] = "evidence",
    strict: bool = False,
    random_seed: int | np.random.Generator | None = None,
    progressbar: bool = True,
) -> Fit:
    """Say how many emission states a dot has, what they are, and how fast it switches.

    Hidden Markov models with 1 to `max_states` states are fitted, and the evidence of each gives
    the probability of each number of states. States and rates are those of the most probable
    number. Read `Fit.warnings` before believing any of it.

    Parameters
    ----------
    data
        Photons (`pncbayes.read`), a trace (`pncbayes.bin_photons`, `pncbayes.camera_trace`), or
        the path of a recording.
    width_s
        Bin width of figures and of the state probabilities, in s, where `data` are photons or
        their file; by `pncbayes.photons.binning.choose_width_s` if not given. Numbers of states
        and rates do not depend on it: wherever the photons are at hand the likelihood bins them
        on a grid of its own (``fit.diagnostics["likelihood_width_s"]``). A trace has its width.
    max_states
        Most states to consider, 1 to 12; the upper limit of the model file if not given. A model
        file with one number of states alone (``steady``) keeps it.
    model
        Name of a shipped model file (``"free"``, ``"steady"``), path of a ``.toml`` file, or a
        `ModelFile`.
    response
        Instrument response, as in `pncbayes.bin_photons`; for photons only.
    excess_noise
        Give each state an excess variance ratio (negative binomial counts); for photon counts
        only. A warning then says by how much the data prefer it to Poisson counts.
    mechanisms
        Say by which mechanism each state loses its light, where there are delays.
    exciton
        What is known of the neutral exciton of this dot, brightness or lifetime or both
        (`pncbayes.Exciton`), for the mechanisms. With its brightness, that no state of the dot is
        the exciton is one more possibility.
    dynamics
        Compare levels with flicker, excess noise, hidden states and bleaching
        (`pncbayes.dynamics`), for photon counts: half a minute or two more, and a verdict. Where a
        flicker is more probable the number of states is that of levels that flicker. Afterpulses
        of the detectors are left out before, where they are found.
    exposure
        True: lines in the spectrum of the light are found and taken out before anything else;
        False: they are not; or an exposure that is known.
    sampler
        Where the draws of states and rates come from: ``"evidence"``, the draws behind the
        evidence, or ``"nuts"``, minutes slower, with r_hat, effective draws and divergences in
        ``fit.diagnostics`` and warnings where they are bad. The number of states does not depend
        on it.
    strict
        Raise where evidence, predictive checks or sampler fail, instead of warning.
    random_seed
        Whole number or generator: the same number gives the same result. None: another result
        each time.
    progressbar
        Show progress on standard error.

    Returns
    -------
    Fit
        ``n_states``, ``states``, ``rates``, ``warnings``, ``diagnostics``, and all draws in
        ``tree``.

    Raises
    ------
    ValueError
        If an argument is wrong; the message names it, and what is allowed. `PhotonFileError` and
        `ModelFileError`, for files, are ValueErrors.
    DiagnosticError
        With `strict`, if the result is not to be trusted; the message says why.

    Examples
    --------
    >>> fit = pnc.fit("dot_017.ptu", random_seed=1)  # doctest: +SKIP
    >>> fit.n_states, fit.warnings  # doctest: +SKIP
    """
    spec = load_model(model)
    check_flags(
        excess_noise=excess_noise, mechanisms=mechanisms, dynamics=dynamics, strict=strict,
        progressbar=progressbar,
    )  # fmt: skip
    check_exposure(exposure)
    check_exciton(exciton, mechanisms=mechanisms)
    check_width(width_s)
    most = spec.n_states[1] if max_states is None else max_states
    most = check_whole_number("max_states", most, 1, _MOST_STATES)
    if not isinstance(sampler, str) or sampler not in ("evidence", "nuts"):
        raise ValueError(f"`sampler` must be 'evidence' or 'nuts', got {sampler!r}")
    rng = random_generator(random_seed)
    # a file that fixes the number of states means it; any other limit is the user's to move
    if spec.n_states[0] == spec.n_states[1]:
        most = spec.n_states[1]
    fewest = min(spec.n_states[0], most)
    trace, notes = trace_to_fit(data, width_s, response)
    # held here: every step that bins anew would read the file again
    corrected = correct_instrument(trace, exposure, afterpulses=dynamics)
    trace, photons = corrected.trace, corrected.photons
    numbers = list(range(fewest, most + 1))
    hum = corrected.notes + hum_notes(photons)
    notes += dead_time_notes(trace)
    if dynamics and fewest > 1 and trace.attrs["kind"] == "photons":
        notes.append(
            f"no verdict on the dynamics: the model has {fewest} states at least, and they are "
            "compared from one on"
        )
    with progress(2 * len(numbers) + 5, progressbar) as step:
        step("bin width")
        grid = choose_grid(trace, spec, rng)
        likelihood = BinnedLikelihood(
            grid.counts, grid.width_s, excess_noise=excess_noise, camera=camera_numbers(trace)
        )
        moving: Dynamics | None = None
        if dynamics and trace.attrs["kind"] == "photons" and fewest == 1:
            step("dynamics")
            moving = dynamics_of_trace(
                trace, spec, most, rng.spawn(1)[0], recorded=corrected.recorded
            )
            # levels alone would buy states without end for what is none
            numbers = numbers_worth_a_scan(moving, numbers)
        evidences = scan_n_states(likelihood, grid.counts, spec, numbers, rng, on_step=step)
        probability = probabilities(evidences)
        by_family = None if moving is None else level_probability(moving, numbers, probability)
        probability = probability if by_family is None else by_family
        best = int(np.argmax(probability))
        posterior = working_posterior(likelihood, spec, numbers[best])
        step("states")
        drawn = posterior_draws(evidences[best], posterior, rng)
        draws = drawn.draws
        stats: dict[str, Any] = {
            "sampler": sampler,
            "draws_from": drawn.source,
            "ess": drawn.effective,
            "r_hat": drawn.r_hat if drawn.source == "gibbs" else None,
        }
        if sampler == "nuts":
            from pncbayes.inference.nuts import sample_nuts

            draws, nuts_stats = sample_nuts(
                grid, trace, spec, posterior, evidences[best], rng, progressbar=progressbar
            )
            stats.update(nuts_stats, draws_from="nuts")
        if excess_noise:
            stats["excess_noise_log_bayes_factor"] = _excess_factor(
                grid, trace, spec, numbers[best], evidences[best], rng
            )
        point = _best_point(evidences[best], posterior)
        draws = ordered_draws(draws, point)
        if moving is not None and by_family is not None:
            own = level_draws(moving, draws, _gate_background(trace), rng)
            if own is not None:
                draws = own
                stats.update(draws_from="dynamics", ess=float(len(own)), r_hat=None)
        wide = reweighted_probabilities(evidences, likelihood, spec, 2.0)
        narrow = reweighted_probabilities(evidences, likelihood, spec, 0.5)
        samples = posterior_group(draws, likelihood, trace, rng, notes)
        states = states_group(point, likelihood, trace, excess_noise=excess_noise)
        step("checks")
        totals = np.asarray(trace["counts"].values, dtype=np.float64).sum(axis=1)
        replicated = [draws[i] for i in rng.integers(len(draws), size=_N_REPLICATES)]
        predictive, p_values = predictive_checks(
            totals, float(trace.attrs["width_s"]), replicated, rng, camera_numbers(trace)
        )
        named: xr.Dataset | None = None
        if mechanisms:
            named = mechanisms_group(
                evidences,
                probability,
                draws,
                likelihood,
                trace,
                spec,
                rng.spawn(1)[0],
                step,
                exciton,
            )
        if named is not None:
            source = str(trace.attrs.get("response_source", ""))
            named.attrs["response_is_estimated"] = int(source.startswith("estimated"))
    if moving is not None and by_family is not None:
        # levels alone are not what the answer rests on
        p_values, wide, narrow = moving.checks.p_values, probability, probability
    judgement = judge(
        evidences, probability, (wide, narrow), p_values, grid, draws, stats,
        likelihood.nodes_too_few, capped=by_family is None,
    )  # fmt: skip
    told = [] if moving is None else [*moving.reasons, *moving.remarks]
    # what casts doubt on the answer itself comes first
    notes = hum + told + judgement.texts + notes
    if named is not None:
        tables = MechanismTables(named)
        notes += tables.notes
        if exciton is not None and "label" in named:
            notes += tables.doubts(exciton)
    elif exciton is not None:
        notes.append(
            "`exciton` was not used: mechanisms need Poisson counts with delays, and a response"
        )
    if named is not None and judgement.failures and numbers[best] > 1:
        notes.append(
            "mechanisms are those of the states found: where these are in doubt, so are they"
        )
    predictive = _add_gate_counts(predictive, trace, states)
    tree = xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs=_attrs(trace, grid, spec, numbers[best], random_seed, notes)),
            "/posterior": samples,
            "/sample_stats": xr.Dataset(attrs={k: v for k, v in stats.items() if v is not None}),
            "/evidence": evidence_group(evidences, probability, wide, narrow),
            "/states": states,
            "/predictive": predictive,
            "/observed_data": _observed(trace),
            "/constant_data": _constants(trace),
        }
    )
    if named is not None:
        tree["mechanisms"] = xr.DataTree(named)
    if moving is not None:
        tree["dynamics"] = xr.DataTree(dynamics_group(moving, corrected.exposure))
    if exciton is not None:
        tree.attrs["exciton"] = json.dumps(dataclasses.asdict(exciton))
    result = Fit(tree)
    if strict and judgement.failures:
        raise DiagnosticError("the fit is not to be trusted: " + "; ".join(judgement.failures))
    return result


def _best_point(evidence: Evidence, posterior: Posterior) -> Parameters:
    settle(posterior, evidence.mode)
    return posterior.unpack(evidence.mode.vector).ordered()


def _gate_background(trace: xr.Dataset) -> NDArray[np.float64]:
    """Counts per s of background in each gate, shape ``(n_gates,)``."""
    rate = float(trace.attrs.get("background_rate_per_s", 0.0))
    n_gates = trace.sizes["gate"]
    fraction = np.full(n_gates, 1.0 / n_gates)
    if "background_gate_fraction" in trace:
        fraction = np.asarray(trace["background_gate_fraction"].values, dtype=np.float64)
    return (rate if np.isfinite(rate) else 0.0) * fraction


def _excess_factor(
    grid: Grid,
    trace: xr.Dataset,
    spec: ModelFile,
    n_states: int,
    evidence: Evidence,
    rng: np.random.Generator,
) -> float:
    """Log Bayes factor of excess noise against Poisson counts at one number of states."""
    plain = BinnedLikelihood(grid.counts, grid.width_s)
    without = scan_n_states(plain, grid.counts, spec, [n_states], rng)
    return evidence.log_evidence - without[0].log_evidence


def _add_gate_counts(predictive: xr.Dataset, trace: xr.Dataset, states: xr.Dataset) -> xr.Dataset:
    """Add counts per gate in the bins that surely belong to one state, and the time in them."""
    counts = np.asarray(trace["counts"].values, dtype=np.float64)
    sure = (states["probability"].values > _SURE).astype(np.float64)
    predictive["gate_counts"] = (("state", "gate"), sure.T @ counts[: sure.shape[0]])
    predictive["gate_counts_time_s"] = ("state", sure.sum(axis=0) * float(trace.attrs["width_s"]))
    return predictive


def _observed(trace: xr.Dataset) -> xr.Dataset:
    observed = trace[["counts"]].copy()
    observed.attrs = {
        "kind": trace.attrs["kind"],
        "pulse_ns": float(trace.attrs.get("pulse_ns", np.nan)),
    }
    return observed


def _constants(trace: xr.Dataset) -> xr.Dataset:
    names = [name for name in ("response", "background_gate_fraction") if name in trace]
    constants = trace[names].copy().drop_vars(["gate_start_ns", "gate_stop_ns"], errors="ignore")
    constants["background_rate_per_s"] = float(trace.attrs.get("background_rate_per_s", np.nan))
    constants["background_sd_per_s"] = float(trace.attrs.get("background_sd_per_s", np.nan))
    constants.attrs = {"response_source": str(trace.attrs.get("response_source", ""))}
    return constants


def _attrs(
    trace: xr.Dataset,
    grid: Grid,
    spec: ModelFile,
    n_states: int,
    random_seed: Any,
    notes: list[str],
) -> dict[str, Any]:
    attrs = {
        "width_s": float(trace.attrs["width_s"]),
        "duration_s": float(trace.attrs["duration_s"]),
        "period_ns": float(trace.attrs.get("period_ns", np.nan)),
        "n_photons": int(trace.attrs.get("n_photons", trace["counts"].sum())),
        "path": str(trace.attrs.get("path", "")),
        "digest": str(trace.attrs.get("digest", "")),
        "likelihood_width_s": grid.width_s,
        "most_probable_n_states": n_states,
        "on_threshold": _ON_THRESHOLD,
        "model_name": spec.name,
        "model_digest": spec.digest,
        "model_text": spec.text,
        "pncbayes_version": version("pncbayes"),
        "warnings": json.dumps(list(dict.fromkeys(notes))),
    }
    if isinstance(random_seed, int | np.integer):
        attrs["random_seed"] = int(random_seed)
    return attrs
