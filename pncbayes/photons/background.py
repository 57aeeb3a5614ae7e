"""Background: light that knows nothing of the emitter, from late delays and dim moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.special
import scipy.stats
from numpy.typing import NDArray

from pncbayes.errors import PhotonFileError
from pncbayes.photons.delays import delay_clock, delay_histogram, fold_table
from pncbayes.photons.pulse import find_pulse, recorded_ticks, rise_start
from pncbayes.photons.stream import Photons

__all__ = ["Background", "background_from_dark", "estimate_background", "floor_ticks"]

# Prior mean of the share of the signal that is spread flat over the period (afterpulses, tails).
_FLAT_SHARE_PRIOR = 0.05
# Blocks of the record are sorted by brightness into this many groups.
_N_GROUPS = 20


@dataclass(frozen=True)
class Background:
    """Rate of the background, all detectors together.

    Parameters
    ----------
    rate_per_s, sd_per_s
        Posterior mean and standard deviation, in counts per s; NaN when not known.
    upper_per_s
        A rate that the background does not exceed (95 %), in counts per s: the flat floor of the
        delays or the dimmest part of the record, whichever is lower.
    method
        How it was found, in words.
    flat_share, flat_share_sd
        Share of the signal that lies flat over the period, as afterpulses do; NaN when not known.
    """

    rate_per_s: float
    sd_per_s: float
    upper_per_s: float
    method: str
    flat_share: float = float("nan")
    flat_share_sd: float = float("nan")

    def quantile_per_s(self, probability: float) -> float:
        """Quantile of the rate, from the gamma distribution of the same mean and sd."""
        if not (self.rate_per_s > 0 and self.sd_per_s > 0):
            return float("nan")
        shape = (self.rate_per_s / self.sd_per_s) ** 2
        scale = self.sd_per_s**2 / self.rate_per_s
        return float(scipy.stats.gamma.ppf(probability, shape, scale=scale))


def background_from_dark(dark: Photons) -> Background:
    """Background from a recording without an emitter.

    The posterior of the rate is a gamma distribution (Jeffreys prior).

    Raises
    ------
    PhotonFileError
        If the dark recording has no length.
    """
    if not dark.duration_s or dark.duration_s <= 0:
        raise PhotonFileError(f"{dark.path or 'dark recording'}: its duration is zero")
    shape = len(dark) + 0.5
    upper = scipy.stats.gamma.ppf(0.95, shape, scale=1.0 / dark.duration_s)
    return Background(
        shape / dark.duration_s,
        float(np.sqrt(shape)) / dark.duration_s,
        float(upper),
        f"dark recording of {len(dark)} photons in {dark.duration_s:g} s",
    )


def estimate_background(photons: Photons, shift_ticks: dict[int, int] | None = None) -> Background:
    """Infer the background rate from the recording itself.

    Photons in the stretch of delays before the pulse, where the decay has run out, are background,
    or a small flat share of the signal (the tail of the decay, afterpulses). The first does not
    follow the brightness of the emitter, the second does. So the record is cut into blocks,
    these are sorted by the brightness of one random half of the photons, and with the other half

    ``floor[group] ~ Poisson(f (b T[group] + share * signal[group]))``

    is fitted, with a flat prior of ``b >= 0``. The share is expected to be what the slope of the
    late decay, continued as an exponential, leaves there (within 30 %), plus afterpulses and slower
    tails (exponential prior of mean 0.05). The background cannot exceed the dimmest group. The
    posterior is summed on a grid. In an emitter that is always as bright as now, only that prior
    tells the two apart, and the standard deviation says so.

    Parameters
    ----------
    photons
        The recording.
    shift_ticks
        Ticks to add to the delays of a detector, by its number.

    Returns
    -------
    Background
        Without delays, or without a pulse in them, the rate is NaN and only its upper limit, the
        dimmest part of the record, is given.

    Raises
    ------
    PhotonFileError
        If there are no photons or the recording has no length.
    """
    duration_s = photons.duration_s or 0.0
    if len(photons) == 0 or duration_s <= 0:
        raise PhotonFileError(f"{photons.path or 'photons'}: no photons to infer a background from")
    block_s = float(np.clip(20.0 * duration_s / len(photons), 0.005, duration_s / 10))
    n_blocks = int(duration_s / block_s)
    block = np.minimum((photons.time_ticks * (photons.tick_s / block_s)).astype(np.int64), n_blocks)
    half = _random_half(photons)
    in_floor, fraction, tail_share = _floor_photons(photons, shift_ticks)

    def per_block(keep: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(block[keep], minlength=n_blocks + 1)[:n_blocks]

    order = np.argsort(per_block(half & ~in_floor), kind="stable")
    n_groups = max(1, min(_N_GROUPS, n_blocks // 3))
    groups = np.array_split(order, n_groups)
    outside_blocks, floor_blocks = per_block(~half & ~in_floor), per_block(in_floor)
    outside = np.array([outside_blocks[g].sum() for g in groups], dtype=np.float64)
    floor = np.array([floor_blocks[g].sum() for g in groups], dtype=np.float64)
    time_s = np.array([g.size * block_s for g in groups])
    share_kept = 1.0 - float(half.mean())
    dim_upper = float(
        scipy.stats.gamma.ppf(0.95, outside[0] + 1.0, scale=1.0 / (share_kept * time_s[0]))
    ) / (1.0 - fraction)
    if fraction == 0:
        return Background(
            float("nan"), float("nan"), dim_upper, "upper limit from the dimmest part of the record"
        )
    floor_upper = scipy.stats.gamma.ppf(0.95, floor.sum() + 1.0) / (fraction * time_s.sum())
    return _grid_posterior(
        floor,
        outside / share_kept,
        time_s,
        fraction,
        share_kept,
        tail_share,
        min(dim_upper, floor_upper),
    )


def _grid_posterior(
    floor: NDArray[np.float64],
    outside: NDArray[np.float64],
    time_s: NDArray[np.float64],
    fraction: float,
    share_kept: float,
    tail_share: float,
    upper: float,
) -> Background:
    total_s = float(time_s.sum())
    most = (floor.sum() + 6.0 * np.sqrt(floor.sum() + 1.0) + 6.0) / (fraction * total_s)
    rate = (np.arange(400) + 0.5) / 400 * most
    signal_rate = max(float(outside.sum()) / total_s, 1e-9)
    share = (np.arange(200) + 0.5) / 200 * min(1.0, 1.5 * most / signal_rate)
    signal = np.maximum(outside - rate[:, None] * time_s * (1.0 - fraction), 0.0)
    mean = fraction * (rate[:, None, None] * time_s + share[None, :, None] * signal[:, None, :])
    log_posterior = (scipy.special.xlogy(floor, mean) - mean).sum(axis=-1)
    below = np.minimum(share - tail_share, 0.0) / max(0.3 * tail_share, 1e-12)
    log_posterior += -0.5 * below**2 - np.maximum(share - tail_share, 0.0) / _FLAT_SHARE_PRIOR
    # the dimmest group holds the background and any amount of signal
    expected = rate * time_s[0] * (1.0 - fraction) * share_kept
    reached = scipy.special.gammaincc(outside[0] * share_kept + 1.0, expected)
    log_posterior += np.log(np.maximum(reached, 1e-300))[:, None]
    weight = np.exp(log_posterior - log_posterior.max())
    weight /= weight.sum()
    of_rate, of_share = weight.sum(axis=1), weight.sum(axis=0)
    mean_rate, mean_share = float(of_rate @ rate), float(of_share @ share)
    sd_rate = float(np.sqrt(max(of_rate @ (rate - mean_rate) ** 2, (most / 400) ** 2 / 12)))
    sd_share = float(np.sqrt(of_share @ (share - mean_share) ** 2))
    method = (
        f"delays before the pulse ({100 * fraction:.3g} % of the period, "
        f"{int(floor.sum())} photons) extrapolated to no signal"
    )
    return Background(mean_rate, sd_rate, float(upper), method, mean_share, sd_share)


def _random_half(photons: Photons) -> NDArray[np.bool_]:
    # the last bits of the clocks are as good as a coin, and need no seed
    coin = photons.time_ticks & 1
    if photons.delay_ticks is not None:
        coin = coin ^ (photons.delay_ticks & 1)
    half = coin.astype(bool)
    if not 0.4 < half.mean() < 0.6:
        # a clock that counts in even ticks: mix the photons by their number instead
        number = np.arange(len(photons), dtype=np.uint64)
        number = (number ^ (number >> np.uint64(7))) * np.uint64(0x9E3779B97F4A7C15)
        half = ((number ^ (number >> np.uint64(31))) >> np.uint64(13) & np.uint64(1)).astype(bool)
    return half


def floor_ticks(histogram: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ticks before the pulse in which the decay has run out.

    Counted back from the rise: a twentieth of the period, doubled as long as the added ticks are
    not brighter by more than two standard deviations, up to 0.4 of the period.

    Parameters
    ----------
    histogram
        Photons per tick, shape ``(n_ticks,)``.

    Returns
    -------
    numpy.ndarray
        Tick numbers; empty when there is no pulse.
    """
    counts = np.asarray(histogram, dtype=np.float64)
    order = _ticks_back_from_rise(counts)
    length = max(1, order.size // 20)
    if order.size < 8:
        return np.empty(0, np.int64)
    while 2 * length <= 0.4 * order.size:
        near = counts[order[:length]].sum()
        added = counts[order[length : 2 * length]].sum()
        if added - near > 2.0 * np.sqrt(near + added + 1.0):
            break
        length *= 2
    return np.sort(order[:length])


def _ticks_back_from_rise(counts: NDArray[np.float64]) -> NDArray[np.int64]:
    pulse = find_pulse(counts)
    if pulse is None:
        return np.empty(0, np.int64)
    first, stop = recorded_ticks(counts)
    rise = int(np.clip(rise_start(counts, pulse), first, stop - 1))
    return np.concatenate([np.arange(rise - 1, first - 1, -1), np.arange(stop - 1, rise - 1, -1)])


def _tail_share(counts: NDArray[np.float64]) -> float:
    """Flat-equivalent share of the signal that its exponential tail leaves before the pulse."""
    order = _ticks_back_from_rise(counts)
    length = order.size // 10
    if length < 1:
        return 0.0
    near, middle, far = (counts[order[i * length : (i + 1) * length]].sum() for i in range(3))
    fall = middle - near
    ratio = (far - middle) / max(fall, 1.0)
    # a decay gets steeper backwards; what does not is noise
    if fall <= 3.0 * np.sqrt(near + middle + 1.0) or ratio < 1.05:
        return 0.0
    return float(min(fall / (ratio - 1.0), near) * 10.0 / counts.sum())


def _floor_photons(
    photons: Photons, shift_ticks: dict[int, int] | None
) -> tuple[NDArray[np.bool_], float, float]:
    clock = delay_clock(photons)
    nothing = np.zeros(len(photons), dtype=bool)
    if clock is None or photons.delay_ticks is None or photons.detector is None:
        return nothing, 0.0, 0.0
    histogram = delay_histogram(photons, shift_ticks)
    ticks = floor_ticks(histogram)
    if ticks.size == 0:
        return nothing, 0.0, 0.0
    is_floor = np.zeros(clock.n_ticks, dtype=bool)
    is_floor[ticks] = True
    first, stop = recorded_ticks(histogram)
    longest = int(photons.delay_ticks.max())
    keep = nothing
    for number in photons.detectors:
        folded = fold_table(clock, longest, (shift_ticks or {}).get(number, 0))
        keep |= (photons.detector == number) & is_floor[folded][photons.delay_ticks]
    tail_share = _tail_share(histogram.astype(np.float64))
    return keep, ticks.size / (stop - first), tail_share
