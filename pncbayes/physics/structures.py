r"""Structured hypotheses: how a dot is put together, and what follows for every state of it.

A dot is one or more emitters, each with the same independent parts: a charge that comes and goes,
a trap that catches hot carriers, recombination centres at the band edge. A level of every part
makes a state. Each part changes the exciton in its own way, and the parts add up:

==============  =================================================================================
part            in a level z
==============  =================================================================================
``auger``       z charges: radiative rate :math:`1 + z (m - 1)` fold, Auger rate
                :math:`k_A z (z + 1) / 2` (pathways of an electron-hole pair with z spectators)
``hot_carrier`` z open traps: a share :math:`\eta^z` of the carriers reaches the band edge
``nbc``         z active centres, each adding :math:`k_c` to the rates at the band edge
``background``  no light
``other``       brightness and lifetime without physics
==============  =================================================================================

With the exciton's rate :math:`k_i` of each exponential, yield Q and mean lifetime t, the rates of a
state are :math:`k_i + x` with :math:`x = (R - 1) Q / t + k_A + k_c`, its relative mean lifetime is
:math:`g = \sum a_i / (k_i + x) / \sum a_i / k_i` and its relative brightness
:math:`f = \eta R g` [1]_ [2]_.

References
----------
.. [1] Galland, C. et al. Two types of luminescence blinking revealed by spectroelectrochemistry of
   single quantum dots. Nature 479, 203 (2011), doi:10.1038/nature10569.
.. [2] Frantsuzov, P. A. et al. Model of fluorescence intermittency of single colloidal
   semiconductor quantum dots using multiple recombination centers. Phys. Rev. Lett. 103, 207402
   (2009), doi:10.1103/PhysRevLett.103.207402.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pncbayes.physics.modelfile import LogNormal

__all__ = ["PART_KEYS", "Normal", "Part", "Prior", "StructuredModel", "Uniform"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Uniform:
    """A uniform prior.

    Attributes
    ----------
    low, high
        Limits, in the unit that the key's name says.
    """

    low: float
    high: float


@dataclass(frozen=True)
class Normal:
    """A normal prior.

    Attributes
    ----------
    mean, sd
        Mean and standard deviation, in the unit that the key's name says.
    """

    mean: float
    sd: float


Prior = LogNormal | Uniform | Normal

PART_KEYS: dict[str, tuple[str, ...]] = {
    "auger": ("k_trap_per_s", "k_detrap_per_s", "k_auger_per_ns", "radiative_scaling"),
    "hot_carrier": ("k_trap_per_s", "k_detrap_per_s", "hot_carrier_yield"),
    "nbc": ("k_activate_per_s", "k_deactivate_per_s", "k_centre_per_ns"),
    "background": ("k_trap_per_s", "k_detrap_per_s"),
    "other": ("k_trap_per_s", "k_detrap_per_s", "relative_brightness", "relative_lifetime"),
}
"""Priors that a part of each mechanism needs."""


@dataclass(frozen=True)
class Part:
    """One part of an emitter, which changes its level on its own.

    Attributes
    ----------
    name
        Name, of the part in states and parameters.
    mechanism
        A key of `PART_KEYS`.
    n_levels
        2, or more for charges (``auger``), traps (``hot_carrier``) and centres (``nbc``): level z
        holds z of them.
    priors
        By key.
    most_levels
        Where the number of levels is not known, the most; `n_levels` is then the fewest.
    """

    name: str
    mechanism: str
    n_levels: int
    priors: Mapping[str, Prior]
    most_levels: int | None = None

    @property
    def is_counted(self) -> bool:
        """Whether a level is a number of independent traps, each switching by itself."""
        return self.mechanism in ("nbc", "hot_carrier")

    def is_like(self, other: Part) -> bool:
        """Whether another part has the same mechanism, levels and priors."""
        return (self.mechanism, self.n_levels, dict(self.priors)) == (
            other.mechanism, other.n_levels, dict(other.priors),
        )  # fmt: skip

    def rate_keys(self) -> tuple[str, str]:
        """Keys of the rates up and down."""
        up, down = PART_KEYS[self.mechanism][:2]
        return up, down

    def level_name(self, level: int) -> str:
        """Name of a level, empty for the lowest."""
        if level == 0:
            return ""
        return self.name if self.n_levels == 2 else f"{self.name} {level}"


@dataclass(frozen=True)
class StructuredModel:
    """A structured hypothesis.

    Attributes
    ----------
    name, claim, references
        What the file says of itself.
    n_emitters
        Emitters whose light adds up; each has all parts.
    parts
        Parts of an emitter.
    exciton
        Priors of ``exciton_rate_per_s``, ``exciton_lifetime_ns`` and ``quantum_yield``.
    instrument
        Priors of ``scatter_share``, ``afterpulsing_share``, ``biexciton_share``,
        ``biexciton_lifetime_ns`` and ``after_biexciton_share``.
    slack
        Standard deviation of the log lifetime of a state around what its parts make of it.
    concentration
        Prior of the concentration of the decay of a state around its shape.
    text, digest
        The file itself and its hash.
    """

    name: str
    claim: str
    references: tuple[str, ...]
    n_emitters: int
    parts: tuple[Part, ...]
    exciton: Mapping[str, Prior]
    instrument: Mapping[str, Prior]
    slack: float
    concentration: LogNormal
    text: str
    digest: str

    def variants(self) -> list[StructuredModel]:
        """The same hypothesis with each number of levels that its parts may have."""
        ranges = [range(part.n_levels, (part.most_levels or part.n_levels) + 1)
                  for part in self.parts]  # fmt: skip
        return [
            replace(self, parts=tuple(
                replace(part, n_levels=n, most_levels=None)
                for part, n in zip(self.parts, numbers, strict=True)
            ))
            for numbers in itertools.product(*ranges)
        ]  # fmt: skip

    @property
    def levels(self) -> list[tuple[int, ...]]:
        """Level of each part, for each configuration of one emitter; the first is the exciton."""
        return list(itertools.product(*(range(part.n_levels) for part in self.parts)))

    @property
    def configurations(self) -> NDArray[np.int64]:
        """Configuration of each emitter in each state, shape ``(n_states, n_emitters)``."""
        states = itertools.product(range(len(self.levels)), repeat=self.n_emitters)
        return np.array(list(states), dtype=np.int64).reshape(-1, self.n_emitters)

    @property
    def n_states(self) -> int:
        """Number of states."""
        return int(self.configurations.shape[0])

    @property
    def state_names(self) -> list[str]:
        """Names of the states, from the levels that are not the lowest."""
        names = []
        for state in self.configurations:
            here = []
            for emitter, configuration in enumerate(state):
                levels = zip(self.parts, self.levels[configuration], strict=True)
                own = " + ".join(filter(None, (part.level_name(z) for part, z in levels)))
                if own:
                    here.append(own if self.n_emitters == 1 else f"{own} of {emitter + 1}")
            names.append(", ".join(here) or "exciton")
        return names

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """Mechanisms of the parts, each once."""
        return tuple(dict.fromkeys(part.mechanism for part in self.parts))

    @property
    def n_alike(self) -> int:
        """Ways to exchange emitters, and parts of the same priors, that change nothing."""
        ways = math.prod(
            sum(part.is_like(other) for other in self.parts[: number + 1])
            for number, part in enumerate(self.parts)
        )
        exchanges: int = ways**self.n_emitters * math.factorial(self.n_emitters)
        return exchanges

    def part_parameter(self, part: Part, key: str, emitter: int) -> str:
        """Name of the parameter of a part: its key, with what is needed to tell it from others."""
        owners = [other for other in self.parts if key in other.priors]
        name = key if len(owners) == 1 else f"{part.name}_{key}"
        return name if self.n_emitters == 1 else f"emitter_{emitter + 1}_{name}"

    def exciton_parameter(self, key: str, emitter: int) -> str:
        """Name of a parameter of the exciton of an emitter."""
        return key if self.n_emitters == 1 else f"emitter_{emitter + 1}_{key}"

    def priors(self) -> dict[str, Prior]:
        """Priors of all parameters but those of the background, by name."""
        found: dict[str, Prior] = {}
        needs_yield = any(part.mechanism == "auger" for part in self.parts)
        for emitter in range(self.n_emitters):
            for key, prior in self.exciton.items():
                # nothing but the radiative rate of a trion depends on it
                if key != "quantum_yield" or needs_yield:
                    found[self.exciton_parameter(key, emitter)] = prior
            # of its two exponentials: log of slow over fast lifetime, and the fast one's amplitude
            found[self.exciton_parameter("log_lifetime_spread", emitter)] = Uniform(0.0, 3.0)
            found[self.exciton_parameter("fast_amplitude", emitter)] = Uniform(0.0, 1.0)
            for part in self.parts:
                for key, prior in part.priors.items():
                    found[self.part_parameter(part, key, emitter)] = prior
        found.update(self.instrument)
        found["biexciton_power"] = Uniform(0.0, 1.0)
        found["decay_concentration"] = self.concentration
        return found

    def transition_rate_per_s(self, values: Mapping[str, Any], xp: Any = np) -> Any:
        """Rates between states, one part of one emitter changing by one level at a time.

        Parameters
        ----------
        values
            Of the parameters, by name: numbers, or variables of `xp`.
        xp
            `numpy` or `pytensor.tensor`.

        Returns
        -------
        array, shape ``(n_states, n_states)``
            Per s; zeros on the diagonal.
        """
        rows = [[xp.zeros(()) for _ in range(self.n_states)] for _ in range(self.n_states)]
        states = [tuple(self.levels[c] for c in state) for state in self.configurations]
        place = {state: number for number, state in enumerate(states)}
        for state, number in place.items():
            for emitter, p in itertools.product(range(self.n_emitters), range(len(self.parts))):
                part, level = self.parts[p], state[emitter][p]
                up, down = part.rate_keys()
                for key, after in ((up, level + 1), (down, level - 1)):
                    if not 0 <= after < part.n_levels:
                        continue
                    own = (*state[emitter][:p], after, *state[emitter][p + 1 :])
                    target = place[(*state[:emitter], own, *state[emitter + 1 :])]
                    free = part.n_levels - 1 - level if after > level else level
                    times = float(free) if part.is_counted else 1.0
                    rate = values[self.part_parameter(part, key, emitter)]
                    rows[number][target] = times * rate
        return xp.stack([xp.stack(row) for row in rows])

    def configuration_effects(
        self, values: Mapping[str, Any], emitter: int, xp: Any = np
    ) -> tuple[Any, Any, Any, Any]:
        """What the parts do to the exciton, for each configuration of one emitter.

        Returns
        -------
        radiative
            Radiative rate over that of the exciton, R, shape ``(n_configurations,)``.
        extra_per_ns
            Rate added to all rates of the decay, x.
        kept
            Share of the carriers that reaches the band edge, and of all other losses of
            brightness without change of the decay.
        slower
            Factor of all lifetimes, of parts without physics.
        """
        rates = []
        for levels in self.levels:
            radiative, extra, kept, slower = 1.0, 0.0, 1.0, 1.0
            for part, z in zip(self.parts, levels, strict=True):
                if z == 0:
                    continue
                effects = PART_KEYS[part.mechanism][2:]
                own = {key: values[self.part_parameter(part, key, emitter)] for key in effects}
                if part.mechanism == "auger":
                    radiative = radiative * (1.0 + z * (own["radiative_scaling"] - 1.0))
                    extra = extra + own["k_auger_per_ns"] * (0.5 * z * (z + 1))
                elif part.mechanism == "hot_carrier":
                    kept = kept * own["hot_carrier_yield"] ** z
                elif part.mechanism == "nbc":
                    extra = extra + z * own["k_centre_per_ns"]
                elif part.mechanism == "background":
                    kept = kept * 0.0
                else:
                    kept = kept * own["relative_brightness"] / own["relative_lifetime"]
                    slower = slower * own["relative_lifetime"]
            if any(part.mechanism == "auger" for part in self.parts):
                lifetime_ns = values[self.exciton_parameter("exciton_lifetime_ns", emitter)]
                quantum_yield = values[self.exciton_parameter("quantum_yield", emitter)]
                extra = extra + (radiative - 1.0) * quantum_yield / lifetime_ns
            one = xp.ones(())
            rates.append((radiative * one, extra * one, kept * one, slower * one))
        radiative, extra, kept, slower = (xp.stack(column) for column in zip(*rates, strict=True))
        return radiative, extra, kept, slower
