"""`pncbayes.fit`: from photons or a trace to the number of states, their properties and rates."""

from __future__ import annotations

import contextlib
import json
import os
import warnings as python_warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from pncbayes.errors import DiagnosticError, PncbayesWarning
from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference.assemble import (
    camera_numbers,
    evidence_group,
    ordered_draws,
    posterior_group,
    states_group,
)
from pncbayes.inference.checks import predictive_checks
from pncbayes.inference.collapsed import CollapsedPosterior, working_posterior
from pncbayes.inference.evidence import Evidence
from pncbayes.inference.grid import Grid, choose_grid
from pncbayes.inference.optimum import settle
from pncbayes.inference.posterior import Parameters, Posterior
from pncbayes.inference.results import Fit
from pncbayes.inference.scan import probabilities, scan_n_states
from pncbayes.inference.sensitivity import reweighted_probabilities
from pncbayes.photons.binning import bin_photons, photons_of
from pncbayes.photons.formats import read
from pncbayes.photons.spectrum import spectral_lines
from pncbayes.photons.stream import Photons
from pncbayes.physics.modelfile import ModelFile, load_model

__all__ = ["fit"]

_N_KEPT = 400
_N_REPLICATES = 100
_ON_THRESHOLD = 0.5
# States closer than this share of their brightness, and of their decay, may be one level.
_TWIN = 0.05
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
    sampler: Literal["evidence", "nuts"] = "evidence",
    strict: bool = False,
    random_seed: int | np.random.Generator | None = None,
    progressbar: bool = True,
) -> Fit:
    """Fit hidden Markov models with 1 to `max_states` states and say how many the data support.

    Parameters
    ----------
    data
        Photons, a trace (`pncbayes.bin_photons`, `pncbayes.camera_trace`), or the path of a file.
    width_s
        Bin width of the report in s, for photons; by a rule if not given. The likelihood chooses
        a grid of its own wherever it has the photons.
    max_states
        Most states to consider; the model file's limit if not given.
    model
        Name or path of a model file.
    response
        Instrument response, as in `pncbayes.bin_photons`.
    excess_noise
        Give each state an excess variance ratio (negative binomial counts). The result then says
        by how much the data prefer it.
    sampler
        Where states and rates come from: the draws behind the evidence, or NUTS.
    strict
        Raise where the evidence or a predictive check fails.
    random_seed
        Seed: the same seed gives the same numbers.
    progressbar
        Show progress.

    Returns
    -------
    Fit

    Raises
    ------
    ValueError
        If an argument is out of range.
    DiagnosticError
        With `strict`, if the result is not to be trusted.
    """
    spec = load_model(model)
    most = spec.n_states[1] if max_states is None else max_states
    if isinstance(most, bool) or not isinstance(most, int | np.integer) or not 1 <= most <= 12:
        raise ValueError(f"`max_states` must be 1 to 12, got {max_states!r}")
    if sampler not in ("evidence", "nuts"):
        raise ValueError(f"`sampler` must be 'evidence' or 'nuts', got {sampler!r}")
    # a file that fixes the number of states means it; any other limit is the user's to move
    if spec.n_states[0] == spec.n_states[1]:
        most = spec.n_states[1]
    fewest = min(spec.n_states[0], most)
    rng = np.random.default_rng(random_seed)
    trace, notes = _trace(data, width_s, response)
    numbers = list(range(fewest, most + 1))
    notes += _hum(trace)
    with _progress(2 * len(numbers) + 3, progressbar) as step:
        step("bin width")
        grid = choose_grid(trace, spec, rng)
        likelihood = BinnedLikelihood(
            grid.counts, grid.width_s, excess_noise=excess_noise, camera=camera_numbers(trace)
        )
        evidences = scan_n_states(likelihood, grid.counts, spec, numbers, rng, on_step=step)
        probability = probabilities(evidences)
        best = int(np.argmax(probability))
        posterior = working_posterior(likelihood, spec, numbers[best])
        step("states")
        draws = _draws(evidences[best], posterior, rng)
        stats: dict[str, Any] = {"sampler": sampler, "ess": evidences[best].effective_draws}
        if sampler == "nuts":
            from pncbayes.inference.nuts import sample_nuts

            draws, nuts_stats = sample_nuts(
                grid, trace, spec, posterior, evidences[best], rng, progressbar=progressbar
            )
            stats.update(nuts_stats)
        if excess_noise:
            stats["excess_noise_log_bayes_factor"] = _excess_factor(
                grid, trace, spec, numbers[best], evidences[best], rng
            )
        point = _best_point(evidences[best], posterior)
        draws = ordered_draws(draws, point)
        wide = reweighted_probabilities(evidences, likelihood, spec, 2.0)
        narrow = reweighted_probabilities(evidences, likelihood, spec, 0.5)
        posterior_draws = posterior_group(draws, likelihood, trace, rng, notes)
        states = states_group(point, likelihood, trace, excess_noise=excess_noise)
        step("checks")
        totals = np.asarray(trace["counts"].values, dtype=np.float64).sum(axis=1)
        replicated = [draws[i] for i in rng.integers(len(draws), size=_N_REPLICATES)]
        predictive, p_values = predictive_checks(
            totals, float(trace.attrs["width_s"]), replicated, rng, camera_numbers(trace)
        )
    judgements: list[str] = []
    _judge(judgements, evidences, probability, p_values, grid, draws, (wide, narrow), stats)
    # what concerns the answer itself comes first
    notes = judgements + notes
    predictive = _add_gate_counts(predictive, trace, states)
    tree = xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs=_attrs(trace, grid, spec, numbers[best], random_seed, notes)),
            "/posterior": posterior_draws,
            "/sample_stats": xr.Dataset(attrs={k: v for k, v in stats.items() if v is not None}),
            "/evidence": evidence_group(evidences, probability, wide, narrow),
            "/states": states,
            "/predictive": predictive,
            "/observed_data": _observed(trace),
            "/constant_data": _constants(trace),
        }
    )
    result = Fit(tree)
    # a remark on the option asked for is no failure
    failures = [text for text in judgements if "ask for excess noise" not in text]
    if strict and failures:
        raise DiagnosticError("the fit is not to be trusted: " + "; ".join(failures))
    return result


