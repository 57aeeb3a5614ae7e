"""Screen a recording for periodic modulation, which a count of states would mistake for states."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pncbayes.photons.spectrum_depths import (
    Demodulated,
    LineDepth,
    demodulate,
    line_depth,
    power_at,
)
from pncbayes.photons.spectrum_peaks import Peak, Spectrum, count_spectrum, search_peaks
from pncbayes.photons.stream import Photons

__all__ = ["SpectralLine", "SpectralSearch", "search_lines", "spectral_lines"]

Floats = NDArray[np.float64]

_LOWEST_HZ = 0.1
_HIGHEST_HZ = 10_000.0
# Fewer cycles than photons do not hide a line, but few photons do not show one far up.
_CYCLES_PER_PHOTON = 4.0
_LEAST_HIGHEST_HZ = 500.0
_SHORTEST_S = 4.0
FEWEST_PHOTONS = 1000
# Chance of one false line in a recording of steady or blinking light.
_FALSE_ALARM = 1e-4
_MOST_HARMONIC = 20
_MOST_LINES = 12
# Modulation up to four times the sampling rate is recognised, as of alternating lasers.
_MIRRORS = 4
_LEAST_SHARE = 0.25
# A peak this close to a stronger one is its sideband.
_SIDEBAND_HZ = 5.0
_SIDEBAND_SHARE = 0.03
_SIDEBAND_POWER = 0.5


@dataclass(frozen=True)
class SpectralLine:
    """A line in the spectrum of the counts, with its harmonics.

    Attributes
    ----------
    frequency_hz
        Frequency in Hz, of the fundamental.
    depth
        Amplitude of the sinusoid over the mean count rate.
    depth_sd
        Standard error of `depth`; NaN when not known.
    log_p
        Logarithm of the probability of such a line by chance, anywhere in the recording: an upper
        bound, for all frequencies and widths that were searched.
    linewidth_hz
        Full width at half maximum, in Hz, of a line whose phase walks at random.
    resolution_hz
        One over the duration, in Hz: what is narrower cannot be told from a stable phase.
    harmonics_hz, harmonic_depths
        Multiples of `frequency_hz` that were found as lines, in Hz, and their depths.
    sidebands_hz
        Peaks beside the line and its harmonics, in Hz.
    depth_bright, depth_bright_sd, depth_dim, depth_dim_sd
        Depth and standard error in windows (50 ms or more) above and below the middle between dim
        and bright; NaN when the brightness hardly changes.
    is_common
        True when both depths are equal within errors, as of an instrument that multiplies all
        light; False when they are not; None when that cannot be told.
    """

    frequency_hz: float
    depth: float
    depth_sd: float = float("nan")
    log_p: float = float("nan")
    linewidth_hz: float = float("nan")
    resolution_hz: float = float("nan")
    harmonics_hz: tuple[float, ...] = ()
    harmonic_depths: tuple[float, ...] = ()
    sidebands_hz: tuple[float, ...] = ()
    depth_bright: float = float("nan")
    depth_bright_sd: float = float("nan")
    depth_dim: float = float("nan")
    depth_dim_sd: float = float("nan")
    is_common: bool | None = None

    @property
    def p_value(self) -> float:
        """Probability of such a line by chance, at most."""
        return math.exp(self.log_p) if math.isfinite(self.log_p) else float("nan")

    @property
    def is_drifting(self) -> bool:
        """Whether the line is wider than that of a stable phase."""
        return bool(self.linewidth_hz > 0.5 * self.resolution_hz)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and the p-value, for JSON."""
        return {**asdict(self), "p_value": self.p_value, "is_drifting": self.is_drifting}


@dataclass(frozen=True)
class SpectralSearch:
    """Lines of a recording, and what a figure needs to show them.

    Attributes
    ----------
    lines
        Strongest first.
    spectrum
        The spectrum searched; None when the recording is too short.
    strongest
        Demodulated photons and depth of the strongest line, or None.
    """

    lines: list[SpectralLine]
    spectrum: Spectrum | None = None
    strongest: tuple[Demodulated, LineDepth] | None = None


def spectral_lines(photons: Photons) -> list[SpectralLine]:
    """Find narrow lines between 0.1 Hz and 10 kHz in the spectrum of the counts.

    Blinking has a broad, smooth spectrum; a narrow line is the mark of the instrument (mains,
    vibration, laser). Lines up to 4 Hz wide are found, so the phase may drift. At least 30 cycles
    must fit into the recording; below 5 Hz only narrow lines are reported, and of these only strong
    ones; above four times the count rate nothing is searched (500 Hz at least). In steady, blinking
    or flickering light a false line is found in fewer than one recording in 100.

    Parameters
    ----------
    photons
        The recording; shorter than 4 s or with fewer than 1000 photons it is not screened.

    Returns
    -------
    list of SpectralLine
        Strongest first; harmonics and sidebands belong to their line.
    """
    return search_lines(photons).lines


