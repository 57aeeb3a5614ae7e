"""A screening in sentences, and as rows of a table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pncbayes.photons.screening_events import MOST_EVENTS
from pncbayes.photons.spectrum import SpectralLine

if TYPE_CHECKING:
    from pncbayes.photons.screening import Screening

__all__ = ["screening_rows", "screening_words"]

# Findings less sure than this are not put into words.
_SURE = 1e-3
_SIGMA = 4.0
_LEAST_CHANGE = 0.02
_LEAST_SHARE = 0.002
_SHOWN = 3
# A share of less on one detector of two is worth a word.
_IMBALANCE = 0.25


def screening_words(screening: Screening) -> list[str]:
    """Sentences that say what was found."""
    if screening.problem:
        return [screening.problem]
    sentences = [
        *(_line(line) for line in screening.lines),
        *_gaps(screening),
        *_bursts(screening),
        *_slow(screening),
        *_detectors(screening),
    ]
    if not screening.lines:
        sentences.insert(0, "no periodic line was found")
    return sentences


def _line(line: SpectralLine) -> str:
    harmonics = f" (with {_and(line.harmonics_hz)} Hz)" if line.harmonics_hz else ""
    depth = _percent(line.depth, line.depth_sd)
    text = f"a line at {_hz(line.frequency_hz)} Hz{harmonics} modulates the rate by {depth}"
    if line.is_drifting:
        text += f", with a drifting phase (linewidth {line.linewidth_hz:.2g} Hz)"
    if line.is_common:
        return text + ", alike in bright and dim windows: most likely the instrument"
    if not (math.isfinite(line.depth_bright) and math.isfinite(line.depth_dim)):
        return text + "; bright and dim windows cannot be told apart to compare it in them"
    parts = f"{_percent(line.depth_bright)} in bright, {_percent(line.depth_dim)} in dim"
    if line.is_common is None:
        return text + f" ({parts} windows, too uncertain to compare)"
    if line.depth_dim < line.depth_bright:
        why = "the background is not modulated, or the dim state is less so"
    else:
        why = "the background may be modulated itself"
    return text + f", but not alike ({parts} windows): {why}"


def _gaps(screening: Screening) -> Iterator[str]:
    if screening.n_dark_periods:
        yield (
            f"{screening.n_dark_periods} periods without any photon: the dark state has hardly a "
            "background"
        )
    for gap in screening.gaps[:_SHOWN]:
        stop_s = gap.start_s + gap.duration_s
        text = f"no photons for {_time(gap.duration_s)}, from {gap.start_s:.4g} to {stop_s:.4g} s"
        if gap.at_end:
            which = "start" if gap.start_s == 0 else "end"
            yield f"{text} (the {which} of the recording): cut it off"
        else:
            yield (
                f"{text}, far longer than other gaps: the recording was interrupted, or the dot "
                "was dark without any background"
            )
    more = len(screening.gaps) - _SHOWN
    if more > 0:
        yield f"{more} more gap{'s' * (more > 1)} like these"


def _bursts(screening: Screening) -> Iterator[str]:
    bursts = sorted(screening.bursts, key=lambda one: one.log_p)
    few = len(bursts) <= _SHOWN
    for burst in bursts[: _SHOWN if few else 1]:
        text = (
            f"a burst of {burst.n_photons} photons within {_time(burst.duration_s)} at "
            f"{burst.start_s:.6g} s, {burst.rate_ratio:.2g} times the brightest level"
        )
        short = few and burst.duration_s < 1e-3
        yield text + (": most likely not the emitter (electronic noise, a cosmic ray)" * short)
    if not few:
        most = "or more " if len(bursts) == MOST_EVENTS else ""
        yield (
            f"{len(bursts) - 1} {most}other bursts: short bright periods, or emitters that pass by"
        )


def _slow(screening: Screening) -> Iterator[str]:
    drift, background = screening.drift, screening.background
    if drift is not None and drift.p_value < _SURE and abs(drift.change) > _LEAST_CHANGE:
        text = (
            f"the brightest level {'falls' if drift.change < 0 else 'rises'} by "
            f"{_percent(abs(drift.change), drift.sd)} over the recording"
        )
        clear = ": a slow drift" if drift.is_clear else ", which cannot be told from slow blinking"
        yield text + clear
    if background is not None and background.p_value < _SURE:
        yield (
            "the counts at delays where the decay is over step from "
            f"{background.before_per_s:.3g} to {background.after_per_s:.3g} per s at about "
            f"{background.time_s:.3g} s: the background changes (or the decay does)"
        )


def _detectors(screening: Screening) -> Iterator[str]:
    balance, afterpulses = screening.balance, screening.afterpulses
    dead_time = screening.dead_time
    if balance is not None and len(balance.shares) > 1:
        shares = ", ".join(f"{n}: {100 * share:.3g} %" for n, share in balance.shares.items())
        changes = balance.p_value < _SURE and balance.largest_change > _LEAST_CHANGE
        if changes:
            why = ", as the brightness does: their shares of background differ"
            if not balance.follows_brightness:
                why = ": alignment or polarisation may drift"
            yield (
                f"the share of the detectors ({shares}) changes over time, by up to "
                f"{100 * balance.largest_change:.2g} points{why}"
            )
        elif min(balance.shares.values()) < _IMBALANCE * max(balance.shares.values()):
            yield f"the detectors share the light unevenly ({shares})"
    if afterpulses is not None and afterpulses.sigma > _SIGMA and afterpulses.share > _LEAST_SHARE:
        yield (
            f"{_percent(afterpulses.share, afterpulses.sd)} of the counts are afterpulses, "
            f"mostly within {afterpulses.time_us:.2g} us of a count on the same detector"
        )
    if dead_time is not None and dead_time.is_sure:
        yield (
            f"dead time of {_time(1e-9 * dead_time.shortest_ns)}: no shorter gap on one detector, "
            f"where {dead_time.n_expected:.3g} were expected"
        )


def screening_rows(screening: Screening) -> list[tuple[Any, ...]]:
    """Rows of a table: what, where, how much, standard error, unit, logarithm of p."""
    nan = float("nan")
    rows: list[tuple[Any, ...]] = []
    for line in screening.lines:
        where = f"{_hz(line.frequency_hz)} Hz"
        rows.append(("line", where, line.depth, line.depth_sd, "depth", line.log_p))
        for frequency_hz, depth in zip(line.harmonics_hz, line.harmonic_depths, strict=True):
            rows.append(("harmonic", f"{_hz(frequency_hz)} Hz", depth, nan, "depth", line.log_p))
    rows += [("gap", f"{g.start_s:.6g} s", g.duration_s, nan, "s", g.log_p) for g in screening.gaps]
    rows += [
        ("burst", f"{b.start_s:.6g} s", float(b.n_photons), nan, "photons", b.log_p)
        for b in screening.bursts
    ]
    drift, step = screening.drift, screening.background
    if drift is not None and math.isfinite(drift.change):
        rows.append(("drift", "", drift.change, drift.sd, "relative", _log(drift.p_value)))
    if step is not None and math.isfinite(step.p_value):
        change = step.after_per_s - step.before_per_s
        where = f"{step.time_s:.4g} s"
        rows.append(("background step", where, change, nan, "per s", _log(step.p_value)))
    balance, after, dead = screening.balance, screening.afterpulses, screening.dead_time
    if balance is not None:
        log_p = _log(balance.p_value)
        for number, share in balance.shares.items():
            rows.append(("detector share", str(number), share, nan, "", log_p))
    if after is not None and math.isfinite(after.share):
        rows.append(("afterpulses", f"{after.time_us:.3g} us", after.share, after.sd, "share", nan))
    if dead is not None and math.isfinite(dead.shortest_ns):
        rows.append(("shortest gap", "", dead.shortest_ns, nan, "ns", -dead.n_expected))
    return rows


def _log(probability: float) -> float:
    if probability > 0:
        return math.log(probability)
    return -math.inf if probability == 0 else math.nan


def _hz(frequency_hz: float) -> str:
    return f"{frequency_hz:.0f}" if frequency_hz >= 20 else f"{frequency_hz:.3g}"


def _percent(share: float, sd: float = float("nan")) -> str:
    digits = max(1 - math.floor(math.log10(max(100 * abs(share), 1e-3))), 0)
    error = f" ± {100 * sd:.1g}" if sd < abs(share) else ""
    return f"{100 * share:.{digits}f}{error} %"


def _and(values: tuple[float, ...]) -> str:
    texts = [_hz(value) for value in values]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def _time(duration_s: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if duration_s * factor >= 1:
            return f"{duration_s * factor:.3g} {unit}"
    return f"{duration_s * 1e9:.3g} ns"
