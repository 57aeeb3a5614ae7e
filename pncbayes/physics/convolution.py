"""What a state emits over the laser period: exponentials, response, background, scatter, gates.

Each formula stands here once. Functions that take `xp` run on NumPy arrays (the default) and, with
``xp=pytensor.tensor``, on PyTensor variables, so that samplers get the gradients for nothing.

All of them use one idea. Let ``S(x)`` be the number of photons that have arrived by delay ``x``
after the pulse at ``x = 0`` when one photon falls on every laser period, pulses before included. It
grows by exactly one in each period, so the share of a gate is ``S(stop) - S(start)`` and the shares
of all gates of a period add up to one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "GaussianResponse",
    "HistogramResponse",
    "Response",
    "as_response",
    "exponential_gate_probability",
    "flat_gate_fraction",
    "gate_probability",
    "periodic_exponential",
    "periodic_exponential_gaussian",
    "scatter_gate_probability",
]

# Beyond this many standard deviations a Gaussian has less than 1e-16 of its mass.
_GAUSSIAN_REACH = 8.5


@dataclass(frozen=True)
class GaussianResponse:
    """A Gaussian instrument response.

    Parameters
    ----------
    center_ns
        Delay of its centre, in ns after the start of the TCSPC period.
    sd_ns
        Standard deviation, in ns (full width at half maximum over 2.3548).
    """

    center_ns: float
    sd_ns: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.sd_ns) and self.sd_ns > 0):
            raise ValueError(f"`sd_ns` of the response must be positive, got {self.sd_ns}")
        if not np.isfinite(self.center_ns):
            raise ValueError(f"`center_ns` of the response must be finite, got {self.center_ns}")

    @property
    def width_ns(self) -> float:
        """Full width at half maximum, in ns."""
        return float(np.sqrt(8 * np.log(2)) * self.sd_ns)


@dataclass(frozen=True, eq=False)
class HistogramResponse:
    """A measured instrument response: a histogram on the delay clock, flat inside each tick.

    Parameters
    ----------
    weight
        Share of the response in each tick, shape ``(n_ticks,)``; scaled to the sum 1.
    tick_ns
        Length of a tick, in ns. Tick ``j`` reaches from ``j * tick_ns`` to ``(j + 1) * tick_ns``
        after the start of the TCSPC period.
    """

    weight: NDArray[np.float64]
    tick_ns: float

    def __post_init__(self) -> None:
        weight = np.ascontiguousarray(self.weight, dtype=np.float64)
        if weight.ndim != 1 or not np.all(np.isfinite(weight)) or np.any(weight < 0):
            raise ValueError("`weight` of the response must be one row of finite numbers >= 0")
        if not weight.sum() > 0:
            raise ValueError("`weight` of the response is zero everywhere")
        if not (np.isfinite(self.tick_ns) and self.tick_ns > 0):
            raise ValueError(f"`tick_ns` of the response must be positive, got {self.tick_ns}")
        object.__setattr__(self, "weight", weight / weight.sum())

    @property
    def width_ns(self) -> float:
        """Width of the narrowest stretch that holds 76 % of the response, in ns.

        For a Gaussian this is its full width at half maximum; unlike that, it can be told from a
        noisy histogram.
        """
        total = np.concatenate([[0.0], np.cumsum(np.concatenate([self.weight, self.weight]))])
        position = np.arange(total.size, dtype=np.float64)
        start = position[: self.weight.size]
        stop = np.interp(total[: self.weight.size] + 0.7610, total, position)
        return float(np.min(stop - start)) * self.tick_ns


Response = GaussianResponse | HistogramResponse


def as_response(response: Any, delay_tick_ns: float | None = None) -> Response:
    """Make a response of what a caller has.

    Parameters
    ----------
    response
        A `GaussianResponse`, a `HistogramResponse`, or a histogram on the delay clock, shape
        ``(n_ticks,)``.
    delay_tick_ns
        Delay clock of a plain histogram, in ns.

    Returns
    -------
    GaussianResponse or HistogramResponse

    Raises
    ------
    ValueError
        If a plain histogram comes without its clock, or is empty, negative or not finite.
    """
    if isinstance(response, GaussianResponse | HistogramResponse):
        return response
    if delay_tick_ns is None:
        raise ValueError("a response given as an array needs `delay_tick_ns`, its clock in ns")
    return HistogramResponse(np.asarray(response, dtype=np.float64), float(delay_tick_ns))


def periodic_exponential(position: Any, rate: Any, period: Any, xp: Any = np) -> Any:
    r"""Photons by a delay, of exponential decays that start anywhere within one tick.

    The start is uniform on ``[0, 1)``, so that this is the decay after one tick of a measured
    response. With ``y = position mod period``, ``q`` the number of whole periods and ``k`` the
    rate,

    .. math:: S = q + 1 - \frac{e^{-k(y-1)} - e^{-ky}}{k (1 - e^{-kP})} \quad (y \ge 1),

    and the same with the first image taken from its start for ``y < 1`` [1]_.

    Parameters
    ----------
    position
        Delay after the start of the tick, in ticks; any shape.
    rate
        Decay rate per tick, above 0; broadcasts with `position`.
    period
        Laser period in ticks, above 1; need not be whole.
    xp
        Array namespace: ``numpy`` or ``pytensor.tensor``.

    Returns
    -------
    array
        Number of photons, up to a constant, of the broadcast shape.

    References
    ----------
    .. [1] Closed geometric sum over the pulses before; see I. Isenberg et al., Biophys. J. 13,
       1090 (1973), doi:10.1016/S0006-3495(73)86047-3, for decays under repeated excitation.
    """
    whole = xp.floor(position / period)
    inside = position - whole * period
    wrapped = 1.0 - xp.exp(-rate * period)
    late = xp.maximum(inside, 1.0)
    after = 1.0 - (xp.exp(-rate * (late - 1.0)) - xp.exp(-rate * late)) / (rate * wrapped)
    earlier = xp.exp(-rate * (period + inside - 1.0)) - xp.exp(-rate * (period + inside))
    during = inside + xp.expm1(-rate * inside) / rate - earlier / (rate * wrapped)
    return whole + xp.where(inside >= 1.0, after, during)


def periodic_exponential_gaussian(
    position: Any, rate: Any, sd: Any, period: Any, xp: Any = np
) -> Any:
    r"""Photons by a delay, of exponential decays seen through a Gaussian response.

    One image has the cumulative distribution

    .. math:: C(u) = \Phi(u/\sigma) - \tfrac12 e^{-u^2/2\sigma^2}
              \operatorname{erfcx}\!\left(\frac{k\sigma - u/\sigma}{\sqrt2}\right),

    in the scaled form that does not overflow [1]_; the pulses before are a geometric sum.

    Parameters
    ----------
    position
        Delay after the centre of the response, any unit of time; any shape.
    rate
        Decay rate in one over that unit; broadcasts with `position`.
    sd
        Standard deviation of the response, same unit; below an eighth of the period.
    period
        Laser period, same unit.
    xp
        Array namespace: ``numpy`` or ``pytensor.tensor``.

    Returns
    -------
    array
        Number of photons, up to a constant, of the broadcast shape.

    References
    ----------
    .. [1] E. Grushka, Anal. Chem. 44, 1733 (1972), doi:10.1021/ac60319a011.
    """
    whole = xp.floor(position / period)
    inside = position - whole * period
    # the pulse itself, the next one (its response reaches back), then all before in one sum
    near = _exponential_gaussian(inside, rate, sd, xp) + _exponential_gaussian(
        inside - period, rate, sd, xp
    )
    # a decay far faster than the response has left nothing after one period
    exponent = 0.5 * (rate * sd) ** 2 - rate * (inside + period)
    before = xp.exp(xp.minimum(exponent, 0.0)) / (1.0 - xp.exp(-rate * period))
    before = xp.where(rate * sd < _GAUSSIAN_REACH, before, 0.0)
    return whole + near - before


def _exponential_gaussian(u: Any, rate: Any, sd: Any, xp: Any) -> Any:
    erf = scipy.special if xp is np else xp
    z = (rate * sd - u / sd) / np.sqrt(2.0)
    positive = xp.exp(-0.5 * (u / sd) ** 2) * erf.erfcx(xp.maximum(z, 0.0))
    # z < 0 means u > k sd^2, where the exponent is negative
    exponent = xp.minimum(0.5 * (rate * sd) ** 2 - rate * u, 0.0)
    negative = xp.exp(exponent) * erf.erfc(xp.minimum(z, 0.0))
    return 0.5 * erf.erfc(-u / (sd * np.sqrt(2.0))) - 0.5 * xp.where(z > 0, positive, negative)


def exponential_gate_probability(
    rate_per_ns: Any,
    gate_edges_ns: ArrayLike,
    response: Response,
    period_ns: float,
    shift_ns: Any = 0.0,
    xp: Any = np,
) -> Any:
    """Share of each gate in the light of one exponential per row.

    Parameters
    ----------
    rate_per_ns
        Decay rates per ns, shape ``(n,)``.
    gate_edges_ns
        Edges of the gates in ns after the start of the TCSPC period, shape ``(n_gates + 1,)``.
    response
        Gaussian or measured response.
    period_ns
        Laser period, in ns.
    shift_ns
        Time by which the response arrives later than it was measured, in ns.
    xp
        Array namespace: ``numpy`` or ``pytensor.tensor``.

    Returns
    -------
    array, shape ``(n, n_gates)``
        Adds up to 1 over the gates when these fill the period.
    """
    edges = np.asarray(gate_edges_ns, dtype=np.float64)
    _check_response(response, period_ns)
    if isinstance(response, GaussianResponse):
        position = edges[None, :] - response.center_ns - shift_ns
        arrived = periodic_exponential_gaussian(
            position, rate_per_ns[:, None], response.sd_ns, period_ns, xp
        )
        return arrived[:, 1:] - arrived[:, :-1]
    tick = response.tick_ns
    used = np.flatnonzero(response.weight)
    weight = response.weight[used]
    position = (edges[:, None] - shift_ns) / tick - used[None, :]
    if xp is np:
        # row by row: all at once would be hundreds of MB for a fine clock
        arrived = np.stack(
            [
                periodic_exponential(position, k * tick, period_ns / tick) @ weight
                for k in np.asarray(rate_per_ns)
            ]
        )
    else:
        rate = rate_per_ns[:, None, None] * tick
        arrived = xp.dot(periodic_exponential(position, rate, period_ns / tick, xp), weight)
    return arrived[:, 1:] - arrived[:, :-1]


def gate_probability(
    lifetimes_ns: ArrayLike,
    amplitudes: ArrayLike,
    gate_edges_ns: ArrayLike,
    response: Any,
    period_ns: float,
    shift_ns: float = 0.0,
    *,
    delay_tick_ns: float | None = None,
) -> NDArray[np.float64]:
    """Share of each gate in the light of a sum of exponentials.

    The decay is ``sum_i amplitudes[i] * exp(-t / lifetimes_ns[i])``, convolved with the response,
    wrapped around the laser period, and integrated over the gates.

    Parameters
    ----------
    lifetimes_ns
        Lifetimes in ns, shape ``(n_exponentials,)``, positive.
    amplitudes
        Amplitudes at time zero, shape ``(n_exponentials,)``, not negative.
    gate_edges_ns
        Edges of the gates in ns after the start of the TCSPC period, shape ``(n_gates + 1,)``.
    response
        Gaussian, measured, or a plain histogram on the delay clock (`as_response`).
    period_ns
        Laser period, in ns.
    shift_ns
        Time by which the response arrives later than it was measured, in ns.
    delay_tick_ns
        Clock of a response that is a plain histogram, in ns.

    Returns
    -------
    numpy.ndarray, shape ``(n_gates,)``
        Adds up to 1 when the gates fill the period.

    Raises
    ------
    ValueError
        If a lifetime is not positive, an amplitude negative, or nothing is emitted.
    """
    lifetimes = np.atleast_1d(np.asarray(lifetimes_ns, dtype=np.float64))
    weights = np.atleast_1d(np.asarray(amplitudes, dtype=np.float64))
    if lifetimes.shape != weights.shape:
        raise ValueError(
            f"{lifetimes.size} lifetimes but {weights.size} amplitudes: give one for each"
        )
    if not np.all(np.isfinite(lifetimes) & (lifetimes > 0)):
        raise ValueError(f"`lifetimes_ns` must be positive and finite, got {lifetimes}")
    if not np.all(np.isfinite(weights) & (weights >= 0)) or not weights.sum() > 0:
        raise ValueError(f"`amplitudes` must be >= 0 and not all zero, got {weights}")
    shares = exponential_gate_probability(
        1.0 / lifetimes,
        gate_edges_ns,
        as_response(response, delay_tick_ns),
        period_ns,
        shift_ns,
    )
    photons = weights * lifetimes
    return np.asarray(photons / photons.sum() @ shares)


def scatter_gate_probability(
    gate_edges_ns: ArrayLike, response: Response, period_ns: float, shift_ns: float = 0.0
) -> NDArray[np.float64]:
    """Share of each gate in light that follows the response: scatter, or a decay too fast to see.

    Parameters are those of `exponential_gate_probability`.

    Returns
    -------
    numpy.ndarray, shape ``(n_gates,)``
    """
    edges = np.asarray(gate_edges_ns, dtype=np.float64)
    _check_response(response, period_ns)
    if isinstance(response, GaussianResponse):
        position = edges - response.center_ns - shift_ns
        whole = np.floor(position / period_ns)
        inside = position - whole * period_ns
        arrived = (
            whole
            + scipy.special.ndtr(inside / response.sd_ns)
            + scipy.special.ndtr((inside - period_ns) / response.sd_ns)
        )
        return np.diff(arrived)
    knots = np.arange(response.weight.size + 1) * response.tick_ns
    total = np.concatenate([[0.0], np.cumsum(response.weight)])
    position = edges - shift_ns
    whole = np.floor(position / period_ns)
    return np.diff(whole + np.interp(position - whole * period_ns, knots, total))


def flat_gate_fraction(gate_edges_ns: ArrayLike) -> NDArray[np.float64]:
    """Share of each gate in light that knows nothing of the pulse: dark counts, room light.

    Parameters
    ----------
    gate_edges_ns
        Edges of the recorded part of the period, shape ``(n_gates + 1,)``, in ns.

    Returns
    -------
    numpy.ndarray, shape ``(n_gates,)``
        Adds up to 1.
    """
    widths = np.diff(np.asarray(gate_edges_ns, dtype=np.float64))
    return np.asarray(widths / widths.sum())


def _check_response(response: Response, period_ns: float) -> None:
    if not (np.isfinite(period_ns) and period_ns > 0):
        raise ValueError(f"`period_ns` must be a positive time in ns, got {period_ns}")
    if isinstance(response, GaussianResponse):
        if response.sd_ns * _GAUSSIAN_REACH > period_ns:
            raise ValueError(
                f"a response of sd {response.sd_ns} ns does not fit a period of {period_ns} ns: "
                f"at most {period_ns / _GAUSSIAN_REACH:.4g} ns; check the units"
            )
        return
    reach_ns = response.weight.size * response.tick_ns
    if reach_ns > period_ns + response.tick_ns * 1.001:
        raise ValueError(
            f"the response covers {reach_ns:.6g} ns but the laser period is {period_ns:.6g} ns: "
            "a response with another clock; fold or measure it at this period"
        )
