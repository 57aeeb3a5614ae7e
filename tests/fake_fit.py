"""A made-up fit, shaped as `pncbayes.fit` shapes a real one, to draw and to tabulate.

The numbers are drawn, not inferred: only shapes, names and rough sizes are real.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

RATES_PER_S = np.array([19_000.0, 5_200.0, 1_400.0, 700.0, 350.0, 150.0])
LIFETIMES_NS = np.array([14.0, 4.1, 1.6, 1.1, 0.8, 0.5])
BACKGROUND_PER_S = 310.0
PERIOD_NS, PULSE_NS = 100.0, 5.0


@dataclass
class FakeFit:
    """The attributes of `pncbayes.Fit` that reports use."""

    tree: xr.DataTree
    n_states: pd.Series
    states: pd.DataFrame
    rates: pd.DataFrame
    warnings: list[str] = field(default_factory=list)
    diagnostics: dict[str, Any] = field(default_factory=dict)
    mechanisms: pd.Series | None = None
    state_mechanisms: pd.DataFrame | None = None
    loss_budget: None = None

    @property
    def most_probable_n_states(self) -> int:
        return int(self.n_states.idxmax())

    def summary(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "file": self.tree.attrs["path"],
            "n_photons": self.tree.attrs["n_photons"],
            "n_states": {str(k): float(p) for k, p in self.n_states.items()},
            "most_probable_n_states": self.most_probable_n_states,
            "warnings": self.warnings,
        }

    def save(self, path: Any) -> None:
        self.tree.to_netcdf(path, engine="h5netcdf")


def summarise(values: np.ndarray, prefix: str) -> dict[str, np.ndarray]:
    return {
        f"{prefix}_mean": values.mean(axis=0),
        f"{prefix}_sd": values.std(axis=0),
        f"{prefix}_q05": np.quantile(values, 0.05, axis=0),
        f"{prefix}_q95": np.quantile(values, 0.95, axis=0),
    }


def switching(n_states: int, rng: np.random.Generator) -> np.ndarray:
    generator = rng.lognormal(0.6, 0.9, (n_states, n_states))
    np.fill_diagonal(generator, 0.0)
    return generator


def state_path(generator: np.ndarray, n_bins: int, width_s: float, rng: Any) -> np.ndarray:
    path = np.empty(n_bins, np.int64)
    state, filled = 0, 0
    while filled < n_bins:
        exit_per_s = generator[state].sum()
        dwell = n_bins if exit_per_s == 0 else int(rng.exponential(1 / exit_per_s) / width_s) + 1
        path[filled : filled + dwell] = state
        filled += dwell
        if exit_per_s > 0:
            state = int(rng.choice(len(generator), p=generator[state] / exit_per_s))
    return path


def gate_edges(n_gates: int) -> tuple[np.ndarray, np.ndarray]:
    after = (
        PULSE_NS
        - 1
        + np.concatenate([[0.0], np.geomspace(1.0, PERIOD_NS - PULSE_NS + 1, n_gates - 1)])
    )
    return np.concatenate([[0.0], after[:-1]]), after


def gate_shape(lifetime_ns: float, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    early, late = (np.maximum(edge - PULSE_NS, 0.0) for edge in (start, stop))
    tail = np.exp(-PERIOD_NS / lifetime_ns)
    shape = (np.exp(-early / lifetime_ns) - np.exp(-late / lifetime_ns)) / (1 - tail)
    return np.maximum(shape, 1e-6) / np.maximum(shape, 1e-6).sum()


def make_fake_fit(
    n_states: int = 3,
    *,
    duration_s: float = 30.0,
    width_s: float = 0.01,
    n_gates: int = 24,
    n_draws: int = 200,
    max_states: int = 6,
    predictive: bool = True,
    camera: bool = False,
    warnings: tuple[str, ...] = (),
    random_seed: int = 1,
) -> FakeFit:
    """`n_gates` of 1 stands for a recording without delays; `camera` for counts with an offset."""
    rng = np.random.default_rng(random_seed)
    n_bins = round(duration_s / width_s)
    with_delays = n_gates > 1
    generator = switching(n_states, rng)
    path = state_path(generator, n_bins, width_s, rng)
    occupancy = np.bincount(path, minlength=n_states) / n_bins
    start, stop = gate_edges(n_gates) if with_delays else (np.array([np.nan]), np.array([np.nan]))
    shapes = np.ones((n_states, 1))
    if with_delays:
        share = RATES_PER_S[:n_states, None] / (RATES_PER_S[:n_states, None] + BACKGROUND_PER_S)
        shapes = np.array([gate_shape(t, start, stop) for t in LIFETIMES_NS[:n_states]])
        shapes = share * shapes + (1 - share) * (stop - start) / PERIOD_NS
    total = RATES_PER_S[:n_states] + BACKGROUND_PER_S
    counts = rng.poisson((total[:, None] * shapes * width_s)[path]).astype(np.uint32)
    if camera:
        counts = 240.0 + 1.1 * counts
    time = np.arange(n_bins) * width_s

    few = np.maximum(occupancy * total * duration_s, 30)
    spread = 1 + rng.normal(size=(n_draws, n_states)) / np.sqrt(few)
    draws = {
        "rate_per_s": RATES_PER_S[:n_states] * spread,
        "total_rate_per_s": RATES_PER_S[:n_states] * spread + BACKGROUND_PER_S,
        "occupancy": np.broadcast_to(occupancy, (n_draws, n_states)).copy(),
        "lifetime_ns": LIFETIMES_NS[:n_states]
        * (1 + 3 * rng.normal(size=(n_draws, n_states)) / np.sqrt(few)),
    }
    rate_draws = generator * rng.lognormal(0, 0.25, (n_draws, n_states, n_states))
    if not with_delays:
        del draws["lifetime_ns"]

    gate_counts = np.zeros((n_states, n_gates))
    np.add.at(gate_counts, path, counts)
    posterior = xr.Dataset(
        {name: (("chain", "draw", "state"), value[None]) for name, value in draws.items()}
        | {
            "transition_rate_per_s": (("chain", "draw", "state", "to_state"), rate_draws[None]),
            "exit_rate_per_s": (("chain", "draw", "state"), rate_draws.sum(-1)[None]),
            "gate_probability": (
                ("chain", "draw", "state", "gate"),
                np.broadcast_to(shapes, (1, n_draws, n_states, n_gates)).copy(),
            ),
        },
        coords={"state": np.arange(n_states), "to_state": np.arange(n_states)},
    )
    probability = np.full(max_states, 0.004)
    probability[n_states - 1] = 1.0
    if n_states < max_states:
        probability[n_states] = 0.12
    probability /= probability.sum()
    groups = {
        "/posterior": posterior,
        "/evidence": xr.Dataset(
            {
                "probability": ("n_states", probability),
                "log_evidence": ("n_states", np.log(probability)),
                "log_evidence_error": ("n_states", np.full(max_states, 0.2)),
            },
            coords={"n_states": np.arange(1, max_states + 1)},
        ),
        "/states": xr.Dataset(
            {
                "probability": (("time", "state"), np.eye(n_states)[path]),
                "path": ("time", path),
            },
            coords={"time": time},
        ),
        "/observed_data": xr.Dataset(
            {"counts": (("time", "gate"), counts)},
            coords={
                "time": ("time", time, {"units": "s"}),
                "gate_start_ns": ("gate", start),
                "gate_stop_ns": ("gate", stop),
            },
            attrs={
                "kind": "camera" if camera else "photons",
                "pulse_ns": PULSE_NS,
                "period_ns": PERIOD_NS,
            },
        ),
    }
    if predictive:
        groups["/predictive"] = make_predictive(counts.sum(axis=1), gate_counts, width_s)
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = {
        "width_s": width_s,
        "duration_s": duration_s,
        "n_photons": int(counts.sum()),
        "path": "recordings/dot_017.ptu",
        "random_seed": random_seed,
        "model_name": "free",
        "warnings": json.dumps(list(warnings)),
    }
    states = pd.DataFrame(
        {
            column: value
            for name in ("rate_per_s", "lifetime_ns", "occupancy")
            for column, value in summarise(
                draws.get(name, np.full((n_draws, n_states), np.nan)), name
            ).items()
        }
    )
    pairs = [(i, j) for i in range(n_states) for j in range(n_states) if i != j]
    columns = summarise(
        np.array([rate_draws[:, i, j] for i, j in pairs]).reshape(len(pairs), n_draws).T, "per_s"
    )
    rates = pd.DataFrame(
        {
            "from": [i for i, _ in pairs],
            "to": [j for _, j in pairs],
            "kind": ["trapping" if i == 0 else "detrapping" for i, _ in pairs],
        }
        | columns
    )
    return FakeFit(
        tree=tree,
        n_states=pd.Series(probability, index=np.arange(1, max_states + 1)),
        states=states,
        rates=rates,
        warnings=list(warnings),
    )


def make_predictive(total: np.ndarray, gate_counts: np.ndarray, width_s: float) -> xr.Dataset:
    step = max(1.0, np.round(0.5 * np.sqrt(total.mean())))
    edges = np.arange(total.min() - 0.5, total.max() + 1.5 * step, step)
    histogram = np.histogram(total, edges)[0].astype(float)
    lag_s = np.geomspace(width_s, 100 * width_s, 20)
    decay = np.exp(-lag_s / 0.3)
    low, high = histogram - 2 * np.sqrt(histogram), histogram + 2 * np.sqrt(histogram) + 1
    return xr.Dataset(
        {
            "count_histogram": ("count_value", histogram),
            "count_histogram_replicated": (
                ("quantile", "count_value"),
                np.stack([low, histogram, high]).clip(0),
            ),
            "autocorrelation": ("lag_s", 0.97 * decay),
            "autocorrelation_replicated": (
                ("quantile", "lag_s"),
                np.stack([0.9 * decay, decay, 1.1 * decay]),
            ),
            "gate_counts": (("state", "gate"), gate_counts),
            "p_value": ("check", np.array([0.4, 0.2])),
        },
        coords={
            "count_value": 0.5 * (edges[:-1] + edges[1:]),
            "lag_s": lag_s,
            "quantile": [0.05, 0.5, 0.95],
            "check": ["counts", "autocorrelation"],
        },
    )
