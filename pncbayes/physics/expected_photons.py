r"""Photons expected of an exciton and of a dim state beside it, and what they cannot know exactly.

A dim state has the brightness e^u and the amplitude-averaged lifetime e^v, both over the exciton's.
In counts per s and gate, with the exciton's signal B, the shares h of the gates in its decay made
faster to the lifetime ratio, scatter r, background w, and biexcitons p of the share s and power q,

.. math:: \mu(u, v) = B e^u h(v) + B \, s_r r + b w + B s e^{q u} p ,

and a state that is charged the share c of the time, faster than a bin, has
:math:`B [(1 - c) h(0) + c m e^v h(v)]` in the place of the first term.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pncbayes.photons.gates import DEFAULT_GATES, choose_gates
from pncbayes.physics.convolution import (
    GaussianResponse,
    HistogramResponse,
    Response,
    exponential_gate_probability,
    flat_gate_fraction,
    scatter_gate_probability,
)
from pncbayes.physics.mechanism_kernels import charging_share
from pncbayes.physics.tied_kernels import quenched_shares

__all__ = ["NUISANCES", "Decays", "Light", "stretched", "two_exponentials", "usual_gates_ns"]

Array = NDArray[np.float64]

# What is common to all states and not known exactly. Logs of the exciton's signal and lifetime; how
# far its decay is from one exponential, and the share of its fast part; scatter and biexcitons over
# its signal; background in counts per s; shift of the response in its widths, log of its width;
# log lifetime of biexcitons, and logit of the power of the brightness by which they grow.
NUISANCES = (
    "log_signal", "log_lifetime", "spread", "fast_share", "scatter_share", "background_per_s",
    "shift", "log_width", "biexciton_share", "biexciton_log_lifetime", "biexciton_power",
)  # fmt: skip
(
    SIGNAL, LIFETIME, SPREAD, FAST, SCATTER, BACKGROUND, SHIFT, WIDTH, PAIR_SHARE, PAIR_LIFETIME,
    PAIR_POWER,
) = range(11)  # fmt: skip

_N_LIFETIMES = 200
# Steps of the differences: in widths of the response, of the log of its width, of the log of
# lifetimes and of the shape of the reference decay.
_SHIFT_STEP, _WIDTH_STEP, _LOG_STEP, _SHAPE_STEP = 0.05, 0.05, 0.02, 0.05
# A single exponential is left by the square of the log ratio of two lifetimes: to first order.
_SQUARED_STEP = 0.25
_POOLED_PHOTONS = 1e6
# In the order of the tables: as it is, earlier, later, narrower, wider.
_AS_IS, _EARLIER, _LATER, _NARROWER, _WIDER = range(5)


def stretched(response: Response, factor: float) -> Response:
    """Return a response whose width is a factor of what it was, around the same mean.

    Parameters
    ----------
    response
        Gaussian or measured.
    factor
        Above 0.
    """
    if isinstance(response, GaussianResponse):
        return GaussianResponse(response.center_ns, response.sd_ns * factor)
    edges = np.arange(response.weight.size + 1, dtype=np.float64)
    mean = float(response.weight @ (edges[:-1] + 0.5))
    total = np.concatenate([[0.0], np.cumsum(response.weight)])
    return HistogramResponse(
        np.diff(np.interp(mean + (edges - mean) / factor, edges, total)), response.tick_ns
    )


def usual_gates_ns(
    light: Light, response: Response, period_ns: float, delay_tick_ns: float, dim_share: float
) -> Array:
    """Edges of the gates that `bin_photons` would choose for this light.

    Parameters
    ----------
    light
        Of exciton, scatter and background; the dim state only adds to the pooled photons.
    response
        Gaussian or measured.
    period_ns
        Laser period.
    delay_tick_ns
        Delay clock.
    dim_share
        Share of the time in the dim state.

    Returns
    -------
    ndarray, shape ``(25,)``
        In ns after the start of the period.
    """
    n_ticks = round(period_ns / delay_tick_ns)
    ticks_ns = np.linspace(0.0, period_ns, n_ticks + 1)
    amplitudes, rates = np.array(light.amplitudes), 1.0 / np.array(light.lifetimes_ns)
    exciton = (amplitudes / rates) @ exponential_gate_probability(
        rates, ticks_ns, response, period_ns
    )
    exciton /= (amplitudes / rates).sum()
    pooled = light.signal_per_s * (1.0 - dim_share) * exciton
    pooled += light.background_per_s / n_ticks
    edges = choose_gates(pooled * (_POOLED_PHOTONS / pooled.sum()), DEFAULT_GATES)
    return np.asarray(ticks_ns[edges])


@dataclass(frozen=True)
class Light:
    """What is true of the light that all states share.

    Attributes
    ----------
    signal_per_s
        Signal of the exciton in counts per s, background not included.
    lifetimes_ns, amplitudes
        Of the one or two exponentials of its decay, at time zero.
    scatter_share
        Scatter over that signal.
    background_per_s
        Flat counts per s.
    biexciton_share, biexciton_lifetime_ns, biexciton_power
        Light of biexcitons over the signal, their lifetime, and the power of the brightness by
        which they grow from state to state.
    """

    signal_per_s: float
    lifetimes_ns: tuple[float, ...]
    amplitudes: tuple[float, ...]
    scatter_share: float
    background_per_s: float
    biexciton_share: float
    biexciton_lifetime_ns: float
    biexciton_power: float = 0.5

    @property
    def lifetime_ns(self) -> float:
        """Amplitude-averaged lifetime of the exciton."""
        return float(np.dot(self.amplitudes, self.lifetimes_ns) / np.sum(self.amplitudes))


class Decays:
    """Expected counts per s and gate, and their derivatives by what is not known exactly.

    Parameters
    ----------
    light
        What is true.
    response
        Gaussian or measured, in place.
    gate_edges_ns
        Shape ``(n_gates + 1,)``.
    period_ns
        Laser period.
    """

    def __init__(
        self, light: Light, response: Response, gate_edges_ns: Array, period_ns: float
    ) -> None:
        self.light = light
        self.n_gates = gate_edges_ns.size - 1
        width_ns = response.width_ns
        logs = np.linspace(np.log(width_ns / 30.0), np.log(3.0 * period_ns), _N_LIFETIMES)
        self._log_start, self._log_step = float(logs[0]), float(logs[1] - logs[0])
        step_ns = _SHIFT_STEP * width_ns
        variants: list[tuple[Response, float]] = [
            (response, 0.0), (response, -step_ns), (response, step_ns),
            (stretched(response, np.exp(-_WIDTH_STEP)), 0.0),
            (stretched(response, np.exp(_WIDTH_STEP)), 0.0),
        ]  # fmt: skip
        rates = np.exp(-logs)
        self._tables = [
            np.maximum(exponential_gate_probability(rates, gate_edges_ns, one, period_ns, by), 0.0)
            for one, by in variants
        ]
        self._scatters = [
            scatter_gate_probability(gate_edges_ns, one, period_ns, by) for one, by in variants
        ]
        self._background = flat_gate_fraction(gate_edges_ns)
        self._amplitudes = np.array(light.amplitudes) / np.sum(light.amplitudes)
        self._rates = 1.0 / np.array(light.lifetimes_ns)
        self._pair, self._pair_slopes = self._biexcitons()
        self._whole, self._whole_slopes = (one[0] for one in self._shapes(np.zeros(1)))

    def tied(self, u: Array, v: Array) -> tuple[Array, Array]:
        """Of states on a grid of log brightness and log lifetime.

        Parameters
        ----------
        u
            Log brightness, shape ``(n_u,)``.
        v
            Log lifetime, shape ``(n_v,)``.

        Returns
        -------
        rate : ndarray, shape ``(n_u, n_v, n_gates)``
            Counts per s.
        slopes : ndarray, shape ``(n_u, n_v, n_nuisances, n_gates)``
            Derivatives by `NUISANCES`.
        """
        shapes, slopes = self._shapes(v)
        bright = np.exp(u)[:, None, None]
        return self._complete(u, bright * shapes, bright[..., None] * slopes)

    def charged(self, u: Array, v: Array, scaling: float) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Of states that are charged for a part of the time, faster than a bin.

        Parameters
        ----------
        u
            Log brightness of the state, shape ``(n_u,)``.
        v
            Log lifetime of the trion, shape ``(n_v,)``.
        scaling
            Of its radiative rate.

        Returns
        -------
        rate, slopes
            As of `tied`.
        allowed : ndarray, shape ``(n_u, n_v)``
            Where a share of the time exists that makes this brightness.
        """
        share = np.array([[charging_share(x, y, scaling) for y in v] for x in u])
        shapes, slopes = self._shapes(v)
        trion = (share * scaling * np.exp(v))[..., None]
        rest = (1.0 - share)[..., None]
        own = rest * self._whole + trion * shapes
        rate, derivatives = self._complete(
            u, own, rest[..., None] * self._whole_slopes + trion[..., None] * slopes
        )
        return rate, derivatives, share > 0.0

    def dark(self) -> tuple[Array, Array]:
        """Of a state without light of its own: rate, shape ``(n_gates,)``, and its slopes."""
        rate, slopes = self._flat()
        return rate, slopes

    def _complete(self, u: Array, shapes: Array, slopes: Array) -> tuple[Array, Array]:
        """Add scatter, background and biexcitons to shapes of the signal."""
        light = self.light
        flat, flat_slopes = self._flat()
        power = light.biexciton_power
        pairs = light.signal_per_s * np.exp(power * u)[:, None, None]
        own_pairs = light.biexciton_share * pairs * self._pair
        signal = light.signal_per_s * shapes
        rate = signal + flat + own_pairs
        out = np.empty((*rate.shape[:2], len(NUISANCES), rate.shape[2]))
        out[:] = flat_slopes
        out[:, :, [LIFETIME, SPREAD, FAST, SHIFT, WIDTH]] += light.signal_per_s * slopes
        out[:, :, SIGNAL] += signal + own_pairs
        out[:, :, PAIR_SHARE] = pairs * self._pair
        for place, slope in self._pair_slopes.items():
            out[:, :, place] += light.biexciton_share * pairs * slope
        out[:, :, PAIR_POWER] = own_pairs * (u * power * (1.0 - power))[:, None, None]
        return rate, out

    def _flat(self) -> tuple[Array, Array]:
        light = self.light
        scatter = light.signal_per_s * light.scatter_share
        slopes = np.zeros((len(NUISANCES), self.n_gates))
        slopes[SCATTER] = light.signal_per_s * self._scatters[_AS_IS]
        slopes[BACKGROUND] = self._background
        slopes[SHIFT] = scatter * self._by_response(self._scatters, _EARLIER, _LATER, _SHIFT_STEP)
        slopes[WIDTH] = scatter * self._by_response(self._scatters, _NARROWER, _WIDER, _WIDTH_STEP)
        rate = scatter * self._scatters[_AS_IS] + light.background_per_s * self._background
        return rate, slopes

    @staticmethod
    def _by_response(variants: list[Array], low: int, high: int, step: float) -> Array:
        return (variants[high] - variants[low]) / (2.0 * step)

    def _shares(self, amplitudes: Array, rates: Array, ratio: float, variant: int) -> Array:
        out = np.empty(self.n_gates)
        quenched_shares(
            amplitudes, rates, ratio, self._tables[variant], self._log_start, self._log_step, out
        )
        return out

    def _biexcitons(self) -> tuple[Array, dict[int, Array]]:
        one, rate = np.ones(1), np.array([1.0 / self.light.biexciton_lifetime_ns])
        variants = [self._shares(one, rate, 1.0, k) for k in range(5)]
        longer = self._shares(one, rate, np.exp(_LOG_STEP), _AS_IS)
        shorter = self._shares(one, rate, np.exp(-_LOG_STEP), _AS_IS)
        slopes = {
            SHIFT: self._by_response(variants, _EARLIER, _LATER, _SHIFT_STEP),
            WIDTH: self._by_response(variants, _NARROWER, _WIDER, _WIDTH_STEP),
            PAIR_LIFETIME: (longer - shorter) / (2.0 * _LOG_STEP),
        }
        return variants[_AS_IS], slopes

    def _shapes(self, v: Array) -> tuple[Array, Array]:
        """Shares of the gates at lifetime ratios, and their derivatives, lifetime to width."""
        shapes = np.empty((v.size, self.n_gates))
        slopes = np.empty((v.size, 5, self.n_gates))
        amplitudes, rates = self._amplitudes, self._rates
        for i, ratio in enumerate(np.exp(v)):
            variants = [self._shares(amplitudes, rates, ratio, k) for k in range(5)]
            shapes[i] = variants[_AS_IS]
            longer, shorter = (
                self._shares(amplitudes, rates / factor, ratio, _AS_IS)
                for factor in (np.exp(_LOG_STEP), np.exp(-_LOG_STEP))
            )
            slopes[i, 0] = (longer - shorter) / (2.0 * _LOG_STEP)
            slopes[i, 1], slopes[i, 2] = self._by_shape(ratio, variants[_AS_IS])
            slopes[i, 3] = self._by_response(variants, _EARLIER, _LATER, _SHIFT_STEP)
            slopes[i, 4] = self._by_response(variants, _NARROWER, _WIDER, _WIDTH_STEP)
        return shapes, slopes

    def _by_shape(self, ratio: float, here: Array) -> tuple[Array, Array]:
        """Derivatives by the spread of the exciton's lifetimes and the share of the fast one."""
        light = self.light
        if len(light.lifetimes_ns) == 1:
            apart = two_exponentials(light.lifetime_ns, np.sqrt(_SQUARED_STEP), 0.0)
            away = self._shares(*apart, ratio, _AS_IS)
            return (away - here) / _SQUARED_STEP, np.zeros(self.n_gates)
        spread = float(np.log(light.lifetimes_ns[1] / light.lifetimes_ns[0]))
        logit = float(np.log(light.amplitudes[0] / light.amplitudes[1]))
        found = []
        for d_spread, d_logit in ((_SHAPE_STEP, 0.0), (0.0, _SHAPE_STEP)):
            ahead, behind = (
                self._shares(
                    *two_exponentials(
                        light.lifetime_ns, spread + sign * d_spread, logit + sign * d_logit
                    ),
                    ratio,
                    _AS_IS,
                )
                for sign in (1.0, -1.0)
            )
            found.append((ahead - behind) / (2.0 * _SHAPE_STEP))
        return found[0], found[1]


def two_exponentials(lifetime_ns: float, spread: float, logit: float) -> tuple[Array, Array]:
    """Amplitudes and rates of two exponentials of a mean lifetime.

    Parameters
    ----------
    lifetime_ns
        Amplitude-averaged.
    spread
        Log of the second lifetime over the first.
    logit
        Of the amplitude of the first.
    """
    first, ratio = 1.0 / (1.0 + np.exp(-logit)), np.exp(spread)
    short = lifetime_ns / (first + (1.0 - first) * ratio)
    return np.array([first, 1.0 - first]), np.array([1.0 / short, 1.0 / (short * ratio)])
