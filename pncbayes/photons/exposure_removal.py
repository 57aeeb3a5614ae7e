"""Take an exposure out of a recording: count time in units of exposure."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pncbayes.photons.delays import delay_clock, delay_histogram
from pncbayes.photons.exposure_curve import Exposure
from pncbayes.photons.pulse import recorded_ticks
from pncbayes.photons.stream import Photons

__all__ = ["ExposureRemoval", "remove_exposure"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ExposureRemoval:
    """A recording without its exposure.

    Parameters
    ----------
    photons
        In corrected time.
    background_rate_per_s
        Rate of the background in them, in counts per s, constant in corrected time.
    exposure
        What was taken out.
    clock_s
        Corrected time at each point of the exposure's grid, in s.
    time_cut_s
        Real time cut out where the exposure was below the floor, in s.
    n_photons_cut, n_photons_added
        Photons cut out, and background photons added.
    """

    photons: Photons
    background_rate_per_s: float
    exposure: Exposure
    clock_s: Floats
    time_cut_s: float
    n_photons_cut: int
    n_photons_added: int

    def real_time_s(self, corrected_s: ArrayLike) -> Floats:
        """Real time of corrected times, both in s; of a cut, its end."""
        return _real_time_s(self.exposure, self.clock_s, corrected_s)

    def corrected_time_s(self, real_s: ArrayLike) -> Floats:
        """Corrected time of real times, both in s; the same for all of a cut."""
        return _corrected_time_s(self.exposure, self.clock_s, real_s)


def remove_exposure(
    photons: Photons,
    exposure: Exposure,
    *,
    background_rate_per_s: float,
    random_seed: int | np.random.Generator | None,
    floor: float = 0.25,
    delay_weights: ArrayLike | None = None,
) -> ExposureRemoval:
    """Count time in units of exposure, so that the signal of each state has a constant rate.

    A photon at ``t`` goes to ``tau(t)``, the integral of the exposure ``e`` [1]_. There a signal
    ``s e(t)`` has the rate ``s``, exactly; a background ``b`` has ``b / e``, and is topped up
    with random photons of rate ``b (1 / e_min - 1 / e)`` to ``b / e_min``: exact for a known
    exposure and background, at the price of some information. Where ``e < floor`` this price is
    too high, and so is the weight of a small error in ``e``: those times are cut out, photons and
    all, and what is on either side meets. Corrected time loses the integral of ``e`` over the cut,
    less than `floor` times its length.

    Corrected time runs evenly over a cycle of a line, but not within it: dwell times are right on
    average when they are longer than a cycle, and lags between photons are stretched by ``e``.

    Parameters
    ----------
    photons
        The recording.
    exposure
        Of this recording.
    background_rate_per_s
        Rate of the background in it, in counts per s, not modulated.
    random_seed
        Seed or generator for the background that is added.
    floor
        Smallest exposure that is kept, from 0 to below 1.
    delay_weights
        Weights of the delays of the background per tick of the delay clock, shape ``(n,)``; flat
        over the recorded part of the period when not given. Detectors get the shares that they
        have in the recording.

    Returns
    -------
    ExposureRemoval
        Photons, markers and duration in corrected time, rounded to the tick; delays as they were.

    Raises
    ------
    ValueError
        If a number is out of range, the durations disagree, or nothing is left.

    References
    ----------
    .. [1] Brown, Barbieri, Ventura, Kass, Frank, Neural Comput. 14, 325 (2002),
       doi:10.1162/08997660252741149 (time rescaling)
    """
    duration_s = float(photons.duration_s or 0.0)
    rate = float(background_rate_per_s)
    _check(duration_s, exposure, rate, floor)
    values = exposure.values
    kept = np.minimum(values[1:], values[:-1]) >= floor
    if not kept.any():
        raise ValueError(f"`floor` = {floor} is above all of the exposure, {values.max():.3g}")
    step_s = exposure.step_s
    steps = np.where(kept, 0.5 * step_s * (values[1:] + values[:-1]), 0.0)
    clock_s = np.concatenate([[0.0], np.cumsum(steps)])
    smallest = float(np.minimum(values[1:], values[:-1])[kept].min())
    time_s = photons.time_s
    inside = kept[np.minimum((time_s / step_s).astype(np.int64), kept.size - 1)]
    moved = photons.select(inside)
    ticks = _ticks(_corrected_time_s(exposure, clock_s, time_s[inside]), photons.tick_s)
    rng = np.random.default_rng(random_seed)
    added_s = _missing_background(exposure, clock_s, rate, smallest, rng)
    added = _ticks(added_s, photons.tick_s)
    markers_s = _corrected_time_s(exposure, clock_s, photons.marker_ticks * photons.tick_s)
    time_cut_s = float(np.count_nonzero(~kept) * step_s)
    n_cut = int(np.count_nonzero(~inside))
    new_rate = rate / smallest
    text = (
        f"{photons.path or 'photons'}: an exposure of {values.min():.3g} to {values.max():.3g} "
        f"times its mean was taken out: {added.size} background photons were added, "
        f"{time_cut_s:.4g} s ({n_cut} photons) below {floor:g} were cut out, and the background is "
        f"now {new_rate:.4g} per s"
    )
    both = np.concatenate([ticks, added])
    order = np.argsort(both, kind="stable")
    corrected = replace(
        moved,
        time_ticks=both[order],
        detector=np.concatenate([_of(moved), _detectors(photons, added.size, rng)])[order],
        delay_ticks=_delays(photons, moved, added.size, delay_weights, rng, order),
        duration_s=max(float(clock_s[-1]), float(both.max(initial=0)) * photons.tick_s),
        marker_ticks=_ticks(markers_s, photons.tick_s),
        warnings=(*photons.warnings, text),
        metadata={
            **photons.metadata,
            "exposure": exposure.to_dict(),
            "exposure_time_cut_s": time_cut_s,
            "exposure_background_rate_per_s": new_rate,
        },
    )
    return ExposureRemoval(corrected, new_rate, exposure, clock_s, time_cut_s, n_cut, added.size)


def _check(duration_s: float, exposure: Exposure, rate: float, floor: float) -> None:
    if not (np.isfinite(rate) and rate >= 0):
        raise ValueError(
            f"`background_rate_per_s` must be a rate of 0 or more in counts per s, got {rate}"
        )
    if not 0 <= floor < 1:
        raise ValueError(f"`floor` must be 0 or more and below 1, got {floor}")
    if abs(exposure.duration_s - duration_s) > 1e-6 * duration_s:
        raise ValueError(
            f"`exposure` is of {exposure.duration_s:.9g} s, but the recording of {duration_s:.9g} s"
        )


def _of(photons: Photons) -> NDArray[np.uint8]:
    return np.asarray(photons.detector, np.uint8)


def _ticks(time_s: Floats, tick_s: float) -> NDArray[np.int64]:
    # the clock increases; what its last digits say against that is rounding
    ticks = np.rint(time_s / tick_s).astype(np.int64)
    return np.asarray(np.maximum.accumulate(ticks), np.int64)


def _corrected_time_s(exposure: Exposure, clock_s: Floats, real_s: ArrayLike) -> Floats:
    values, step_s = exposure.values, exposure.step_s
    position = np.clip(np.asarray(real_s, np.float64) / step_s, 0.0, values.size - 1)
    step = np.minimum(position.astype(np.int64), values.size - 2)
    part = position - step
    before = values[step]
    inside = part * (before + 0.5 * part * (values[step + 1] - before)) * step_s
    result: Floats = np.minimum(clock_s[step] + inside, clock_s[step + 1])
    return result


def _real_time_s(exposure: Exposure, clock_s: Floats, corrected_s: ArrayLike) -> Floats:
    wanted = np.clip(np.asarray(corrected_s, np.float64), 0.0, clock_s[-1])
    step = np.clip(np.searchsorted(clock_s, wanted, side="right") - 1, 0, clock_s.size - 2)
    # the very end may lie in a cut
    cut = clock_s[step + 1] <= clock_s[step]
    part = exposure.part_of_step(step, wanted - clock_s[step])
    return np.asarray((step + np.where(cut, 0.0, part)) * exposure.step_s, np.float64)


def _missing_background(
    exposure: Exposure, clock_s: Floats, rate: float, smallest: float, rng: np.random.Generator
) -> Floats:
    """Corrected times of the background to add: thinned from a constant rate, so exact."""
    total_s = float(clock_s[-1])
    candidates = np.sort(rng.uniform(0.0, total_s, rng.poisson(rate / smallest * total_s)))
    factor = exposure.at(_real_time_s(exposure, clock_s, candidates))
    return candidates[rng.random(candidates.size) * factor > smallest]


def _detectors(photons: Photons, n_added: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    detectors = photons.detectors
    if not detectors:
        return np.zeros(n_added, np.uint8)
    share = np.array(list(detectors.values()), np.float64)
    numbers = np.array(list(detectors), np.uint8)
    return rng.choice(numbers, n_added, p=share / share.sum())


def _delays(
    photons: Photons,
    moved: Photons,
    n_added: int,
    weights: ArrayLike | None,
    rng: np.random.Generator,
    order: NDArray[np.int64],
) -> NDArray[np.int32] | None:
    clock = delay_clock(photons)
    if clock is None or moved.delay_ticks is None:
        return None
    if weights is None:
        first, stop = recorded_ticks(delay_histogram(photons))
        # the last tick of a period may be a part of one
        last = min(float(stop), clock.period_ticks)
        drawn = np.minimum(rng.uniform(first, last, n_added), stop - 1).astype(np.int32)
    else:
        weight = np.asarray(weights, np.float64)
        if weight.ndim != 1 or not (weight >= 0).all() or not np.isfinite(weight.sum()):
            raise ValueError("`delay_weights` must be numbers of 0 or more, one per delay tick")
        if not 0 < weight.size <= clock.n_ticks or weight.sum() <= 0:
            raise ValueError(
                f"`delay_weights` must be 1 to {clock.n_ticks} weights, not all 0, got "
                f"{weight.size}"
            )
        drawn = rng.choice(weight.size, n_added, p=weight / weight.sum()).astype(np.int32)
    return np.concatenate([moved.delay_ticks, drawn])[order]
