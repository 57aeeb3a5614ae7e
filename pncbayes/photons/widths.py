"""The width of the time bins: chosen by rule, or given and checked."""

from __future__ import annotations

from numbers import Real

import numpy as np

from pncbayes.errors import PhotonFileError
from pncbayes.photons.stream import Photons

__all__ = ["check_photons", "check_width", "choose_width_s"]

_MOST_BINS = 200_000_000
_WIDTHS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)


def choose_width_s(photons: Photons) -> float:
    """Choose the width of the time bins, when the user does not.

    The brightest tenth of the record shall have about 100 counts per bin: enough to tell levels
    apart at a glance, short enough to see them. The width is rounded to the nearest of 1, 2, 5, 10,
    20, 50 ms, and is at most a tenth of the record, but no less than a tick of its clock. The
    likelihood may use a finer grid.

    Parameters
    ----------
    photons
        The recording.

    Returns
    -------
    float
        Width in s.

    Raises
    ------
    PhotonFileError
        If there are no photons or the recording has no length.
    """
    duration_s = check_photons(photons)
    # blocks of 50 counts on average: fewer, and the brightest tenth are the luckiest tenth
    pilot_s = min(max(50.0 * duration_s / len(photons), 0.01), duration_s)
    n_pilot = max(1, int(duration_s / pilot_s))
    blocks = np.bincount(
        np.minimum((photons.time_ticks * (photons.tick_s / pilot_s)).astype(np.int64), n_pilot),
        minlength=n_pilot + 1,
    )[:n_pilot]
    brightest = np.sort(blocks)[-max(1, n_pilot // 10) :].mean() / pilot_s
    wanted_s = 100.0 / max(float(brightest), 1e-9)
    width_s = min(_WIDTHS_S, key=lambda width: abs(np.log(width / wanted_s)))
    return float(min(max(min(width_s, duration_s / 10), photons.tick_s), duration_s))


def check_photons(photons: Photons) -> float:
    """Refuse what cannot be binned, and return how long the recording is.

    Parameters
    ----------
    photons
        The recording.

    Returns
    -------
    float
        Duration in s, above 0.

    Raises
    ------
    PhotonFileError
        If there are no photons or the recording has no length.
    ValueError
        If these are no `Photons`.
    """
    if not isinstance(photons, Photons):
        raise ValueError(
            f"`photons` must be Photons, got {type(photons).__name__}; `pncbayes.read` reads a file"
        )
    name = photons.path or "photons"
    if len(photons) == 0:
        raise PhotonFileError(f"{name}: there are no photons")
    duration_s = float(photons.duration_s or 0.0)
    if duration_s <= 0:
        raise PhotonFileError(f"{name}: the recording has no length; give `duration_s`")
    return duration_s


def check_width(width_s: float, duration_s: float, photons: Photons) -> int:
    """Refuse a width that does not fit the recording, and return the number of whole bins.

    Parameters
    ----------
    width_s
        Width of a bin, in s.
    duration_s
        Length of the recording, in s.
    photons
        The recording, for the tick of its clock.

    Returns
    -------
    int
        1 or more.

    Raises
    ------
    ValueError
        If the width is not a positive number, exceeds the recording, is less than a tick, or makes
        too many bins.
    """
    number = isinstance(width_s, Real) and not isinstance(width_s, bool)
    if not number or not 0 < width_s < float("inf"):
        raise ValueError(
            f"`width_s` must be a positive number of seconds, got {width_s!r}; leave it out to "
            "have it chosen"
        )
    if width_s > duration_s:
        raise ValueError(
            f"`width_s` must be at most the length of the recording, {duration_s:.6g} s, "
            f"got {width_s} s"
        )
    if width_s < photons.tick_s:
        raise ValueError(
            f"`width_s` must be at least one tick of the clock, {photons.tick_s:.6g} s, "
            f"got {width_s} s"
        )
    n_bins = int(np.floor(duration_s / width_s * (1 + 1e-12) + 1e-9))
    if n_bins > _MOST_BINS:
        raise ValueError(
            f"`width_s` = {width_s} s makes {n_bins} bins in {duration_s:.6g} s, at most "
            f"{_MOST_BINS} are allowed; give {duration_s / _MOST_BINS:.2g} s or more"
        )
    return max(1, n_bins)
