"""Screening of a recording before any count of states: what the instrument does to the light."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pncbayes.photons.screening_detectors import (
    AfterpulseFinding,
    BalanceFinding,
    DeadTimeFinding,
    LagCurve,
    find_afterpulses,
    find_balance,
    find_dead_time,
    lag_curve,
)
from pncbayes.photons.screening_events import Burst, Gap, find_bursts, find_gaps
from pncbayes.photons.screening_slow import (
    BackgroundFinding,
    DriftFinding,
    find_background_step,
    find_drift,
)
from pncbayes.photons.spectrum import FEWEST_PHOTONS, SpectralLine, search_lines
from pncbayes.photons.spectrum_depths import fold_line
from pncbayes.photons.stream import Photons

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Screening", "ScreeningCurves", "screen"]

Floats = NDArray[np.float64]

_N_COLUMNS = 1500
_N_SPECTRUM = 1200


@dataclass(frozen=True, eq=False)
class ScreeningCurves:
    """What a figure of a screening draws.

    Attributes
    ----------
    spectrum
        Frequency in Hz, mean and largest power over that of shot noise, each ``(n,)``.
    waveform
        Rate over mean and standard error along the strongest line, by ``"bright"`` and ``"dim"``,
        or ``"all"``, each ``(n_phases,)``; empty without a line.
    time_s, rate_per_s
        Start of each bin and its rate, shape ``(n_bins,)``.
    lags
        Correlations at microseconds, or None.
    """

    spectrum: tuple[Floats, Floats, Floats]
    waveform: dict[str, tuple[Floats, Floats]]
    time_s: Floats
    rate_per_s: Floats
    lags: LagCurve | None


@dataclass(frozen=True, eq=False)
class Screening:
    """What was found in a recording that is probably not the emitter.

    Attributes
    ----------
    n_photons, duration_s
        Size of the recording.
    problem
        Why the recording could not be screened; empty otherwise.
    lines
        Periodic modulation, strongest first.
    balance, afterpulses, dead_time
        Of the detectors.
    drift, background
        Slow changes.
    bursts, gaps
        In order of time.
    n_dark_periods
        Periods without a photon that are too many to be gaps: the dark state has no background.
    curves
        For the figure; None when the recording could not be screened.
    """

    n_photons: int
    duration_s: float
    problem: str = ""
    lines: list[SpectralLine] = field(default_factory=list)
    balance: BalanceFinding | None = None
    afterpulses: AfterpulseFinding | None = None
    dead_time: DeadTimeFinding | None = None
    drift: DriftFinding | None = None
    background: BackgroundFinding | None = None
    bursts: list[Burst] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    n_dark_periods: int = 0
    curves: ScreeningCurves | None = None

    def words(self) -> list[str]:
        """Sentences that say what was found, the most important first."""
        from pncbayes.photons.screening_words import screening_words

        return screening_words(self)

    def to_dict(self) -> dict[str, Any]:
        """Return all findings and the sentences, without the curves, ready for JSON.

        What is not known is None.
        """
        found = {
            "n_photons": self.n_photons,
            "duration_s": self.duration_s,
            "problem": self.problem,
            "lines": [line.to_dict() for line in self.lines],
            "bursts": [asdict(one) for one in self.bursts],
            "gaps": [asdict(one) for one in self.gaps],
            "n_dark_periods": self.n_dark_periods,
        }
        for name in ("balance", "afterpulses", "dead_time", "drift", "background"):
            one = getattr(self, name)
            found[name] = None if one is None else asdict(one)
        return {**{name: _plain(value) for name, value in found.items()}, "words": self.words()}

    def table(self) -> pd.DataFrame:
        """Return the findings as a table: what, where, how much, error, and log p."""
        import pandas as pd

        from pncbayes.photons.screening_words import screening_rows

        columns = ["finding", "where", "value", "sd", "unit", "log_p"]
        return pd.DataFrame(screening_rows(self), columns=columns)


def screen(photons: Photons) -> Screening:
    r"""Screen a recording: lines, detectors, drift, bursts, gaps, steps of the background.

    Nothing is fitted and nothing is removed. A count of states takes all light that changes for the
    dot's; what is found here is to be known before.

    Parameters
    ----------
    photons
        The recording.

    Returns
    -------
    Screening
        Ask it for its `words`. A recording that is too short has a `problem` and nothing else.

    Examples
    --------
    >>> import pncbayes as pnc
    >>> screening = pnc.screen(pnc.read("dot_017.ptu"))  # doctest: +SKIP
    >>> print(*screening.words(), sep="\n")  # doctest: +SKIP
    """
    if not isinstance(photons, Photons):
        raise TypeError(
            f"`photons` must be a recording of photons, got {type(photons).__name__}; a trace of "
            "counts has no arrival times to be screened"
        )
    duration_s = float(photons.duration_s or 0.0)
    n_photons = len(photons)
    if n_photons < FEWEST_PHOTONS or duration_s <= 0:
        reason = (
            f"{n_photons} photons in {duration_s:.4g} s: too short to screen; at least "
            f"{FEWEST_PHOTONS} photons are needed"
        )
        return Screening(n_photons, duration_s, reason)
    search = search_lines(photons)
    dead_time = find_dead_time(photons)
    lags = lag_curve(photons)
    afterpulses = find_afterpulses(lags, dead_time.shortest_ns if dead_time.is_sure else 0.0)
    share = afterpulses.share if afterpulses.sigma > 3 else 0.0
    modulation = sum(sum((line.depth, *line.harmonic_depths)) for line in search.lines)
    waveform = fold_line(photons.time_s, *search.strongest) if search.strongest else {}
    nothing = np.empty(0)
    spectrum = search.spectrum
    n_bins = min(_N_COLUMNS, max(int(duration_s / 0.01), 1), n_photons // 10)
    index = np.minimum((photons.time_s * (n_bins / duration_s)).astype(int), n_bins - 1)
    curves = ScreeningCurves(
        (nothing, nothing, nothing) if spectrum is None else spectrum.background(_N_SPECTRUM),
        waveform,
        np.arange(n_bins) * np.float64(duration_s / n_bins),
        np.bincount(index, minlength=n_bins) * np.float64(n_bins / duration_s),
        lags,
    )
    return Screening(
        n_photons,
        duration_s,
        "",
        search.lines,
        find_balance(photons, share),
        afterpulses,
        dead_time,
        find_drift(photons),
        find_background_step(photons),
        find_bursts(photons, min(modulation, 2.0)),
        *find_gaps(photons),
        curves,
    )


def _plain(value: Any) -> Any:
    """Plain Python values, with None for what is not finite."""
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