def search_lines(photons: Photons) -> SpectralSearch:
    """Find the lines as `spectral_lines` does, and keep what a figure shows."""
    duration_s = float(photons.duration_s or 0.0)
    if duration_s < _SHORTEST_S or len(photons) < FEWEST_PHOTONS:
        return SpectralSearch([])
    time_s = photons.time_s
    rate_per_s = len(photons) / duration_s
    highest_hz = min(_HIGHEST_HZ, max(_LEAST_HIGHEST_HZ, _CYCLES_PER_PHOTON * rate_per_s))
    spectrum = count_spectrum(time_s, duration_s, highest_hz)
    peaks = search_peaks(spectrum, _LOWEST_HZ, _FALSE_ALARM)
    measured = []
    for main, sidebands in _with_sidebands(peaks)[:_MOST_LINES]:
        for frequency_hz in _mirrored(main.frequency_hz, spectrum.sampling_hz):
            demodulated = demodulate(time_s, duration_s, frequency_hz)
            # of a frequency of which the peak is but a mirror image the photons know nothing
            if power_at(demodulated, main.width_hz) < _LEAST_SHARE * main.excess:
                continue
            depth = line_depth(demodulated, main.width_hz)
            if depth is not None:
                measured.append((main, sidebands, demodulated, depth))
                break
    lines, strongest = _with_harmonics(measured, 1.0 / duration_s)
    return SpectralSearch(lines, spectrum, strongest)


def _mirrored(frequency_hz: float, sampling_hz: float) -> Iterator[float]:
    """A frequency, and those that sampled counts show there as well."""
    yield frequency_hz
    for order in range(1, _MIRRORS + 1):
        yield order * sampling_hz - frequency_hz
        yield order * sampling_hz + frequency_hz


def _with_sidebands(peaks: list[Peak]) -> list[tuple[Peak, list[Peak]]]:
    """Give each peak beside a stronger one to it; strongest first."""
    groups: list[tuple[Peak, list[Peak]]] = []
    for peak in sorted(peaks, key=lambda one: -one.excess):
        for main, sidebands in groups:
            reach_hz = max(_SIDEBAND_HZ, _SIDEBAND_SHARE * main.frequency_hz, 3.0 * main.width_hz)
            reach_hz = min(reach_hz, 0.1 * main.frequency_hz + 3.0 * main.width_hz)
            near = abs(peak.frequency_hz - main.frequency_hz) < reach_hz
            if near and peak.excess < _SIDEBAND_POWER * main.excess:
                sidebands.append(peak)
                break
        else:
            groups.append((peak, []))
    return groups


_Measured = tuple[Peak, list[Peak], Demodulated, LineDepth]


def _with_harmonics(
    measured: list[_Measured], resolution_hz: float
) -> tuple[list[SpectralLine], tuple[Demodulated, LineDepth] | None]:
    families: list[list[_Measured]] = []
    for one in sorted(measured, key=lambda item: item[3].frequency_hz):
        frequency = one[3].frequency_hz
        for family in families:
            base, width = family[0][3].frequency_hz, family[0][0].width_hz
            order = round(frequency / base)
            # the phase of a drifting line drifts in its harmonics by as many times more
            reach_hz = 0.25 * order * (width + resolution_hz) + 0.5 * one[0].width_hz
            near = abs(frequency - order * base) < min(reach_hz, 0.1 * base)
            if 2 <= order <= _MOST_HARMONIC and near:
                family.append(one)
                break
        else:
            families.append([one])
    families.sort(key=lambda family: -max(one[3].depth[0] for one in family))
    lines = [_line(family, resolution_hz) for family in families]
    strongest = (families[0][0][2], families[0][0][3]) if families else None
    return lines, strongest


def _line(family: list[_Measured], resolution_hz: float) -> SpectralLine:
    depth = family[0][3]
    sidebands = sorted(peak.frequency_hz for one in family for peak in one[1])
    return SpectralLine(
        frequency_hz=depth.frequency_hz,
        depth=depth.depth[0],
        depth_sd=depth.depth[1],
        log_p=min(one[0].log_p for one in family),
        linewidth_hz=depth.linewidth_hz,
        resolution_hz=resolution_hz,
        harmonics_hz=tuple(one[3].frequency_hz for one in family[1:]),
        harmonic_depths=tuple(one[3].depth[0] for one in family[1:]),
        sidebands_hz=tuple(sidebands),
        depth_bright=depth.bright[0],
        depth_bright_sd=depth.bright[1],
        depth_dim=depth.dim[0],
        depth_dim_sd=depth.dim[1],
        is_common=depth.is_common,
    )
