"""What a user knows of the neutral exciton of a dot."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

__all__ = ["Exciton"]


@dataclass(frozen=True)
class Exciton:
    """Brightness and lifetime of the neutral exciton of a dot, from another measurement.

    Give one or both, each as mean and standard deviation. Without it the exciton is looked for
    among the states of the dot; with its brightness, a dot that never visits it can be told.

    Parameters
    ----------
    rate_per_s
        Signal counts per s at the detectors under the excitation of the recording, after
        background, of a dot that stays in the exciton state.
    lifetime_ns
        Amplitude-averaged lifetime, in ns.

    Raises
    ------
    ValueError
        If neither is given, or one is not a pair of positive numbers, the second the smaller one.

    Examples
    --------
    >>> pnc.Exciton(rate_per_s=(2.0e4, 1e3), lifetime_ns=(5.0, 0.3))  # doctest: +SKIP
    """

    rate_per_s: tuple[float, float] | None = None
    lifetime_ns: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.rate_per_s is None and self.lifetime_ns is None:
            raise ValueError(
                "`Exciton` needs `rate_per_s`, `lifetime_ns` or both, each as (mean, sd)"
            )
        for name in ("rate_per_s", "lifetime_ns"):
            given = getattr(self, name)
            if given is None:
                continue
            if not isinstance(given, tuple | list) or len(given) != 2:
                raise ValueError(f"`{name}` of the exciton must be (mean, sd), got {given!r}")
            for number in given:
                real = isinstance(number, Real) and not isinstance(number, bool)
                if not real or not 0 < number < math.inf:
                    raise ValueError(
                        f"mean and sd of `{name}` of the exciton must be positive numbers, got "
                        f"{given!r}"
                    )
            if not given[1] < given[0]:
                raise ValueError(
                    f"the sd of `{name}` of the exciton must be below its mean, got {given!r}: "
                    "leave out what is not known better than that"
                )
            object.__setattr__(self, name, (float(given[0]), float(given[1])))

    @staticmethod
    def log_normal(mean: float, sd: float) -> tuple[float, float]:
        """Mean and standard deviation of the logarithm of a log-normal number."""
        variance = math.log1p((sd / mean) ** 2)
        return math.log(mean) - 0.5 * variance, math.sqrt(variance)
