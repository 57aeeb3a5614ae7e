"""`pncbayes.compare_models`: evidence of structured hypotheses, all within one family of decays."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from pncbayes.inference.arguments import check_has_decays, random_generator
from pncbayes.inference.checks import predictive_checks
from pncbayes.inference.comparison import ModelComparison
from pncbayes.inference.grid import choose_grid
from pncbayes.inference.posterior import Parameters
from pncbayes.inference.progress import progress
from pncbayes.inference.results import Fit
from pncbayes.inference.structured import StructuredPosterior, instrument_priors
from pncbayes.inference.structured_evidence import StructuredEvidence, structured_evidence
from pncbayes.inference.trace import trace_to_fit
from pncbayes.photons.stream import Photons
from pncbayes.physics.mechanisms import MECHANISMS
from pncbayes.physics.modelfile import ModelFile, load_model
from pncbayes.physics.structured_emission import recorder_of
from pncbayes.physics.structured_file import load_structured, structured_names
from pncbayes.physics.structures import StructuredModel

__all__ = ["compare_models"]

Array = NDArray[np.float64]

_N_DRAWS, _N_REPLICATES = 400, 100
# Disagreement of the two figures beyond their errors that casts doubt, and tail of the weights.
_DISAGREE_NATS, _ROUGH_NATS, _HEAVY, _FEW = 2.0, 0.5, 0.7, 30.0
# Concentration below which decays do not look like any that the parts could make.
_LOOSE = 200.0
_FAILED = 0.02
_SURE, _UNLIKELY = 0.8, 0.2


def compare_models(
    data: Photons | xr.Dataset | str | os.PathLike[str],
    models: Sequence[str | Path | StructuredModel | ModelFile] | None = None,
    *,
    fit: Fit | None = None,
    response: Any = None,
    random_seed: int | np.random.Generator | None = None,
    progressbar: bool = True,
) -> ModelComparison:
    """Say which structured hypothesis - steady, charged, trapping, centres - explains a dot best.

    In all of them decays are tied to that of the exciton by physics, and differ from their shapes
    by chance in the same way; so their evidence compares how parts switch and what they do to
    brightness and lifetime, not how well a decay fits. A hypothesis with several numbers of levels
    has the mean evidence over these.

    Parameters
    ----------
    data
        Photons, a trace with delays and a response, or the path of a recording.
    models
        Names of shipped models, paths of ``.toml`` files, or models; if not given, ``steady``,
        ``auger``, ``hot_carrier``, ``nbc``, ``mixed`` and ``two_emitters``.
    fit
        Result of `pncbayes.fit` for the same data: a warning then says where the mechanisms of the
        two contradict each other, or where the dot has more states than any hypothesis.
    response
        Instrument response, as in `pncbayes.bin_photons`; for photons only.
    random_seed
        Whole number or generator: the same number gives the same result.
    progressbar
        Show progress on standard error.

    Returns
    -------
    ModelComparison
        ``probability`` of each hypothesis, ``mechanisms``, ``parameters()``, ``warnings``.

    Raises
    ------
    ValueError
        If an argument is wrong, or the data have no delays or no response. `ModelFileError`, for
        model files, is a ValueError.

    Examples
    --------
    >>> models = pnc.compare_models(trace, ["auger", "nbc"])  # doctest: +SKIP
    >>> models.probability, models.parameters("auger")  # doctest: +SKIP
    """
    hypotheses = _hypotheses(models)
    if fit is not None and not isinstance(fit, Fit):
        raise ValueError(f"`fit` must be a result of `pncbayes.fit`, got {type(fit).__name__}")
    rng = random_generator(random_seed)
    trace, notes = trace_to_fit(data, None, response)
    check_has_decays(trace)
    variants = [variant for model in hypotheses for variant in model.variants()]
    own = instrument_priors(trace)
    found: list[StructuredEvidence] = []
    with progress(1 + len(variants), progressbar) as step:
        step("bin width")
        grid = choose_grid(trace, load_model("free"), rng)
        recorder = recorder_of(trace)
        best = -np.inf
        for variant in variants:
            step(f"{variant.name}, {variant.n_states}")
            posterior = StructuredPosterior(variant, grid.counts, grid.width_s, recorder, own)
            one = structured_evidence(posterior, rng, best=best, n_draws=_N_DRAWS)
            best = max(best, one.log_evidence)
            found.append(one)
    probability = _probability(variants, found)
    notes += _doubts(variants, found, probability) + _other_beliefs(hypotheses)
    winner = int(np.argmax(probability))
    notes += _misfit(found[winner], rng)
    tree = _tree(variants, found, probability)
    if fit is not None:
        digests = {str(one.attrs.get("digest", "")) for one in (fit.tree, trace)} - {""}
        if len(digests) > 1:
            notes.append("`fit` is of other photons than `data`, so that the two may well differ")
        notes += _contradictions(ModelComparison(tree), fit, variants)
    tree.attrs = {
        "warnings": json.dumps(list(dict.fromkeys(notes))),
        "likelihood_width_s": grid.width_s,
        "pncbayes_version": version("pncbayes"),
        "path": str(trace.attrs.get("path", "")),
    }
    return ModelComparison(tree)


def _hypotheses(models: Any) -> list[StructuredModel]:
    if models is None:
        models = structured_names()
    if isinstance(models, str | os.PathLike | StructuredModel | ModelFile):
        models = [models]
    if not isinstance(models, Sequence) or not models:
        raise ValueError(
            f"`models` must be a list of names or paths of model files, got {models!r}; shipped "
            f"are {', '.join(structured_names())}"
        )
    loaded = [load_structured(model) for model in models]
    names = [model.name for model in loaded]
    if len(set(names)) < len(names):
        raise ValueError(
            f"`models` must have names of their own, got {', '.join(names)}; change `name` in a "
            "copy of a model file"
        )
    return loaded


def _probability(variants: list[StructuredModel], found: list[StructuredEvidence]) -> Array:
    """Of each variant: hypotheses are equally probable, and the variants within each."""
    names = [variant.name for variant in variants]
    logs = np.array([
        one.log_evidence - np.log(names.count(name))
        for name, one in zip(names, found, strict=True)
    ])  # fmt: skip
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum())


def _doubts(
    variants: list[StructuredModel], found: list[StructuredEvidence], probability: Array
) -> list[str]:
    notes = []
    for variant, one, share in zip(variants, found, probability, strict=True):
        if share < 0.01:
            continue
        label = f"{variant.name} with {variant.n_states} states"
        apart = abs(one.log_evidence - one.laplace)
        if apart > _DISAGREE_NATS + 2.0 * one.error:
            notes.append(f"two figures of the evidence of {label} differ by {apart:.1f} nats")
        if one.error > _ROUGH_NATS:
            notes.append(
                f"the log evidence of {label} has a standard error of {one.error:.1f}: its "
                "probability is rough"
            )
        if not one.pareto_k < _HEAVY or one.effective < _FEW:
            notes.append(
                f"the evidence of {label} rests on {one.effective:.0f} effective draws (Pareto k "
                f"{one.pareto_k:.2f}): its probability is rough"
            )
    return notes


def _other_beliefs(hypotheses: list[StructuredModel]) -> list[str]:
    """Where hypotheses believe different things of what has nothing to do with their parts."""
    first, notes = hypotheses[0], []
    for other in hypotheses[1:]:
        apart = [f"[exciton] {key}" for key in first.exciton
                 if first.exciton[key] != other.exciton[key]]  # fmt: skip
        apart += [f"[instrument] {key}" for key in first.instrument
                  if first.instrument[key] != other.instrument[key]]  # fmt: skip
        apart += [f"[decay] {key}" for key in ("slack", "concentration")
                  if getattr(first, key) != getattr(other, key)]  # fmt: skip
        if apart:
            notes.append(
                f"priors of {', '.join(apart)} differ between {first.name!r} and {other.name!r}: "
                "their evidence compares these beliefs, too, and not the mechanisms alone"
            )
    return notes


def _misfit(one: StructuredEvidence, rng: np.random.Generator) -> list[str]:
    """Whether data drawn from the best hypothesis look like the data."""
    posterior, notes = one.posterior, []
    values = posterior.values(one.draws)
    concentration = float(np.median(values["decay_concentration"]))
    if concentration < _LOOSE:
        notes.append(
            f"decays scatter around the shapes of the best model {posterior.model.name!r} more "
            f"than good shapes do (concentration {concentration:.0f}): response or background may "
            "be wrong, or no model fits"
        )
    points = []
    for z in one.draws[rng.integers(len(one.draws), size=_N_REPLICATES)]:
        gates, rates, kappa = posterior.rates(z)
        points.append(Parameters(gates, rates, kappa, None))
    totals = posterior.counts.sum(axis=1)
    _, p_values = predictive_checks(totals, posterior.width_s, points, rng)
    failed = [name.replace("_", " ") for name, p in p_values.items() if p < _FAILED]
    if failed:
        notes.append(
            f"predictive check failed: {', '.join(failed)}. Data drawn from the best model "
            f"{posterior.model.name!r} do not look like these data: the true mechanism may be none "
            "of those compared"
        )
    return notes


def _contradictions(
    comparison: ModelComparison, fit: Fit, variants: list[StructuredModel]
) -> list[str]:
    """Where fit and comparison say different things."""
    notes = []
    most = max(variant.n_states for variant in variants)
    if fit.most_probable_n_states > most:
        notes.append(
            f"the fit has {fit.most_probable_n_states} states and no model compared more than "
            f"{most}: probabilities are among models of which none has room for all states"
        )
    if fit.mechanisms is None:
        return notes
    for name in ("auger", "hot_carrier", "nbc"):
        mine, other = float(comparison.mechanisms[name]), float(fit.mechanisms[name])
        if (mine > _SURE and other < _UNLIKELY) or (other > _SURE and mine < _UNLIKELY):
            notes.append(
                f"contradiction: {name} has a part with probability {mine:.2f} by the models "
                f"compared and {other:.2f} by the fit. The fit leaves brightness and switching "
                "free; the models tie both: one of these ties, or a model that is not among them, "
                "makes the difference"
            )
    return notes


def _tree(
    variants: list[StructuredModel], found: list[StructuredEvidence], probability: Array
) -> xr.DataTree:
    mechanisms = [*MECHANISMS]
    takes_part = [[float(m in variant.mechanisms) for m in mechanisms] for variant in variants]
    root = xr.Dataset(
        {
            "model": ("variant", [variant.name for variant in variants]),
            "n_states": ("variant", [variant.n_states for variant in variants]),
            "model_digest": ("variant", [variant.digest for variant in variants]),
            "log_evidence": ("variant", [one.log_evidence for one in found]),
            "error": ("variant", [one.error for one in found]),
            "log_evidence_laplace": ("variant", [one.laplace for one in found]),
            "pareto_k": ("variant", [one.pareto_k for one in found]),
            "effective_draws": ("variant", [one.effective for one in found]),
            "probability": ("variant", probability),
            "takes_part": (("variant", "mechanism"), takes_part),
        },
        coords={"variant": np.arange(len(variants)), "mechanism": mechanisms},
    )
    groups = {"/": root}
    for number, one in enumerate(found):
        groups[f"/draws_{number}"] = draws_of(one)
    return xr.DataTree.from_dict(groups)


def draws_of(one: StructuredEvidence) -> xr.Dataset:
    """Draws of the parameters of a hypothesis, of its states and of its rates."""
    posterior, model = one.posterior, one.posterior.model
    values = posterior.values(one.draws)
    data: dict[str, Any] = {name: ("sample", draws) for name, draws in values.items()}
    if "quantum_yield" in values:
        data["k_radiative_per_ns"] = (
            "sample", values["quantum_yield"] / values["exciton_lifetime_ns"],
        )  # fmt: skip
    rates, switches = [], []
    for z in one.draws:
        gates, moves, _ = posterior.rates(z)
        rates.append(gates.sum(axis=1) - float(posterior.values(z)["background_rate_per_s"]))
        switches.append(moves)
    seconds = one.mode.occupied_s
    states = pd.Index(model.state_names, name="state")
    data["rate_per_s"] = (("sample", "state"), np.array(rates))
    data["transition_rate_per_s"] = (("sample", "state", "to_state"), np.array(switches))
    occupancy = np.tile(seconds / seconds.sum(), (len(one.draws), 1))
    data["occupancy"] = (("sample", "state"), occupancy)
    return xr.Dataset(data, coords={"state": states, "to_state": states.values})
