"""`pncbayes.build`: a model file and a trace as a `pymc.Model`, to change and to sample."""

from __future__ import annotations

import os
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import pymc as pm
import xarray as xr
from numpy.typing import NDArray

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference.arguments import (
    check_flags,
    check_has_decays,
    check_is_whole_recording,
    check_width,
    random_generator,
    read_data,
)
from pncbayes.inference.assemble import camera_numbers
from pncbayes.inference.grid import choose_grid
from pncbayes.inference.optimum import find_modes
from pncbayes.inference.posterior import Posterior
from pncbayes.inference.pymc_model import model_of
from pncbayes.inference.structured import StructuredPosterior, instrument_priors
from pncbayes.inference.structured_pymc import structured_model_of
from pncbayes.inference.structured_search import find_structured_modes
from pncbayes.photons.binning import bin_photons, merge_empty_gates, photons_of, rebin
from pncbayes.photons.stream import Photons
from pncbayes.physics.modelfile import ModelFile, load_model
from pncbayes.physics.structured_emission import recorder_of
from pncbayes.physics.structured_file import is_structured, load_structured
from pncbayes.physics.structures import StructuredModel

__all__ = ["build"]


def build(
    data: Photons | xr.Dataset | str | os.PathLike[str],
    model: str | Path | ModelFile | StructuredModel = "free",
    n_states: int | None = None,
    *,
    width_s: float | None = None,
    response: Any = None,
    excess_noise: bool = False,
    ordered: bool = True,
    scatter: bool = True,
    random_seed: int | np.random.Generator | None = None,
) -> pm.Model:
    """Write a model with a given number of states as a PyMC model.

    Priors and likelihood are those of `pncbayes.fit`. Free variables, with named dimensions:

    ========================== ====================== ==========================================
    ``brightest_rate_per_s``                          counts per s of the brightest state, the
                                                      background included; log-normal
    ``relative_brightness``    dimmer_state           the others as shares of it, bright to dim;
                                                      uniform, without delays repelling each other
    ``gate_probability``       state, gate            decay of each state; Dirichlet around the
                                                      base shape; with delays
    ``base_gate_probability``  gate                   the base shape; uniform; with delays
    ``decay_concentration``                           concentration of the decays around it;
                                                      log-normal; with delays
    ``exit_rate_per_s``        state                  log-normal; from two states on
    ``jump_probability``       state, other_state     where an exit leads, the other states in
                                                      order; Dirichlet; from three states on
    ``excess_variance_ratio``  state                  log-normal; with excess noise
    ========================== ====================== ==========================================

    Deterministic are ``rate_per_s`` (state), ``gate_rate_per_s`` (state, gate) and
    ``transition_rate_per_s`` (state, to_state). Samplers start from the rates at a mode of the
    posterior that a quick climb finds. The data are `pymc.Data`;
    `pncbayes.inference.pymc_model.model_data` makes those of another dot. PyMC says that
    potentials are ignored in prior draws: the one here is the likelihood, and prior draws are to
    do without it.

    A structured model (``"auger"``, ``"hot_carrier"``, ``"nbc"``, ``"mixed"``,
    ``"two_emitters"``) has the parameters of its file under their names, as
    ``exciton_lifetime_ns``, ``k_trap_per_s`` and ``k_auger_per_ns``; with two emitters each after
    ``emitter_1_`` or ``emitter_2_``. Besides:

    ========================== ====================== ==========================================
    ``log_lifetime_spread``                           log of slow over fast lifetime of the two
                                                      exponentials of the exciton
    ``fast_amplitude``                                amplitude of the fast one at time zero
    ``biexciton_power``                               of the brightness, by which biexcitons grow
    ``background_rate_per_s``                         prior from what is known of the recording
    ``response_shift``                                of the response, in 0.15 of its width
    ``response_width``                                log of its width over the given one, in 0.15
    ``lifetime_deviation``     emitter, dim_level     log lifetimes off their place, in slacks
    ``decay_concentration``                           of the decays around their shapes
    ``decay_deviation``        state, gate            of each gate, standard normal
    ========================== ====================== ==========================================

    the last two with `scatter` only. ``k_radiative_per_ns`` is deterministic, too, where the model
    has a quantum yield. The posterior is that of `pncbayes.compare_models`, but for gates that hold
    little light: their scatter around the shape is log-normal here, and Dirichlet there.

    Parameters
    ----------
    data
        Photons, a trace, or the path of a file.
    model
        Name or path of a model file.
    n_states
        Number of states; 2, or the nearest that the model file allows, if not given. Of a
        structured model, one that its parts make; the fewest if not given.
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
    scatter
        Of a structured model: let the decay of each state scatter around its shape. Without, the
        free variables are the named parameters alone, and shapes are taken to be exact.
    random_seed
        Seed of the rule for the bin width and of the climb.

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
    >>> prior = pm.sample_prior_predictive(model=model)  # doctest: +SKIP
    >>> draws = pm.sample(model=model, compile_kwargs={"jitter_rvs": set()})  # doctest: +SKIP

    What is known of the dot, as a prior or as a condition:

    >>> with model:  # doctest: +SKIP
    ...     pm.Potential("dim", pm.logp(pm.Normal.dist(400, 50), model["rate_per_s"][1]))
    >>> known = pm.observe(model, {"brightest_rate_per_s": 2.0e4})  # doctest: +SKIP

    A structured model, with a lifetime that is known:

    >>> model = pnc.build(trace, "auger")  # doctest: +SKIP
    >>> known = pm.observe(model, {"exciton_lifetime_ns": 6.0})  # doctest: +SKIP
    """
    check_flags(excess_noise=excess_noise, ordered=ordered, scatter=scatter)
    check_width(width_s)
    if isinstance(model, StructuredModel) or is_structured(model):
        if excess_noise:
            raise ValueError(
                "`excess_noise` must be False for a structured model: its counts are Poisson"
            )
        return _build_structured(
            load_structured(model), data, n_states, width_s, response, scatter, random_seed
        )
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
    rng = random_generator(random_seed)
    trace, counts, width = _gridded(data, response, spec, width_s, rng)
    likelihood = BinnedLikelihood(
        counts, width, excess_noise=excess_noise, camera=camera_numbers(trace)
    )
    posterior = Posterior(likelihood, spec, int(number))
    mode = find_modes(posterior, counts, width, None, rng, n_starts=3, n_climbs=1)[0]
    start = posterior.unpack(mode.vector).ordered().rate_per_s
    return model_of(posterior, ordered=ordered, start_rate_per_s=start)


