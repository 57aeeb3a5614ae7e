"""Take afterpulses out of a recording: an artificial dead time as long as they last."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from pncbayes.photons.afterpulse_search import Afterpulses, fine_times_ns, search_afterpulses
from pncbayes.photons.stream import Photons

__all__ = ["AfterpulseRemoval", "remove_afterpulses"]

Floats = NDArray[np.float64]

_SIGMA = 5.0
# Afterpulses on a share s of the photons widen the scatter of counts to 1 + 2 s; this is no matter.
_LEAST_SHARE = 0.005
_LEAST_LEFT = 0.02
_MOST_LOST = 0.2
_TOLD = {
    "detectors": "they follow on the same detector only",
    "delays": "they follow on the same detector, without regard to the laser pulse",
    "lags": "if light does not change within 3 us, which one detector cannot tell",
}


@dataclass(frozen=True, eq=False)
class AfterpulseRemoval:
    """A recording without its afterpulses.

    Parameters
    ----------
    photons
        Those kept; the recording itself when nothing was done.
    time_ns
        Photons that follow another of the same detector by less were left out, in ns; 0 when
        nothing was done.
    share_afterpulses, share_afterpulses_sd
        Afterpulses over photons and standard error; NaN when not known.
    share_dropped
        Photons left out, over all.
    share_left
        Afterpulses that are still there, over photons kept; NaN when not known.
    note
        What a user has to know; empty when nothing was done.
    told_by
        What told afterpulses from light, as in `Afterpulses`.
    blind_ns
        Time for which one count keeps the next true photons of its detector out, on average over
        counts with and without afterpulses, in ns; a little more than `time_ns`.
    detector_shares
        Share of the light on each detector, shape ``(n_detectors,)``.
    """

    photons: Photons
    time_ns: float
    share_afterpulses: float
    share_afterpulses_sd: float
    share_dropped: float
    share_left: float
    note: str
    told_by: str = ""
    blind_ns: float = 0.0
    detector_shares: tuple[float, ...] = (1.0,)

    def kept_rate(self, true_rate_per_s: ArrayLike) -> Floats:
        """Rate of the photons kept at a rate of true photons, both per s, any shape.

        A photon is kept if its detector saw none in the time ``T`` before (a paralysable dead time
        [1]_): on a detector with the share ``w``, ``w r exp(-w r T)`` of ``w r``.

        References
        ----------
        .. [1] Müller, Nucl. Instrum. Methods 112, 47 (1973), doi:10.1016/0029-554X(73)90773-8
        """
        kept, _ = self._kept(np.asarray(true_rate_per_s, np.float64))
        return kept

    def true_rate(self, kept_rate_per_s: ArrayLike) -> Floats:
        """Rate of true photons from that of photons kept, both per s, any shape.

        Afterpulses that are left are taken off, lost photons put back. Exact for light that does
        not change within `time_ns`. NaN above the highest rate that can be kept.
        """
        kept = np.asarray(kept_rate_per_s, np.float64)
        if self.time_ns == 0:
            return kept.copy()
        # Newton from below on a curve bent downwards never passes the solution
        true = kept * (1.0 - self._left)
        with np.errstate(all="ignore"):
            for _ in range(50):
                value, slope = self._kept(true)
                true = np.where(slope > 0, true + (kept - value) / slope, np.nan)
            return np.where(np.abs(self._kept(true)[0] - kept) <= 1e-6 * np.abs(kept), true, np.nan)

    def true_rate_slope(self, kept_rate_per_s: ArrayLike) -> Floats:
        """Change of the true rate per change of the rate kept, any shape."""
        return np.asarray(1.0 / self._kept(self.true_rate(kept_rate_per_s))[1])

    def fano_factor(self, kept_rate_per_s: ArrayLike) -> Floats:
        """Variance over mean of the number of photons kept from steady light, any shape.

        In bins much longer than `time_ns`: ``1 - 2 k T`` of the rate ``k`` kept on each detector
        (Müller 1973, as in `kept_rate`), and twice the share of the afterpulses left.
        """
        true = self.true_rate(kept_rate_per_s)
        share = np.asarray(self.detector_shares)
        on_each = share * true[..., None]
        blind_s = self.blind_ns * 1e-9
        kept = on_each * np.exp(-on_each * blind_s)
        total = np.maximum(kept.sum(axis=-1), 1e-300)
        narrower = 2.0 * blind_s * np.sum(kept**2, axis=-1) / total
        return np.asarray(1.0 - narrower + 2.0 * self._left)

    @property
    def _left(self) -> float:
        known = self.time_ns > 0 and np.isfinite(self.share_left)
        return min(max(self.share_left, 0.0), 0.5) if known else 0.0

    def _kept(self, true: Floats) -> tuple[Floats, Floats]:
        on_each = true[..., None] * np.asarray(self.detector_shares)
        exponent = on_each * (self.blind_ns * 1e-9)
        through = np.exp(-exponent) / (1.0 - self._left)
        slope = np.sum(self.detector_shares * through * (1.0 - exponent), axis=-1)
        return np.asarray(np.sum(on_each * through, axis=-1)), np.asarray(slope)


def remove_afterpulses(photons: Photons, *, time_ns: float | None = None) -> AfterpulseRemoval:
    """Leave out photons that follow another on the same detector within an artificial dead time.

    How often afterpulses come, and how late, is found as `search_afterpulses` says. Nothing is done
    unless they are significant (5 sigma) and on more than 0.5 % of the photons. The time is the
    shortest after which 2 % of the afterpulses are left, or afterpulses on 0.5 % of the photons
    (whose counts then scatter by 1.01 times the Poisson variance), but no longer than loses 20 % of
    the light of the busiest detector in the brightest 0.1 % of 10 ms bins.

    A photon is left out after any photon, be that one kept or not: so chains of afterpulses go, and
    the afterpulse of a photon that itself was left out. True photons are lost, too: the result
    has `AfterpulseRemoval.true_rate` for this.

    Parameters
    ----------
    photons
        The recording.
    time_ns
        The time, in ns, in place of that found; it is then used whether or not afterpulses are
        found.

    Returns
    -------
    AfterpulseRemoval

    Raises
    ------
    ValueError
        If `time_ns` is not a time of 0 or more.
    """
    if time_ns is not None and not (np.isfinite(time_ns) and time_ns >= 0):
        raise ValueError(f"`time_ns` must be a time of 0 or more in ns, got {time_ns}")
    times_ns, unit_ns = fine_times_ns(photons)
    found = search_afterpulses(photons)
    share, sd = found.share, found.sd
    wanted, is_short = time_ns, False
    if wanted is None:
        wanted = 0.0
        if share > max(_SIGMA * sd, _LEAST_SHARE):
            wanted, is_short = _choose(photons, found, unit_ns)
    shares = tuple(n / len(photons) for n in photons.detectors.values()) or (1.0,)
    if wanted == 0 or photons.detector is None or len(photons) == 0:
        left = max(share, 0.0)
        return AfterpulseRemoval(photons, 0.0, share, sd, 0.0, left, "", found.told_by, 0.0, shares)
    keep = _no_other_before(times_ns, photons.detector, wanted)
    dropped = 1.0 - np.count_nonzero(keep) / len(photons)
    left, known = float("nan"), 0.0
    if share >= 0:
        known, tail = share, float(found.later_than(wanted))
        left = tail / (1.0 - known + tail)
    lost = dropped - known + (left * (1.0 - dropped) if known > 0 else 0.0)
    note = (
        f"photons within {wanted / 1e3:.3g} us of another on the same detector were left out, "
        f"with them {100 * max(lost, 0.0) / (1.0 - known):.2g} % of the light"
    )
    if share > _SIGMA * sd:
        note = (
            f"{100 * share:.2g} ± {100 * sd:.1g} % of the photons are afterpulses of the "
            f"detectors ({_TOLD[found.told_by]}): {note}"
        )
    if is_short:
        note += (
            f"; a longer time would cost more than {100 * _MOST_LOST:.0f} % where it is brightest, "
            f"so afterpulses are still {100 * left:.2g} % of the photons"
        )
    kept = replace(
        photons.select(keep),
        warnings=(*photons.warnings, f"{photons.path or 'photons'}: {note}"),
        metadata={**photons.metadata, "afterpulse_dead_time_ns": wanted},
    )
    # an afterpulse before the time begins one of its own, and may have further ones
    blind_ns = wanted + found.within(wanted) / (1.0 - known)
    return AfterpulseRemoval(
        kept, wanted, share, sd, dropped, left, note, found.told_by, blind_ns, shares
    )


@njit(cache=True, nogil=True)
def _no_other_before(
    times_ns: Floats, detector: NDArray[np.uint8], time_ns: float
) -> NDArray[np.bool_]:
    """Whether no photon of the same detector came less than a time before, kept or not."""
    keep = np.empty(times_ns.size, np.bool_)
    last = np.full(256, -np.inf)
    for i in range(times_ns.size):
        number = detector[i]
        keep[i] = times_ns[i] - last[number] >= time_ns
        last[number] = max(last[number], times_ns[i])
    return keep


def _choose(photons: Photons, found: Afterpulses, unit_ns: float) -> tuple[float, bool]:
    """Time in ns, and whether it is shorter than the afterpulses ask for."""
    wanted = found.shortest_time_ns(max(_LEAST_LEFT * found.share, _LEAST_SHARE))
    width_s, most = 0.01, 0.0
    n_bins = max(int(np.ceil((photons.duration_s or 0.0) / width_s)), 1)
    for number in photons.detectors:
        times_s = photons.time_s[photons.detector == number]
        counts = np.bincount((times_s / width_s).astype(np.int64), minlength=n_bins)
        most = max(most, float(np.quantile(counts, 0.999)) / width_s)
    longest = -np.log1p(-_MOST_LOST) / max(most, 1e-9) * 1e9
    # a limit between two pulses cuts through no decay
    wanted = (np.ceil(wanted / unit_ns - 0.5) + 0.5) * unit_ns
    longest = max(np.floor(longest / unit_ns - 0.5) + 0.5, 0.5) * unit_ns
    return float(min(wanted, longest)), bool(wanted > longest)
