"""`pncbayes.dynamics`: from photons or a trace to what the light of a dot does."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pncbayes.hmm.likelihood import BinnedLikelihood
from pncbayes.inference.arguments import (
    check_exposure,
    check_flags,
    check_whole_number,
    check_width,
    random_generator,
)
from pncbayes.inference.collapsed import working_posterior
from pncbayes.inference.dynamics import Dynamics, compare_dynamics
from pncbayes.inference.dynamics_data import dynamics_data, merge_gates
from pncbayes.inference.dynamics_families import LevelsFound
from pncbayes.inference.dynamics_point import DynamicsData, DynamicsPoint
from pncbayes.inference.grid import choose_grid, round_down
from pncbayes.inference.optimum import Mode, find_modes, settle
from pncbayes.inference.posterior import Parameters
from pncbayes.inference.progress import progress
from pncbayes.inference.trace import trace_to_fit
from pncbayes.photons.afterpulse_removal import remove_afterpulses
from pncbayes.photons.antibunching import antibunching
from pncbayes.photons.background import estimate_background
from pncbayes.photons.binning import bin_photons, photons_of, rebin
from pncbayes.photons.exposure_curve import Exposure
from pncbayes.photons.exposure_removal import remove_exposure
from pncbayes.photons.exposure_search import find_exposure
from pncbayes.photons.stream import Photons
from pncbayes.physics.dynamics_file import DynamicsPriors, load_dynamics_priors
from pncbayes.physics.modelfile import ModelFile, load_model

__all__ = ["Corrected", "correct_instrument", "dynamics", "dynamics_of_trace"]

Array = NDArray[np.float64]

_MOST_STATES = 12
# Bins of all families together are no more than this: cost grows with them.
_MOST_BINS = 8_000
_WIDEST_S = 0.01
# Share of the time below which a level says nothing of the background, and the ratio by which the
# background has to be lowered for that to be told.
_LEAST_SHARE, _LOWERED = 0.005, 1.5
# Where a background is known from, that stays what it is when photons are left out.
_KNOWN_BACKGROUND = ("given", "dark")
# Levels more, each worse than those before, after which no more are tried.
_WORSE_AND_WORSE = 2
_SEED = 20_261_202


@dataclass(frozen=True)
class Corrected:
    """A trace from which was taken what is the instrument's.

    Attributes
    ----------
    trace
        In corrected time, where there was an exposure; the one given where nothing was done.
    photons
        Behind it: to be kept as long as the trace is.
    exposure
        What was taken out, or None.
    recorded
        The photons in recorded time, without afterpulses; None for a trace without photons.
    notes
        What a reader has to know of it.
    """

    trace: xr.Dataset
    photons: Photons | None
    exposure: Exposure | None
    recorded: Photons | None
    notes: list[str]


def correct_instrument(
    trace: xr.Dataset, exposure: Exposure | bool = True, *, afterpulses: bool = True
) -> Corrected:
    """Take out of a trace afterpulses, and lines that modulate its light, or a given exposure.

    Parameters
    ----------
    trace
        Made by `pncbayes.bin_photons`.
    exposure
        True to look for lines, False for none, or one that is known.
    afterpulses
        Whether to look for afterpulses and to leave them out.

    Raises
    ------
    ValueError
        If an exposure is given and there are no photons to take it out of.
    """
    photons = photons_of(trace) if trace.attrs["kind"] == "photons" else None
    if photons is None:
        if isinstance(exposure, Exposure):
            raise ValueError(
                "an `exposure` that is given can only be taken out of photons, and this trace has "
                "none behind it; give the photons or the file"
            )
        return Corrected(trace, None, None, None, [])
    notes, kept = [], photons
    background = _background_of(trace)
    if afterpulses:
        removal = remove_afterpulses(photons)
        kept = removal.photons
        if removal.note:
            notes.append(removal.note)
            if not str(trace.attrs.get("background_method")).startswith(_KNOWN_BACKGROUND):
                # what was left out was part of it
                again = estimate_background(kept)
                background = (again.rate_per_s, again.sd_per_s)
    rate = background[0] if np.isfinite(background[0]) else 0.0
    known = exposure if isinstance(exposure, Exposure) else None
    if exposure is True:
        known = find_exposure(kept, background_rate_per_s=rate)
    recorded = kept
    if known is not None:
        removed = remove_exposure(kept, known, background_rate_per_s=rate, random_seed=_SEED)
        kept = removed.photons
        grown = removed.background_rate_per_s / rate if rate > 0 else 1.0
        background = (removed.background_rate_per_s, background[1] * grown)
        notes += [text for text in kept.warnings if text not in photons.warnings]
        lines = ", ".join(
            f"{line.frequency_hz:.4g} Hz (depth {line.depth:.2f})" for line in known.lines
        )
        if lines:
            notes.append(
                f"the light is modulated at {lines}: most likely the instrument. It was taken out "
                "by counting time in units of exposure"
            )
    if kept is photons:
        return Corrected(trace, photons, None, photons, [])
    corrected = bin_photons(
        kept,
        float(trace.attrs["width_s"]),
        gates=_edges_of(trace),
        response=trace["response"].values if "response" in trace else False,
        background_rate_per_s=background if np.isfinite(background).all() else None,
    )
    for name in ("response_source", "background_method"):
        if name in trace.attrs:
            corrected.attrs[name] = trace.attrs[name]
    return Corrected(corrected, kept, known, recorded, notes)


def _background_of(trace: xr.Dataset) -> tuple[float, float]:
    """Rate and standard deviation, per s; NaN where not known."""
    names = ("background_rate_per_s", "background_sd_per_s")
    rate, sd = (float(trace.attrs.get(name, np.nan)) for name in names)
    return rate, sd if np.isfinite(sd) else 0.0


def _edges_of(trace: xr.Dataset) -> Array | None:
    if "gate_start_ns" not in trace.coords:
        return None
    edges = np.append(trace["gate_start_ns"].values, trace["gate_stop_ns"].values[-1])
    return edges if np.isfinite(edges).all() else None


def _coarse_enough(trace: xr.Dataset, counts: Array, width_s: float) -> tuple[Array, float]:
    """Wider bins where there are too many for families with a flicker."""
    duration_s = counts.shape[0] * width_s
    if counts.shape[0] <= _MOST_BINS:
        return counts, width_s
    wanted = min(round_down(duration_s / _MOST_BINS * 1.5), _WIDEST_S)
    if wanted <= width_s:
        return counts, width_s
    if photons_of(trace) is not None:
        wider = np.asarray(rebin(trace, wanted)["counts"].values, dtype=np.float64)
        return wider, wanted
    group = max(int(wanted / width_s), 1)
    whole = counts.shape[0] // group * group
    return counts[:whole].reshape(-1, group, counts.shape[1]).sum(axis=1), width_s * group


def _find_levels(
    counts: Array, width_s: float, spec: ModelFile, most: int, rng: np.random.Generator
) -> list[tuple[Mode, Parameters]]:
    """Best mode of one to `most` levels without flicker."""
    likelihood = BinnedLikelihood(counts, width_s)
    found: list[tuple[Mode, Parameters]] = []
    simpler, worse = None, 0
    for number in range(1, most + 1):
        posterior = working_posterior(likelihood, spec, number)
        mode = find_modes(posterior, counts, width_s, simpler, rng, n_starts=4, n_climbs=1)[0]
        settle(posterior, mode)
        simpler = posterior.unpack(mode.vector)
        if found and mode.log_density < found[-1][0].log_density:
            worse += 1
        else:
            worse = 0
        found.append((mode, simpler))
        # a prior that costs more than the photons gain, several times: so it goes on
        if worse == _WORSE_AND_WORSE:
            break
    return found


def _levels_of(data: DynamicsData, mode: Mode, point: Parameters) -> LevelsFound:
    gates = point.gate_rate_per_s
    signal = np.maximum(gates - data.background_per_s, 1e-3 * gates + 1e-6)
    levels = DynamicsPoint(signal, point.transition_rate_per_s, np.empty(0))
    return LevelsFound(levels, mode.parts.occupied_s)


def dynamics_of_trace(
    trace: xr.Dataset,
    spec: ModelFile,
    most: int,
    rng: np.random.Generator,
    *,
    width_s: float | None = None,
    priors: DynamicsPriors | None = None,
    recorded: Photons | None = None,
    on_step: Any = None,
) -> Dynamics:
    """Compare families of dynamics on a trace; see `dynamics`.

    `recorded` are its photons in recorded time, for coincidences.
    """
    if width_s is None:
        grid = choose_grid(trace, spec, rng)
        counts, width_s = _coarse_enough(trace, grid.counts, grid.width_s)
    else:
        same = np.isclose(width_s, float(trace.attrs["width_s"]), rtol=1e-9)
        binned = trace if same else rebin(trace, width_s)
        counts = np.asarray(binned["counts"].values, dtype=np.float64)
    first = merge_gates(counts.sum(axis=0))
    found = _find_levels(np.add.reduceat(counts, first, axis=1), width_s, spec, most, rng)
    best, point = max(found, key=lambda one: one[0].log_density)
    concentration = spec.decay_concentration.median
    if best.base is not None:
        concentration = float(np.exp(best.log_concentration))
    # a level that is hardly seen says nothing of the background
    share = best.parts.occupied_s / max(float(best.parts.occupied_s.sum()), 1e-12)
    data = dynamics_data(
        trace, counts, width_s,
        darkest_per_s=float(point.rate_per_s[share >= min(_LEAST_SHARE, share.max())].min()),
        concentration=concentration,
    )  # fmt: skip
    levels = [_levels_of(data, mode, point) for mode, point in found]
    compared = compare_dynamics(
        data, spec, levels, rng, priors=priors, most_levels=most, on_step=on_step
    )
    remarks = list(compared.remarks)
    measured = _background_of(trace)[0]
    if measured > _LOWERED * max(float(data.background_per_s.sum()), 1e-12):
        remarks.append(
            f"the background of {measured:.3g} counts per s is more than the darkest level has: "
            f"{data.background_per_s.sum():.3g} is taken off"
        )
    coincidences = None
    if recorded is not None:
        rate = measured if np.isfinite(measured) else None
        coincidences = antibunching(recorded, background_rate_per_s=rate)
    if coincidences is not None and coincidences.verdict != "not decided":
        remarks.append(coincidences.sentence)
    return replace(compared, antibunching=coincidences, remarks=tuple(remarks))


def dynamics(
    data: Photons | xr.Dataset | str | os.PathLike[str],
    *,
    width_s: float | None = None,
    max_states: int = 6,
    model: str | Path | ModelFile = "free",
    families: str | Path = "flicker",
    response: Any = None,
    exposure: Exposure | bool = True,
    random_seed: int | np.random.Generator | None = None,
    progressbar: bool = True,
) -> Dynamics:
    """Say whether a dot is steady, blinks, flickers or both, or that the data do not tell.

    Levels that switch are compared with levels times a flicker of the brightness or of a
    non-radiative rate, with excess noise, hidden states and bleaching, by their evidence; and data
    drawn from the best are compared with the data. Lines in the spectrum are taken out before.

    Parameters
    ----------
    data
        As in `pncbayes.fit`: photons, a trace of photon counts, or a path.
    width_s
        Bin width of the comparison in s; by rule if not given.
    max_states
        Most levels, 1 to 12.
    model
        Priors of levels and rates, as in `pncbayes.fit`.
    families
        Priors of flicker, hidden states and bleaching: the shipped file, or the path of another.
    response
        Instrument response, as in `pncbayes.bin_photons`; for photons only.
    exposure
        True: lines in the spectrum are found and taken out; False: they are not; or an exposure
        that is known (`pncbayes.photons.exposure.schedule_exposure`).
    random_seed
        Whole number or generator: the same number gives the same result.
    progressbar
        Show progress on standard error.

    Returns
    -------
    Dynamics
        ``verdict``, ``reasons``, ``remarks``, ``n_levels``, ``flicker_probability``, ``table``,
        ``checks``.

    Raises
    ------
    ValueError
        If an argument is wrong, or the data are counts of a camera.
    """
    spec, priors = load_model(model), load_dynamics_priors(families)
    check_flags(progressbar=progressbar)
    most = check_whole_number("max_states", max_states, 1, _MOST_STATES)
    check_exposure(exposure)
    rng = random_generator(random_seed)
    check_width(width_s)
    trace, notes = trace_to_fit(data, None, response)
    if trace.attrs["kind"] != "photons":
        raise ValueError("`dynamics` takes photon counts; these are counts of a camera")
    with progress(40, progressbar) as step:
        step("exposure")
        corrected = correct_instrument(trace, exposure)
        found = dynamics_of_trace(
            corrected.trace, spec, most, rng, width_s=width_s, priors=priors,
            recorded=corrected.recorded, on_step=step,
        )  # fmt: skip
    return replace(found, remarks=(*found.remarks, *corrected.notes, *notes))