def _build_structured(
    hypothesis: StructuredModel,
    data: Any,
    n_states: Any,
    width_s: float | None,
    response: Any,
    scatter: bool,
    random_seed: Any,
) -> pm.Model:
    by_number = {variant.n_states: variant for variant in reversed(hypothesis.variants())}
    number = min(by_number) if n_states is None else n_states
    whole = isinstance(number, Integral) and not isinstance(number, bool)
    if not whole or number not in by_number:
        raise ValueError(
            f"`n_states` must be one of {', '.join(map(str, sorted(by_number)))} in the model "
            f"{hypothesis.name!r}, got {n_states!r}; its parts make no other number"
        )
    rng = random_generator(random_seed)
    trace, counts, width = _gridded(data, response, load_model("free"), width_s, rng)
    check_has_decays(trace)
    posterior = StructuredPosterior(
        by_number[number], counts, width, recorder_of(trace), instrument_priors(trace)
    )
    start = find_structured_modes(posterior, rng)[0][0]
    return structured_model_of(posterior, scatter=scatter, start=start)


def _gridded(
    data: Any, response: Any, spec: ModelFile, width_s: float | None, rng: np.random.Generator
) -> tuple[xr.Dataset, NDArray[np.float64], float]:
    """Trace, counts on the grid of the likelihood, and its width."""
    data = read_data(data, response)
    if isinstance(data, Photons):
        data = bin_photons(data, response=response)
    trace = merge_empty_gates(data)
    # held here: every step that bins anew would read the file again
    photons = photons_of(trace)
    check_is_whole_recording(trace, photons)
    counts, width = _counts(trace, spec, width_s, rng)
    return trace, counts, width


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