def _trace(
    data: Photons | xr.Dataset | str | os.PathLike[str], width_s: float | None, response: Any
) -> tuple[xr.Dataset, list[str]]:
    """Trace to fit, and what was said while it was made."""
    if isinstance(data, str | os.PathLike):
        data = read(data)
    if isinstance(data, xr.Dataset):
        if "kind" not in data.attrs or "counts" not in data or "width_s" not in data.attrs:
            raise ValueError(
                "`data` is a Dataset but not a trace (no counts, `kind` or `width_s`); make one "
                "with `bin_photons` or `camera_trace`"
            )
        if response is not None:
            raise ValueError(
                "`response` was given beside a trace, which has its own; give it to `bin_photons`"
            )
        if width_s is not None and not np.isclose(width_s, float(data.attrs["width_s"])):
            raise ValueError(
                f"`width_s` is {width_s} s but the trace has bins of {data.attrs['width_s']} s; "
                "leave `width_s` out, or give the photons"
            )
        return data, list(json.loads(data.attrs.get("warnings", "[]")))
    if not isinstance(data, Photons):
        raise ValueError(
            f"`data` must be Photons, a trace or the path of a file, got {type(data).__name__}"
        )
    with python_warnings.catch_warnings():
        # they are kept in the trace and come back as warnings of the fit
        python_warnings.simplefilter("ignore", PncbayesWarning)
        trace = bin_photons(data, width_s, response=response)
    return trace, list(json.loads(trace.attrs.get("warnings", "[]")))


def _hum(trace: xr.Dataset) -> list[str]:
    """Say whether the light is modulated at fixed frequencies."""
    photons = photons_of(trace) if trace.attrs["kind"] == "photons" else None
    lines = spectral_lines(photons) if photons is not None else []
    if not lines:
        return []
    some = ", ".join(f"{line.frequency_hz:.0f} Hz (depth {line.depth:.2f})" for line in lines[:3])
    return [
        f"the light is modulated at {some}: most likely the instrument. The model does not know "
        "it and may buy states and fast switching to follow it"
    ]


