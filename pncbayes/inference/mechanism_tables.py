"""What a result says of mechanisms: names, reasons, rates and losses, from its tree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from pncbayes.inference.intervals import interval
from pncbayes.physics.exciton import Exciton
from pncbayes.physics.mechanisms import MECHANISMS

__all__ = ["MechanismTables"]

# A name is given above this probability, and where the radiative rate is known to a factor e^0.25.
_SURE, _KNOWN_LOG_R = 0.8, 0.25
_NEEDS_LIFETIME = ("auger", "hot_carrier", "nbc")
# A lifetime below this share of the width of the response is hidden by it.
_HIDDEN = 0.25
# Scatter and biexcitons over a state's own light from which on a name would rest on these.
_MOST_ADDED = 1.0
# Share of the time below which a state is too rare to be taken for the exciton: it may be a burst.
_RARE = 0.005
# Probability of unresolved charging above which no state is named a hot-carrier one.
_EXCLUDED = 0.05
_TAKES_PART = 0.05
# Standard deviations from what was given of the exciton that are said; so is a state above it by
# this factor.
_FAR_OFF, _ABOVE_EXCITON = 3.0, 1.25
_OF_EXCITON = (
    ("brightness", "rate_per_s", "counts per s"), ("lifetime", "lifetime_ns", "ns"),
)  # fmt: skip
UNDETERMINED = "undetermined"
_CLOSE = 0.1


class MechanismTables:
    """Reads the group ``mechanisms`` of a tree.

    Parameters
    ----------
    group
        The group.
    """

    def __init__(self, group: xr.Dataset) -> None:
        self.group = group

    @property
    def takes_part(self) -> pd.Series:
        """Probability that a mechanism takes part in the dot, averaged over numbers of states."""
        values = self.group["takes_part"]
        index = pd.Index(values["mechanism"].values.astype(str), name="mechanism")
        return pd.Series(values.values.astype(float), index=index, name="probability")

    @property
    def of_states(self) -> pd.DataFrame:
        """One row per state: probabilities, the name given or ``undetermined``, and why."""
        names = [str(name) for name in self.group["mechanism"].values]
        table = pd.DataFrame(
            self.group["probability"].values,
            columns=names,
            index=pd.RangeIndex(self.group.sizes["state"], name="state"),
        )
        table["reference"] = self.group["reference"].values
        verdicts = [self._verdict(state) for state in range(len(table))]
        table["named_mechanism"] = [name for name, _ in verdicts]
        table["reason"] = [reason for _, reason in verdicts]
        return table

    def reference_state(self) -> int | None:
        """Return the state that is most probably the neutral exciton; None if none is."""
        shares = self.group["reference"].values
        if "no_reference" in self.group and float(self.group["no_reference"]) > shares.max():
            return None
        return int(np.argmax(shares))

    @property
    def notes(self) -> list[str]:
        """What has to be said of the exciton: not the brightest, not there, or not to be told."""
        shares = self.group["reference"].values.astype(float)
        none = float(self.group["no_reference"]) if "no_reference" in self.group else 0.0
        state = self.reference_state()
        probable = none if state is None else float(shares[state])
        if self._rare_reference is not None:
            return [
                f"state {state} is taken for the neutral exciton and is seen "
                f"for {100 * self._rare_reference:.2g} % of the time: it may be a burst; "
                "no mechanism is named; cut the burst out, or give the `exciton`"
            ]
        if probable <= _SURE:
            likely = [f"state {k} {share:.2f}" for k, share in enumerate(shares) if share >= _CLOSE]
            likely += [f"none {none:.2f}"] if none >= _CLOSE else []
            return [
                "which state is the neutral exciton cannot be told: " + ", ".join(likely)
                + "; mechanisms are averaged over these"
            ]  # fmt: skip
        if state is None:
            return [
                f"no state of this dot is the exciton that was given (probability {none:.2f}); "
                "brightness and lifetime of all states are over those given"
            ]
        if state > 0:
            return [
                f"state {state} is the neutral exciton (probability {probable:.2f}), and not the "
                "brightest state; brightness and lifetime of all others are over its"
            ]
        return []

    def doubts(self, exciton: Exciton) -> list[str]:
        """Where the data contradict what was given of the exciton.

        Parameters
        ----------
        exciton
            What was given to the fit.
        """
        found = []
        for words, name, unit in _OF_EXCITON:
            given = getattr(exciton, name)
            if given is None:
                continue
            centre, sigma = Exciton.log_normal(*given)
            place = float(np.log(self.group[f"exciton_{name}"].values).mean())
            if abs(place - centre) > _FAR_OFF * sigma:
                found.append(
                    f"the data put the {words} of the exciton at {np.exp(place):.3g} {unit}, where "
                    f"{given[0]:.3g} (sd {given[1]:.2g}) was given; mechanisms rest on the former"
                )
        is_other = self.group["label"].values == MECHANISMS.index("other")
        for words, name in (
            ("brighter", "relative_brightness"),
            ("longer-lived", "relative_lifetime"),
        ):
            above = (is_other & (self.group[name].values > _ABOVE_EXCITON)).mean(axis=0)
            found += [
                f"state {state} is {words} than the exciton that was given, which no mechanism "
                "makes it; check what was given"
                for state in np.flatnonzero(above > _SURE)
            ]
        return found

    @property
    def _rare_reference(self) -> float | None:
        """Share of the time in the state taken for the exciton, if that is suspiciously little."""
        if self.reference_state() is None or "reference_occupancy" not in self.group:
            return None
        share = float(self.group["reference_occupancy"])
        return share if share < _RARE else None

    def _verdict(self, state: int) -> tuple[str, str]:
        """Name of the mechanism of a state, or ``undetermined`` and the reason."""
        if state == self.reference_state():
            return "reference", ""
        if self._rare_reference is not None:
            return UNDETERMINED, (
                "what is taken for the exciton is seen "
                f"for {100 * self._rare_reference:.2g} % of the time, and may be a burst"
            )
        shares = self.group["probability"].values[state]
        names = self.group["mechanism"].values
        order = np.argsort(-shares)
        name, most = str(names[order[0]]), float(shares[order[0]])
        sd = float(self.group["broad_log_radiative_ratio_sd"].values[state])
        hidden = float(self.group["lifetime_over_response"].values[state])
        vague = not sd <= _KNOWN_LOG_R and name in _NEEDS_LIFETIME
        # the width of a response that was taken from the rise of these very decays is a guess, and
        # what lies within it cannot be told from scatter or biexcitons
        guessed = bool(self.group.attrs.get("response_is_estimated", 0))
        blurred = guessed and hidden < _HIDDEN and name in _NEEDS_LIFETIME
        # what is left after most of the light is called scatter has any lifetime that one likes
        added = 0.0
        if "added_over_own_light" in self.group:
            added = float(self.group["added_over_own_light"].values[state])
        outshone = added > _MOST_ADDED and name in _NEEDS_LIFETIME
        # charging that no bin shows looks like a hot-carrier trap: that has to be excluded
        charged = float(shares[list(names).index("unresolved_charging")])
        mimicked = name == "hot_carrier" and charged > _EXCLUDED
        if most > _SURE and not (vague or blurred or mimicked or outshone):
            return name, ""
        reasons = []
        if most <= _SURE:
            likely = [f"{names[k]} {shares[k]:.2f}" for k in order if shares[k] >= _CLOSE]
            reasons.append("the data allow " + ", ".join(likely or [f"{name} {most:.2f}"]))
        elif mimicked:
            reasons.append(
                "charging faster than a bin looks the same, and is not excluded (probability "
                f"{charged:.2f})"
            )
        if outshone:
            reasons.append(
                f"as {name} it would emit less than the scatter and the biexcitons that its light "
                f"is mixed with ({added:.2g} times its own)"
            )
        if vague:
            known = f"to a factor of {np.exp(sd):.2g}" if np.isfinite(sd) else "not at all"
            reasons.append(f"its radiative rate is known {known}")
        if hidden < _HIDDEN:
            reasons.append(
                f"its lifetime, {hidden:.2g} of the width of the response, is hidden by that"
                + (", which was estimated: give a measured response" if guessed else "")
            )
        return UNDETERMINED, "; ".join(reasons)

    def draws_of_states(self) -> pd.DataFrame:
        """Interval of each quantity of each state, given the mechanism that it belongs to."""
        rows = []
        quantities = {
            "auger_rate_per_ns": "auger",
            "radiative_scaling": "auger",
            "hot_carrier_yield": "hot_carrier",
            "centre_rate_per_ns": "nbc",
            "charged_share": "unresolved_charging",
        }
        for state in range(self.group.sizes["state"]):
            for quantity, mechanism in quantities.items():
                if quantity not in self.group:
                    continue
                share = float(self.group["probability"].sel(mechanism=mechanism).values[state])
                if share >= _TAKES_PART:
                    found = interval(self.group[quantity].values[:, state])
                    rows.append({
                        "state": state, "mechanism": mechanism, "probability": share,
                        "quantity": quantity, **found,
                    })  # fmt: skip
        columns = ["state", "mechanism", "probability", "quantity", "mean", "sd", "q05", "q95"]
        return pd.DataFrame(rows, columns=columns)

    @property
    def auger_rate_per_ns(self) -> dict[str, float] | None:
        """Auger rate of the state that is most probably a trion, if it is one; None without."""
        if "auger_rate_per_ns" not in self.group:
            return None
        share = self.group["probability"].sel(mechanism="auger").values
        state = int(np.argmax(share))
        if share[state] < _TAKES_PART:
            return None
        return interval(self.group["auger_rate_per_ns"].values[:, state])

    @property
    def loss_budget(self) -> dict[str, dict[str, float]] | None:
        """Share of the lost photons by mechanism; None where nothing is lost."""
        if "loss_share" not in self.group:
            return None
        shares = self.group["loss_share"].values
        if not np.isfinite(shares).any():
            return None
        names = self.group["mechanism"].values
        return {str(name): interval(shares[:, k]) for k, name in enumerate(names)}

    def summary_of_state(self, state: int) -> dict[str, Any]:
        """Return the keys of a state in the summary."""
        is_reference = state == self.reference_state()
        name, reason = self._verdict(state)
        names = [str(name) for name in self.group["mechanism"].values]
        shares = self.group["probability"].values[state].astype(float).tolist()
        return {
            "mechanism": None if is_reference else dict(zip(names, shares, strict=True)),
            "named_mechanism": None if is_reference else name,
            "reference": is_reference,
            "reference_probability": float(self.group["reference"].values[state]),
            "reason": reason or None,
        }
