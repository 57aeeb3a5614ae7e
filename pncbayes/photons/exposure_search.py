"""Find the exposure of a recording: its lines, one after another, until none is left."""

from __future__ import annotations

from pncbayes.photons.exposure import combine, estimate_periodic
from pncbayes.photons.exposure_curve import Exposure
from pncbayes.photons.exposure_removal import remove_exposure
from pncbayes.photons.spectrum import spectral_lines
from pncbayes.photons.stream import Photons

__all__ = ["find_exposure"]

_MOST_LINES = 8
# Log Bayes factor that a line has to have.
_LEAST_LOG_BAYES_FACTOR = 5.0
# Lines nearer than this to one that was refused are not tried again, in Hz.
# Share of its frequency in which a slow line is looked for.
_SEARCHED = 0.2
_SAME_HZ = 0.3
_SEED = 20_261_201


def find_exposure(photons: Photons, *, background_rate_per_s: float) -> Exposure | None:
    """Follow each spectral line, take it out, and look for the next.

    Parameters
    ----------
    photons
        The recording.
    background_rate_per_s
        Counts per s that no exposure modulates.

    Returns
    -------
    Exposure or None
        None where there is no line.
    """
    known: Exposure | None = None
    refused: list[float] = []
    for _ in range(_MOST_LINES):
        rest = photons
        if known is not None:
            rest = remove_exposure(
                photons, known, background_rate_per_s=background_rate_per_s, random_seed=_SEED
            ).photons
        # what only bright or only dim windows have is no exposure
        lines = [
            line.frequency_hz
            for line in spectral_lines(rest)
            if line.is_common is not False
            and all(abs(line.frequency_hz - other) > _SAME_HZ for other in refused)
        ]
        if not lines:
            break
        found = estimate_periodic(
            photons, lines[0], background_rate_per_s=background_rate_per_s, known=known,
            search_hz=min(1.0, _SEARCHED * lines[0]),
        )  # fmt: skip
        if found.log_bayes_factor < _LEAST_LOG_BAYES_FACTOR:
            refused.append(lines[0])
            continue
        # what is left beside a line that was followed is too faint to follow
        refused.append(lines[0])
        known = found if known is None else combine(known, found)
    return known