def _draws(evidence: Evidence, posterior: Posterior, rng: np.random.Generator) -> list[Parameters]:
    if len(evidence.draws):
        if isinstance(posterior, CollapsedPosterior):
            return [posterior.unpack_draw(vector, rng) for vector in evidence.draws]
        return [posterior.unpack(vector) for vector in evidence.draws]
    return [posterior.unpack(evidence.mode.vector)] * _N_KEPT


def _best_point(evidence: Evidence, posterior: Posterior) -> Parameters:
    settle(posterior, evidence.mode)
    return posterior.unpack(evidence.mode.vector).ordered()


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


def _judge(
    notes: list[str],
    evidences: list[Evidence],
    probability: np.ndarray,
    p_values: dict[str, float],
    grid: Grid,
    draws: list[Parameters],
    sensitivity: tuple[np.ndarray, np.ndarray],
    stats: dict[str, Any],
) -> None:
    """Say in plain words what should keep a reader from believing the result."""
    best = int(np.argmax(probability))
    number = evidences[best].n_states
    for one, share in zip(evidences, probability, strict=True):
        if share > 0.02 and one.method == "rough":
            notes.append(
                f"evidence of {one.n_states} states is rough (Pareto k {one.pareto_k:.2f}, "
                f"{one.effective_draws:.0f} effective draws): P({one.n_states}) is uncertain"
            )
        apart = abs(one.laplace - one.importance)
        if share > 0.05 and np.isfinite(apart) and apart > 1.0 + 3.0 * one.error:
            notes.append(
                f"the two evidence methods differ by {apart:.1f} nats at {one.n_states} states"
            )
    if best == len(evidences) - 1 and number > 1:
        notes.append(
            f"the most states allowed ({number}) are the most probable: read it as {number} or "
            "more; a continuous change of brightness buys discrete states without end"
        )
    failed = [name.replace("_", " ") for name, p in p_values.items() if p < 0.02]
    if failed:
        notes.append(
            f"predictive check failed: {', '.join(failed)}. Data drawn from the model do not look "
            "like these; the number of states is that of the best such model, not of the dot"
        )
    if any(int(np.argmax(other)) != best for other in sensitivity):
        notes.append(
            "the most probable number of states changes when the priors are made twice as wide "
            "or half as wide"
        )
    notes += _twins(draws)
    exits = np.median([draw.exit_rate_per_s for draw in draws], axis=0)
    fastest = float(exits.max()) * grid.width_s
    if number > 1 and (fastest > 0.5 or grid.loss_nats > 2.0):
        notes.append(
            f"switching is too fast for bins of {grid.width_s * 1e3:g} ms ({fastest:.2g} exits "
            "per bin): rates and the number of states may be off; use finer bins or the photons"
        )
    factor = stats.get("excess_noise_log_bayes_factor")
    if factor is not None:
        verdict = "ask for" if factor > 3 else "do not ask for"
        notes.append(f"the data {verdict} excess noise (log Bayes factor {factor:.1f})")


def _twins(draws: list[Parameters]) -> list[str]:
    """Say which states differ in when the dot leaves them rather than in what they emit."""
    rate = np.mean([draw.rate_per_s for draw in draws], axis=0)
    gates = np.mean([draw.gate_rate_per_s for draw in draws], axis=0)
    shape = gates / rate[:, None]
    notes = []
    for i in range(rate.size - 1):
        alike = abs(rate[i] - rate[i + 1]) < _TWIN * rate[i]
        # total variation between the two decays
        if alike and 0.5 * np.abs(shape[i] - shape[i + 1]).sum() < _TWIN:
            notes.append(
                f"states {i} and {i + 1} emit alike: one level with dwell times that no single "
                "exit rate explains would look so, too"
            )
    return notes


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


@contextlib.contextmanager
def _progress(total: int, show: bool) -> Iterator[Callable[[str], None]]:
    """Progress bar on standard error; a function that moves it on and says what comes next."""
    if not show:
        yield lambda text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<16}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("fit", total=total)

        def step(text: str) -> None:
            bar.update(task, advance=1, description=text)

        yield step
