"""`Fit`: what is known of a dot after the fit, as tables, a summary and a tree that is saved."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from pncbayes.errors import PhotonFileError
from pncbayes.inference.dynamics_group import DynamicsTables
from pncbayes.inference.intervals import interval
from pncbayes.inference.mechanism_tables import MechanismTables
from pncbayes.inference.rate_tables import (
    crossing_rate,
    rates_between_states,
    rates_of_dim_states,
)

__all__ = ["Fit", "load"]

# Of states, what is not known without delays.
_OF_DELAYS = ("lifetime_ns", "amplitude_per_s_ns")


class Fit:
    """Result of `pncbayes.fit`.

    Everything is computed from `tree`, so that a fit saved and opened again is the same fit.

    Parameters
    ----------
    tree
        Groups: ``posterior`` (draws for the most probable number of states), ``sample_stats``,
        ``evidence`` (per number of states), ``states`` (probability of each state in each bin),
        ``predictive`` (checks), ``observed_data``, ``constant_data``.
    """

    def __init__(self, tree: xr.DataTree) -> None:
        self.tree = tree

    def __repr__(self) -> str:
        name = Path(self.tree.attrs["path"]).name or "photons"
        table = ", ".join(f"{k}: {p:.2f}" for k, p in self.n_states.items() if p > 0.005)
        return f"Fit({name}, P(number of states) = {{{table}}})"

    @property
    def n_states(self) -> pd.Series:
        """P(number of states | data), indexed by the number of states."""
        values = self.tree["evidence"].dataset["probability"]
        index = pd.Index(values["n_states"].values.astype(int), name="n_states")
        return pd.Series(values.values, index=index, name="probability")

    @property
    def most_probable_n_states(self) -> int:
        """The number of states that states and rates are given for."""
        return int(self.tree.attrs["most_probable_n_states"])

    def _draws(self, name: str) -> np.ndarray:
        values = self.tree["posterior"].dataset[name].stack(sample=("chain", "draw"))
        return np.asarray(values.transpose("sample", ...).values)

    @property
    def states(self) -> pd.DataFrame:
        """One row per state from bright to dim: mean, sd and 90 % interval of each quantity.

        ``rate_per_s`` is signal counts per s at the detectors, after background; ``lifetime_ns``
        the amplitude-averaged lifetime (NaN where it cannot be said); ``occupancy`` the share of
        the recording spent there. ``amplitude_per_s_ns`` is the decay at time zero, signal counts
        per s and ns: their ratio, which over that of the exciton is the relative radiative rate.
        """
        frame: dict[str, Any] = {}
        n_states = self.most_probable_n_states
        unknown = np.full((1, n_states), np.nan)
        known = {
            name: self._draws(name) if name in self.tree["posterior"] else unknown
            for name in ("rate_per_s", "lifetime_ns", "occupancy")
        }
        known["amplitude_per_s_ns"] = known["rate_per_s"] / known["lifetime_ns"]
        for name, draws in known.items():
            parts = [interval(draws[:, state]) for state in range(n_states)]
            for key in ("mean", "sd", "q05", "q95"):
                frame[f"{name}_{key}"] = [part[key] for part in parts]
        return pd.DataFrame(frame, index=pd.RangeIndex(n_states, name="state"))

    def _on(self) -> np.ndarray:
        """Which states are ON in each draw, shape ``(n_draws, n_states)``."""
        rate = self._draws("rate_per_s")
        threshold = float(self.tree.attrs["on_threshold"])
        on: np.ndarray = rate >= threshold * rate.max(axis=1, keepdims=True)
        return on

    @property
    def rates(self) -> pd.DataFrame:
        """One row per ordered pair of states: rate per s with its 90 % interval, and its kind.

        ``trapping`` leads from an ON to an OFF state, ``detrapping`` back, ``dim_to_dim`` joins
        OFF states and ``bright_to_bright`` ON states. ON: at least half the brightness of the
        brightest state (``on_threshold``). ``mechanism`` is the one that the switch serves: that
        named for the state it leads to, or for the one it comes from where it leads back to the
        light; ``undetermined`` where none is named, None without delays.
        """
        return rates_between_states(
            self._draws("transition_rate_per_s"), self._mostly_on, *self._given_names
        )

    @property
    def trap_rates(self) -> pd.DataFrame:
        """One row per OFF state: its mechanism, and how fast it is entered and left.

        ``k_trap_per_s`` leads into it from the ON states, per s of ON time; ``k_detrap_per_s``
        from it to any ON state, per s spent in it. Each with mean, sd and 90 % interval. The
        first add up to `k_trap_per_s` of the dot. ``mechanism`` is as in `rates`.
        """
        rates, occupancy = self._draws("transition_rate_per_s"), self._draws("occupancy")
        return rates_of_dim_states(rates, occupancy, self._mostly_on, self._given_names[0])

    @property
    def _mostly_on(self) -> np.ndarray:
        """Which states are ON in most draws, shape ``(n_states,)``."""
        mostly: np.ndarray = self._on().mean(axis=0) >= 0.5
        return mostly

    @property
    def _given_names(self) -> tuple[list[str | None], int | None]:
        """Name of the mechanism of each state, None of the reference, and that state."""
        tables = self._mechanisms
        if tables is None:
            return [None] * self.most_probable_n_states, None
        reference = tables.reference_state()
        named = tables.of_states["named_mechanism"]
        return [None if i == reference else str(name) for i, name in named.items()], reference

    @property
    def on_fraction(self) -> dict[str, float]:
        """Share of the recording spent in ON states: mean, sd and 90 % interval."""
        return interval((self._draws("occupancy") * self._on()).sum(axis=1))

    @property
    def k_trap_per_s(self) -> dict[str, float] | None:
        """Rate from ON to OFF states per s of ON time; None without OFF states."""
        return self._crossing(from_on=True)

    @property
    def k_detrap_per_s(self) -> dict[str, float] | None:
        """Rate from OFF to ON states per s of OFF time; None without OFF states."""
        return self._crossing(from_on=False)

    def _crossing(self, *, from_on: bool) -> dict[str, float] | None:
        on = self._on()
        if on.all(axis=1).mean() > 0.5:
            return None
        source = on if from_on else ~on
        rates, occupancy = self._draws("transition_rate_per_s"), self._draws("occupancy")
        return interval(crossing_rate(rates, occupancy, source, ~source))

    @property
    def _mechanisms(self) -> MechanismTables | None:
        if "mechanisms" not in self.tree.children:
            return None
        return MechanismTables(self.tree["mechanisms"].to_dataset())

    @property
    def mechanisms(self) -> pd.Series | None:
        """Probability that each mechanism takes part in the dot, averaged over numbers of states.

        None where there are no delays or no response, or with excess noise.
        """
        tables = self._mechanisms
        if tables is None:
            return None
        takes_part, moving = tables.takes_part, self.dynamics
        if moving is not None:
            # only what the lifetime follows is a mechanism of the emitter
            takes_part = takes_part.copy()
            takes_part["flicker"] = moving.flicker_probability["k_nr"]
        return takes_part

    @property
    def state_mechanisms(self) -> pd.DataFrame | None:
        """One row per state: probability of each mechanism, the name given, and why if none is.

        ``reference`` is the probability that the state is the neutral exciton, against which
        brightness and lifetime of the others are taken.
        """
        tables = self._mechanisms
        return None if tables is None else tables.of_states

    @property
    def mechanism_rates(self) -> pd.DataFrame | None:
        """Auger rate, hot-carrier yield, rate of centres or charged share of each state.

        Each with its interval, given that the state has the mechanism, and that probability.
        """
        tables = self._mechanisms
        return None if tables is None else tables.draws_of_states()

    @property
    def dynamics(self) -> DynamicsTables | None:
        """Verdict and what it rests on; None if it was not asked for, or for a camera."""
        if "dynamics" not in self.tree.children:
            return None
        return DynamicsTables(self.tree["dynamics"].to_dataset())

    @property
    def verdict(self) -> str | None:
        """Steady, blinking, flickering, both or not identified; None if not asked for."""
        found = self.dynamics
        return None if found is None else found.verdict

    @property
    def auger_rate_per_ns(self) -> dict[str, float] | None:
        """Auger rate of the state that is most probably a trion, given that it is one."""
        tables = self._mechanisms
        return None if tables is None else tables.auger_rate_per_ns

    @property
    def loss_budget(self) -> dict[str, dict[str, float]] | None:
        """Of the photons lost against always being in the reference state, the share by mechanism.

        Losses of the reference itself do not show in the data.
        """
        tables = self._mechanisms
        return None if tables is None else tables.loss_budget

    @property
    def warnings(self) -> list[str]:
        """What a reader of the result has to know."""
        texts: list[str] = json.loads(self.tree.attrs["warnings"])
        return texts

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Evidence and its error per number of states, quality of the draws, predictive checks."""
        evidence = self.tree["evidence"].dataset
        numbers = [str(int(n)) for n in evidence["n_states"].values]

        def column(name: str) -> dict[str, float]:
            return dict(zip(numbers, evidence[name].values.astype(float).tolist(), strict=True))

        checks = self.tree["predictive"].dataset["p_value"]
        stats = self.tree["sample_stats"].attrs

        def number(name: str, kind: type) -> Any:
            # a tree that was saved has NumPy's numbers, which JSON does not know
            return None if name not in stats else kind(stats[name])

        rough = evidence["method"].values == "rough"
        return {
            "log_evidence": column("log_evidence"),
            "log_evidence_error": column("log_evidence_error"),
            "log_evidence_laplace": column("log_evidence_laplace"),
            "log_evidence_importance": column("log_evidence_importance"),
            "pareto_k": column("pareto_k"),
            "effective_draws": column("effective_draws"),
            "method": dict(zip(numbers, evidence["method"].values.tolist(), strict=True)),
            "n_states_probability_rough": float(evidence["probability"].values[rough].sum()),
            "n_states_probability_wide_priors": column("probability_wide_priors"),
            "n_states_probability_narrow_priors": column("probability_narrow_priors"),
            "predictive_p_values": {
                str(name): float(value)
                for name, value in zip(checks["check"].values, checks.values, strict=True)
            },
            "likelihood_width_s": float(self.tree.attrs["likelihood_width_s"]),
            "sampler": str(stats.get("sampler", "evidence")),
            "draws_from": str(stats.get("draws_from", "importance")),
            "r_hat": number("r_hat", float),
            "ess": float(stats.get("ess", np.nan)),
            "ess_tail": number("ess_tail", float),
            "divergences": number("divergences", int),
            "excess_noise_log_bayes_factor": number("excess_noise_log_bayes_factor", float),
        }

    def summary(self) -> dict[str, Any]:
        """Return the result as plain numbers and text, ready for JSON (NaN where unknown)."""
        attrs = self.tree.attrs
        states = []
        tables, takes_part, moving = self._mechanisms, self.mechanisms, self.dynamics
        for state, (_, row) in enumerate(self.states.iterrows()):
            entry: dict[str, Any] = {}
            for name in ("rate_per_s", "lifetime_ns", "occupancy", "amplitude_per_s_ns"):
                parts = _parts(row, name)
                unknown = name in _OF_DELAYS and not np.isfinite(parts["mean"])
                entry[name] = None if unknown else parts
            if tables is None:
                entry.update(mechanism=None, named_mechanism=None, reference=None)
            else:
                entry.update(tables.summary_of_state(state))
            states.append(entry)
        rates = [
            {
                "from": int(row["from"]),
                "to": int(row["to"]),
                "kind": row["kind"],
                "mechanism": row["mechanism"],
                "per_s": _parts(row, "per_s"),
            }
            for _, row in self.rates.iterrows()
        ]
        trap_rates = [
            {
                "state": int(row["state"]),
                "mechanism": row["mechanism"],
                "k_trap_per_s": _parts(row, "k_trap_per_s"),
                "k_detrap_per_s": _parts(row, "k_detrap_per_s"),
            }
            for _, row in self.trap_rates.iterrows()
        ]
        return {
            "schema": 1,
            "file": attrs["path"],
            "n_photons": int(attrs["n_photons"]),
            "duration_s": float(attrs["duration_s"]),
            "width_s": float(attrs["width_s"]),
            "n_states": {str(k): float(p) for k, p in self.n_states.items()},
            "most_probable_n_states": self.most_probable_n_states,
            "states": states,
            "mechanisms": None if takes_part is None else takes_part.to_dict(),
            "verdict": self.verdict,
            "dynamics": None if moving is None else moving.summary,
            "exposure": None if moving is None else moving.exposure,
            "tempering": None if moving is None else moving.summary["tempering"],
            "rates": rates,
            "trap_rates": trap_rates,
            "k_trap_per_s": self.k_trap_per_s,
            "k_detrap_per_s": self.k_detrap_per_s,
            "auger_rate_per_ns": self.auger_rate_per_ns,
            "mechanism_rates": (
                None if tables is None else tables.draws_of_states().to_dict("records")
            ),
            "on_fraction": self.on_fraction,
            "loss_budget": self.loss_budget,
            "diagnostics": self.diagnostics,
            "warnings": self.warnings,
            "model": {"name": attrs["model_name"], "digest": attrs["model_digest"]},
            "random_seed": int(attrs["random_seed"]) if "random_seed" in attrs else None,
            "version": attrs["pncbayes_version"],
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the tree to a netCDF file, aside first and then renamed.

        Raises
        ------
        OSError
            If the disk is full or not writable; nothing is left behind then.
        """
        target = Path(path)
        aside = target.with_name(f".{target.name}.{os.getpid()}.partial")
        try:
            # in memory first: on a full disk the HDF5 library does not raise, it crashes
            aside.write_bytes(self.tree.to_netcdf(engine="h5netcdf"))
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)


def _parts(row: pd.Series, name: str) -> dict[str, float]:
    """Mean, sd and 90 % interval of a quantity of a row."""
    return {key: float(row[f"{name}_{key}"]) for key in ("mean", "sd", "q05", "q95")}


def load(path: str | os.PathLike[str]) -> Fit:
    """Open a saved fit.

    Parameters
    ----------
    path
        A file written by `Fit.save`.

    Raises
    ------
    PhotonFileError
        If the file is not a saved fit.
    """
    if not Path(path).is_file():
        raise PhotonFileError(f"{path}: there is no such file; `Fit.save` writes one")
    try:
        with xr.open_datatree(path, engine="h5netcdf") as opened:
            tree = opened.load()
    except (OSError, ValueError, KeyError) as error:
        raise PhotonFileError(f"{path}: cannot be opened as a saved fit ({error})") from error
    if "pncbayes_version" not in tree.attrs or "evidence" not in tree.children:
        raise PhotonFileError(f"{path}: a netCDF file, but not a fit saved by pncbayes")
    return Fit(tree)
