"""The instrument response: measured, or estimated from the rise of the decay."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special
from numpy.typing import NDArray

from pncbayes.errors import PhotonFileError, PncbayesWarning
from pncbayes.photons.delays import DelayClock, delay_clock, delay_histogram
from pncbayes.photons.rise import Rise, fit_rise
from pncbayes.photons.stream import Photons

__all__ = [
    "LoadedResponse",
    "Rise",
    "estimate_response",
    "fit_rise",
    "gaussian_on_clock",
    "load_response",
]

# Clocks of data and response may differ by this much, relatively.
_CLOCK_TOLERANCE = 1e-3
# A response is at most this many of its widths away from the rise of the data, and as wide as
# this many times that rise.
_MOST_WIDTHS = 6.0
# Share of a Gaussian within its width at half maximum.
_WITHIN_HALF = 0.761
_TEXT_ENDINGS = (".txt", ".dat", ".csv", ".asc", ".tsv")


@dataclass(frozen=True, eq=False)
class LoadedResponse:
    """A response on the delay clock of the data.

    Parameters
    ----------
    weight
        Share of each tick, shape ``(n_ticks,)``, sum 1.
    source
        Where it came from, in words.
    """

    weight: NDArray[np.float64]
    source: str


def gaussian_on_clock(center_ns: float, sd_ns: float, clock: DelayClock) -> NDArray[np.float64]:
    """Gaussian response on the delay clock, wrapped around the period, sum 1.

    Returns
    -------
    numpy.ndarray, shape ``(n_ticks,)``
    """
    edges = np.arange(clock.n_ticks + 1) * clock.tick_ns
    edges[-1] = clock.period_ns
    weight = np.zeros(clock.n_ticks)
    for image in (-1, 0, 1):
        u = (edges - center_ns + image * clock.period_ns) / sd_ns
        weight += np.diff(scipy.special.ndtr(u))
    return weight / weight.sum()


def estimate_response(
    histogram: NDArray[np.int64], clock: DelayClock, *, name: str = "photons"
) -> NDArray[np.float64] | None:
    """Estimate the response from the rise of the data themselves.

    Parameters
    ----------
    histogram
        Photons per tick, shape ``(n_ticks,)``.
    clock
        The delay clock.
    name
        What to call the recording in the warning.

    Returns
    -------
    numpy.ndarray or None
        A Gaussian on the delay clock, shape ``(n_ticks,)``, sum 1 (`fit_rise`); None without pulse.

    Warns
    -----
    PncbayesWarning
        Always: such a response hides what is faster than itself.
    """
    rise = fit_rise(histogram, clock)
    if rise is None:
        warnings.warn(
            f"{name}: the delays show no laser pulse, so there is no response and no lifetime",
            PncbayesWarning,
            stacklevel=2,
        )
        return None
    warnings.warn(
        f"{name}: the response was estimated from the rise of the decay (Gaussian, "
        f"{rise.width_ns:.3g} ns wide at half maximum, centre {rise.center_ns:.4g} ns): lifetimes "
        "near or below that width are uncertain; give a measured response",
        PncbayesWarning,
        stacklevel=2,
    )
    return gaussian_on_clock(rise.center_ns, rise.sd_ns, clock)


def load_response(
    response: Any,
    clock: DelayClock,
    histogram: NDArray[np.int64],
    *,
    name: str = "photons",
    shift_ticks: dict[int, int] | None = None,
) -> LoadedResponse | None:
    """Bring a response onto the delay clock of the data.

    Parameters
    ----------
    response
        None: estimated from the rise of the data, with a warning. A number: the standard deviation,
        in ns, of a Gaussian at the rise of the data. A path: a recording of the response, or a text
        file of two columns (delay in ns, counts). `Photons` of such a recording. An array: counts
        per tick of the delay clock of the data.
    clock
        Delay clock of the data.
    histogram
        Delay histogram of the data, shape ``(n_ticks,)``.
    name
        What to call the data in messages.
    shift_ticks
        Alignment of the detectors of the data, applied to those of the response as well.

    Returns
    -------
    LoadedResponse or None
        None when the data show no pulse to estimate a response from. A flat floor is taken off a
        measured response (its median tick), and ticks that do not rise above the noise of that
        floor are set to zero.

    Raises
    ------
    PhotonFileError
        "response with another clock": its tick or its period differs by more than 0.1 % from that
        of the data, or an array has more than 1 % more or fewer ticks than the period.
    """
    if response is None:
        estimated = estimate_response(histogram, clock, name=name)
        return None if estimated is None else LoadedResponse(estimated, "estimated from the rise")
    if isinstance(response, bool):
        raise PhotonFileError(f"{name}: `response` must be a file, photons, array or number")
    if isinstance(response, int | float | np.integer | np.floating):
        return _gaussian_at_rise(float(response), clock, histogram, name)
    if isinstance(response, str | os.PathLike):
        path = os.fspath(response)
        if path.lower().endswith(_TEXT_ENDINGS):
            weight = _clean(_fit_length(_read_text(path, clock), clock, path), path)
            _check_belongs(weight, clock, histogram, path)
            return LoadedResponse(weight, f"measured: {path}")
        from pncbayes.photons.formats import read

        response = read(path)
    if isinstance(response, Photons):
        label = response.path or "response"
        weight = _clean(_histogram_of(response, clock, label, shift_ticks), label)
        _check_belongs(weight, clock, histogram, label)
        return LoadedResponse(weight, f"measured: {label}")
    weight = np.asarray(response, dtype=np.float64)
    weight = _clean(_fit_length(weight, clock, "response"), "response")
    _check_belongs(weight, clock, histogram, "response")
    return LoadedResponse(weight, "measured: array")


def _check_belongs(
    weight: NDArray[np.float64], clock: DelayClock, histogram: NDArray[np.int64], label: str
) -> None:
    """Refuse a response that is far from the rise of the data, or wider than it can be."""
    rise = fit_rise(histogram, clock)
    if rise is None:
        return
    tick = clock.tick_ns
    highest = np.sort(weight)[::-1]
    width_ns = float(np.searchsorted(np.cumsum(highest), _WITHIN_HALF) + 1) * tick
    angle = 2j * np.pi / weight.size
    # of the core alone: tails and afterpulses are not where it is
    core = np.where(weight >= 0.2 * highest[0], weight, 0.0)
    middle_ns = np.angle(core @ np.exp(angle * (np.arange(weight.size) + 0.5)))
    middle_ns *= clock.period_ns / (2.0 * np.pi)
    apart_ns = (middle_ns - rise.center_ns + clock.period_ns / 2) % clock.period_ns
    apart_ns -= clock.period_ns / 2
    if width_ns > _MOST_WIDTHS * max(rise.width_ns, 2.0 * tick):
        raise PhotonFileError(
            f"{label}: no response of these data: it is {width_ns:.4g} ns wide, but they rise "
            f"within {rise.width_ns:.4g} ns; a response is measured on scattered laser light, not "
            "on the emitter"
        )
    if abs(apart_ns) > _MOST_WIDTHS * max(width_ns, rise.width_ns, 2.0 * tick):
        raise PhotonFileError(
            f"{label}: the response lies {apart_ns:.4g} ns from the rise of the data: another "
            "delay setting or cable; shift its delays, or give the sd of a Gaussian in ns instead"
        )


def _gaussian_at_rise(
    sd_ns: float, clock: DelayClock, histogram: NDArray[np.int64], name: str
) -> LoadedResponse:
    if not (np.isfinite(sd_ns) and 0 < sd_ns < clock.period_ns / 10):
        raise PhotonFileError(
            f"{name}: `response` as a number is the sd of a Gaussian in ns, above 0 and below a "
            f"tenth of the laser period ({clock.period_ns / 10:.4g} ns), got {sd_ns}"
        )
    rise = fit_rise(histogram, clock)
    if rise is None:
        raise PhotonFileError(f"{name}: the delays show no laser pulse to put a response at")
    return LoadedResponse(
        gaussian_on_clock(rise.center_ns, sd_ns, clock), f"Gaussian of {sd_ns:g} ns at the rise"
    )


def _other_clock(label: str, what: str) -> PhotonFileError:
    return PhotonFileError(
        f"{label}: response with another clock: {what}; measure it with the settings of the data"
    )


def _histogram_of(
    photons: Photons, clock: DelayClock, label: str, shift_ticks: dict[int, int] | None
) -> NDArray[np.float64]:
    own = delay_clock(photons)
    if own is None or len(photons) == 0:
        raise PhotonFileError(f"{label}: a response needs photons with delays, this has none")
    if abs(own.tick_ns / clock.tick_ns - 1.0) > _CLOCK_TOLERANCE:
        raise _other_clock(label, f"tick {own.tick_ns:.6g} ns, in the data {clock.tick_ns:.6g} ns")
    known = own.known_period and clock.known_period
    if known and abs(own.period_ns / clock.period_ns - 1.0) > _CLOCK_TOLERANCE:
        raise _other_clock(
            label, f"period {own.period_ns:.6g} ns, in the data {clock.period_ns:.6g} ns"
        )
    counts = delay_histogram(photons, shift_ticks).astype(np.float64)
    if own.n_ticks == clock.n_ticks or not known:
        padded = np.zeros(clock.n_ticks)
        padded[: min(counts.size, clock.n_ticks)] = counts[: clock.n_ticks]
        return padded
    return _fit_length(counts, clock, label)


def _fit_length(counts: NDArray[np.float64], clock: DelayClock, label: str) -> NDArray[np.float64]:
    if counts.ndim != 1 or abs(counts.size / clock.n_ticks - 1.0) > 0.01:
        raise _other_clock(
            label, f"shape {counts.shape}, the laser period of the data has {clock.n_ticks} ticks"
        )
    folded = np.zeros(clock.n_ticks)
    np.add.at(folded, np.arange(counts.size) % clock.n_ticks, counts)
    return folded


def _read_text(path: str, clock: DelayClock) -> NDArray[np.float64]:
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.replace(",", " ").replace(";", " ").split() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise PhotonFileError(f"{path}: cannot be read as a text file ({error})") from error
    numbers = [_is_numbers(line) for line in lines]
    first = numbers.index(True) if any(numbers) else len(lines)
    for number, (line, good) in enumerate(zip(lines, numbers, strict=True), 1):
        if number > first and line and not good and not line[0].startswith("#"):
            raise PhotonFileError(
                f"{path}: line {number} of the response is no pair of numbers: "
                f"{' '.join(line)[:40]!r}; repair or remove it"
            )
    rows = [[float(word) for word in line[:2]] for line in lines if _is_numbers(line)]
    table = np.array(rows, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] < 2:
        raise PhotonFileError(
            f"{path}: a response as text needs two columns, delay in ns and counts"
        )
    step = float(np.median(np.diff(table[:, 0])))
    if abs(step / clock.tick_ns - 1.0) > _CLOCK_TOLERANCE:
        raise _other_clock(path, f"tick {step:.6g} ns, in the data {clock.tick_ns:.6g} ns")
    # each row at its own delay: rows without counts may have been left out
    tick = np.rint((table[:, 0] - table[0, 0]) / clock.tick_ns).astype(np.int64)
    tick += max(round(table[0, 0] / clock.tick_ns), 0)
    if np.any(np.diff(tick) < 1):
        raise PhotonFileError(f"{path}: the delays of a response must increase from row to row")
    counts = np.zeros(int(tick[-1]) + 1)
    counts[tick] = table[:, 1]
    return counts


def _is_numbers(words: list[str]) -> bool:
    if len(words) < 2:
        return False
    try:
        float(words[0])
        float(words[1])
    except ValueError:
        return False
    return True


def _clean(counts: NDArray[np.float64], label: str) -> NDArray[np.float64]:
    if not np.all(np.isfinite(counts)) or np.any(counts < 0) or not counts.sum() > 0:
        raise PhotonFileError(f"{label}: a response must be finite numbers >= 0 and not all zero")
    floor = float(np.median(counts))
    above = counts - floor
    if floor > 0:
        # nine ticks together, so that single ticks of noise do not pass for a tail
        smooth = np.convolve(
            np.concatenate([above[-4:], above, above[:4]]), np.ones(9) / 9, "valid"
        )
        above = np.where(smooth > 3.0 * np.sqrt(floor / 9.0), np.maximum(above, 0.0), 0.0)
    if not above.sum() > 0:
        raise PhotonFileError(f"{label}: the response is flat, without a pulse")
    return np.asarray(above / above.sum())
