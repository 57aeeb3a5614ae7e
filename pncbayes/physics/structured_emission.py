"""Counts per gate of the states of a structured hypothesis, over NumPy or PyTensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pncbayes.physics.convolution import flat_gate_fraction
from pncbayes.physics.structures import StructuredModel
from pncbayes.physics.tied_decay import DecayTable, decay_table

__all__ = ["CLOSE", "Recorder", "gate_rate_per_s", "recorder_of"]

Array = NDArray[np.float64]

# Share of a lifetime by which it is taken to differ from another at least.
CLOSE = 1e-6


@dataclass(frozen=True, eq=False)
class Recorder:
    """What the instrument makes of light.

    Attributes
    ----------
    table
        Shares of the gates in light of one lifetime.
    flat
        Share of each gate in light that knows nothing of the pulse, shape ``(n_gates,)``.
    """

    table: DecayTable
    flat: Array


def recorder_of(trace: xr.Dataset) -> Recorder:
    """Make the recorder of a trace.

    Raises
    ------
    ValueError
        If the trace has no delays or no response.
    """
    edges = np.append(trace["gate_start_ns"].to_numpy(), trace["gate_stop_ns"].to_numpy()[-1])
    return Recorder(decay_table(trace), np.asarray(flat_gate_fraction(edges)))


def gate_rate_per_s(
    model: StructuredModel,
    recorder: Recorder,
    values: Mapping[str, Any],
    lifetime_deviation: Any,
    xp: Any = np,
) -> Any:
    """Expected counts per s and gate of each state.

    Parameters
    ----------
    model
        The hypothesis.
    recorder
        The instrument.
    values
        Of the parameters of `StructuredModel.priors`, ``background_rate_per_s``, and
        ``response_shift`` and ``response_width``, in their steps: numbers, or variables of `xp`.
    lifetime_deviation
        In units of the slack, of each configuration of each emitter but the exciton, shape
        ``(n_emitters, n_configurations - 1)``.
    xp
        `numpy` or `pytensor.tensor`.

    Returns
    -------
    array, shape ``(n_states, n_gates)``
    """
    table, start, step = recorder.table, recorder.table.log_start, recorder.table.log_step
    shift = values["response_shift"]
    before, after = 0.5 * shift * (shift - 1.0), 0.5 * shift * (shift + 1.0)

    width = values["response_width"]
    narrow, wide = 0.5 * width * (width - 1.0), 0.5 * width * (width + 1.0)

    def shifted(parts: Array) -> Any:
        blend = before * parts[0, 1] + (1.0 - shift**2) * parts[1, 1] + after * parts[2, 1]
        blend = blend + narrow * parts[1, 0] - width**2 * parts[1, 1] + wide * parts[1, 2]
        return xp.maximum(blend, 0.0)

    plain, scatter = shifted(table.shares), shifted(table.scatter)
    pair_ns = values["biexciton_lifetime_ns"]
    pair_shares = _interpolate(plain, xp.stack([(xp.log(pair_ns) - start) / step]), xp)[0]
    waiting = xp.minimum(values["after_biexciton_share"], 1.0)
    shares = _delayed(plain, pair_ns, waiting, table, xp)
    emitters, exciton_total = [], 0.0
    for emitter in range(model.n_emitters):
        light, exciton = _of_emitter(
            model, values, emitter, lifetime_deviation[emitter], (shares, pair_shares), table, xp
        )
        emitters.append(light)
        exciton_total = exciton_total + exciton
    configurations = model.configurations
    light = emitters[0][configurations[:, 0]]
    for emitter in range(1, model.n_emitters):
        light = light + emitters[emitter][configurations[:, emitter]]
    total = light.sum(axis=1)
    same = values["scatter_share"] * exciton_total * scatter
    same = same + values["background_rate_per_s"] * table.background
    delayed = values["afterpulsing_share"] * total[:, None] * recorder.flat[None, :]
    return light + delayed + same[None, :]


def _delayed(plain: Any, pair_ns: Any, share: Any, table: DecayTable, xp: Any) -> Any:
    """Table for the light of single excitons, of which a share waits for a biexciton to decay.

    Two decays of lifetimes t and T, one after the other, have the shares
    ``(t h(t) - T h(T)) / (t - T)`` of the gates, if single ones have the shares h.
    """
    start, step, n = table.log_start, table.log_step, table.shares.shape[2]
    own = np.exp(start + step * np.arange(n))
    first = _interpolate(plain, (xp.log(xp.stack([pair_ns])) - start) / step, xp)[0]
    # where the two are alike this is a slope, which a small distance gives as well
    gap = own - pair_ns
    gap = xp.where(xp.abs(gap) < CLOSE * own, CLOSE * own, gap)
    mixed = (own[:, None] * plain - (own - gap)[:, None] * first[None, :]) / gap[:, None]
    return (1.0 - share) * plain + share * xp.maximum(mixed, 0.0)


def _of_emitter(
    model: StructuredModel,
    values: Mapping[str, Any],
    emitter: int,
    deviation: Any,
    shares_of: tuple[Any, Any],
    table: DecayTable,
    xp: Any,
) -> tuple[Any, Any]:
    """Light of one emitter in each configuration and gate, and the signal of its exciton."""
    shares, pair_shares = shares_of
    exciton = values[model.exciton_parameter("exciton_rate_per_s", emitter)]
    mean_ns = values[model.exciton_parameter("exciton_lifetime_ns", emitter)]
    fast = values[model.exciton_parameter("fast_amplitude", emitter)]
    spread = xp.exp(values[model.exciton_parameter("log_lifetime_spread", emitter)])
    short_ns = mean_ns / (fast + (1.0 - fast) * spread)
    amplitudes = xp.stack([fast, 1.0 - fast])
    rates = xp.stack([1.0 / short_ns, 1.0 / (short_ns * spread)])
    radiative, extra, kept, slower = model.configuration_effects(values, emitter, xp)
    own = (rates[None, :] + extra[:, None]) / slower[:, None]
    weights = amplitudes[None, :] / own
    lifetimes = weights.sum(axis=1)
    brightness = kept * radiative * lifetimes / mean_ns
    zero = xp.zeros((1,))
    slack = xp.exp(model.slack * xp.concatenate([zero, deviation]))
    places = (xp.log(slack)[:, None] - xp.log(own) - table.log_start) / table.log_step
    decays = _interpolate(shares, places.reshape((-1,)), xp)
    decays = decays.reshape((len(model.levels), 2, shares.shape[1]))
    decay = (weights[:, :, None] * decays).sum(axis=1) / lifetimes[:, None]
    # biexcitons grow with a power of the brightness, from none where there is no light
    pairs = values["biexciton_share"] * (brightness + 1e-12) ** values["biexciton_power"]
    lit = xp.where(brightness > 1e-9, pairs, 0.0)
    light = brightness[:, None] * decay + lit[:, None] * pair_shares[None, :]
    return exciton * light, exciton


def _interpolate(table: Any, places: Any, xp: Any) -> Any:
    """Rows of a table at fractional places, by cubics through four; its ends outside it."""
    last = table.shape[0] - 1
    places = xp.clip(places, 0.0, last)
    low = xp.clip(xp.floor(places) - 1.0, 0.0, last - 3.0)
    u = places - low - 1.0
    row = low.astype("int64")
    weights = (
        -u * (u - 1.0) * (u - 2.0) / 6.0,
        (u + 1.0) * (u - 1.0) * (u - 2.0) / 2.0,
        -(u + 1.0) * u * (u - 2.0) / 2.0,
        (u + 1.0) * u * (u - 1.0) / 6.0,
    )
    found = 0.0
    for k, weight in enumerate(weights):
        found = found + weight[:, None] * table[row + k]
    return xp.maximum(found, 0.0)
