"""Photons that name the mechanism of a dim state; writes docs/detection_limit.md.

    python benchmarks/detection_limit.py [--cell 'CsPbBr3*'] [--write]

Each cell is one call of `pncbayes.detection_limit`. `sigma`: photons at which the radiative ratio R
is told from 1 at five standard deviations, if it is 2, from the expected Fisher information.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import common
import pandas as pd

from pncbayes.inference.detection import detection_limit
from pncbayes.physics.modelfile import load_model

N_RECORDINGS = 400
RESPONSES_NS = (0.05, 0.15, 0.4)
BACKGROUNDS_PER_S = (200.0, 1000.0)
EXCITON_RATE_PER_S, PERIOD_NS = 20_000.0, 200.0
SIGMA_LIFETIMES_NS = (0.1, 0.4, 1.0, 2.0)
CODE = (
    "inference/detection.py", "inference/detection_arguments.py", "inference/naming.py",
    "inference/naming_surface.py", "photons/gates.py", "physics/convolution.py",
    "physics/expected_photons.py", "physics/mechanism_kernels.py", "physics/mechanisms.py",
    "physics/tied_kernels.py",
)  # fmt: skip


@dataclass(frozen=True)
class Material:
    """Lifetimes of one kind of nanocrystal at room temperature, and where they are from."""

    exciton_lifetime_ns: float
    trion_lifetime_ns: float
    source: str


MATERIALS = {
    "CsPbBr3": Material(
        6.0, 0.2,
        "exciton: assumed, about the 7 ns of an ensemble (Nanomaterials 2021, 11, 463); trion: "
        "assumed, from a usual range of 0.1 to 0.5 ns",
    ),
    "FAPbBr3": Material(
        12.0, 0.4,
        "exciton: assumed, from a usual range of 8 to 20 ns; trion: assumed, twice that of CsPbBr3",
    ),
    "CsPbI3": Material(
        20.0, 0.8,
        "exciton: assumed, from a usual range of 10 to 40 ns; trion: assumed, from a usual range "
        "of 0.2 to 1 ns or more. Trions of half the exciton's lifetime were reported, too "
        "(doi:10.1021/acs.nanolett.6b02874)",
    ),
}  # fmt: skip
# true mechanism, what it is told from, and the words of the table
PAIRS: dict[str, tuple[str, str | None]] = {
    "auger, nbc": ("auger", "nbc"),
    "auger, hot_carrier": ("auger", "hot_carrier"),
    "auger, unresolved_charging": ("auger", "unresolved_charging"),
    "auger, all others": ("auger", None),
    "hot_carrier, nbc": ("hot_carrier", "nbc"),
    "hot_carrier, all others": ("hot_carrier", None),
}
HOT_CARRIER_BRIGHTNESS = 0.5


def _cells() -> dict[str, dict[str, Any]]:
    cells: dict[str, dict[str, Any]] = {}
    for material, lifetimes in MATERIALS.items():
        for pair, (mechanism, against) in PAIRS.items():
            for background in BACKGROUNDS_PER_S:
                for width_ns in RESPONSES_NS:
                    name = f"{material}.{pair.replace(', ', '-').replace(' ', '-')}"
                    dim: dict[str, Any] = {"lifetime_ns": lifetimes.trion_lifetime_ns}
                    if mechanism == "hot_carrier":
                        dim = {"relative_brightness": HOT_CARRIER_BRIGHTNESS}
                    cells[f"{name}.{background:g}.{width_ns:g}"] = {
                        "mechanism": mechanism, "against": against, **dim,
                        "exciton_lifetime_ns": lifetimes.exciton_lifetime_ns,
                        "background_rate_per_s": background, "response_fwhm_ns": width_ns,
                    }  # fmt: skip
    free = load_model("free")
    alone = replace(free, mechanism=replace(free.mechanism, biexciton_share_median=1e-9))
    for lifetime_ns in SIGMA_LIFETIMES_NS:
        for width_ns in RESPONSES_NS:
            cells[f"sigma.{lifetime_ns:g}.{width_ns:g}"] = {
                "mechanism": "auger", "against": "nbc", "lifetime_ns": lifetime_ns,
                "response_fwhm_ns": width_ns, "occupancy": 0.1, "response_width_error": 0.0,
                "model": alone,
            }  # fmt: skip
    return cells


CELLS = _cells()


def work(task: common.Task) -> common.Row:
    """One limit."""
    settings = dict(CELLS[task.cell])
    limit = detection_limit(
        settings.pop("mechanism"), settings.pop("against"), n_recordings=N_RECORDINGS,
        exciton_rate_per_s=EXCITON_RATE_PER_S, period_ns=PERIOD_NS,
        random_seed=common.ROOT_SEED, **settings,
    )  # fmt: skip
    sd = limit.log_radiative_ratio_sd
    # its square falls as one over the photons
    five_sigma = limit.photons * (sd / (math.log(2.0) / 5.0)) ** 2
    return {
        "photons": limit.photons, "state_s": limit.state_seconds, "reason": limit.reason,
        "five_sigma": five_sigma,
    }  # fmt: skip


def _number(value: float) -> str:
    return f"{float(f'{value:.2g}'):,.10g}"


def _shown(row: pd.Series) -> str:
    if row["error"]:
        return "error"
    if not math.isfinite(row["photons"]):
        return "never"
    return f"{_number(row['photons'])} ({_number(row['state_s'])} s)"


def lines_of(rows: pd.DataFrame) -> list[str]:
    """Return one table per material, and that of five sigma."""
    found = {str(row["cell"]): row for _, row in rows.iterrows()}
    lines = [
        "Expected photons of the dim state, and in brackets the time in it, from which on",
        "`pncbayes.detection_limit` names the true mechanism, the first of each pair, in 90 % of",
        f"recordings. Assumed: {EXCITON_RATE_PER_S:g} counts per s of the exciton, a dot that is "
        "dim half of the",
        f"time, a laser period of {PERIOD_NS:g} ns, a radiative scaling of 2 of trions, a "
        "hot-carrier state of",
        f"{HOT_CARRIER_BRIGHTNESS:g} of the brightness, a background known to a tenth and a "
        "response whose width is known to",
        "5 %, and that it is known which photons are of the dim state; how many a fit needs is in",
        "`benchmarks/results/detection_check.md`. Where rows of a trion agree, the rule decides",
        "that ln R has to be known to 0.25. To name a hot-carrier state among all others takes",
        "most: charging faster than a bin looks like it but for a few per cent of fast light, and",
        "has to be excluded (probability at most 0.05). Other seeds differ by about a tenth; in",
        "those rows by up to a half.",
        "",
    ]
    header = ["true, other", "background", *[f"response {1e3 * w:g} ps" for w in RESPONSES_NS]]
    for material, values in MATERIALS.items():
        table, reasons = [], []
        for pair in PAIRS:
            for background in BACKGROUNDS_PER_S:
                key = f"{material}.{pair.replace(', ', '-').replace(' ', '-')}.{background:g}"
                own = [found.get(f"{key}.{width_ns:g}") for width_ns in RESPONSES_NS]
                if all(row is None for row in own):
                    continue
                table.append([
                    pair, f"{background:g} per s",
                    *["" if row is None else _shown(row) for row in own],
                ])  # fmt: skip
                reasons += [
                    f"- {pair}, {background:g} per s, {1e3 * width_ns:g} ps: {row['reason']}"
                    for width_ns, row in zip(RESPONSES_NS, own, strict=True)
                    if row is not None and row["reason"]
                ]
        if table:
            lines += [
                f"## {material}: exciton {values.exciton_lifetime_ns:g} ns, trion "
                f"{values.trion_lifetime_ns:g} ns", "", f"Sources: {values.source}.", "",
                *common.table(header, table), *reasons, *([""] if reasons else []),
            ]  # fmt: skip
    sigma = [
        [f"{t:g} ns", *[_number(found[f"sigma.{t:g}.{w:g}"]["five_sigma"]) for w in RESPONSES_NS]]
        for t in SIGMA_LIFETIMES_NS
        if all(f"sigma.{t:g}.{w:g}" in found for w in RESPONSES_NS)
    ]
    if sigma:
        lines += [
            "## R = 2 told from 1 at five standard deviations", "",
            "Photons, from the expected Fisher information, where the exciton (6 ns) is well",
            "known: a dot that is dim a tenth of the time, no biexcitons, a response of known",
            "width, 200 counts per s of background. Brightness and lifetime alone take 104.",
            "",
            *common.table(["trion lifetime", *header[2:]], sigma),
        ]  # fmt: skip
    return lines


def main() -> None:
    options = common.parser(__doc__).parse_args()
    tasks = [common.Task(0, name) for name in common.chosen_cells(CELLS, options)]
    rows = common.run("detection_limit", tasks, work, options, also=CODE)
    if rows.empty or (rows["error"] != "").all():
        raise SystemExit("nothing has been run yet, or every task failed")
    lines = common.head("How many photons name a mechanism", rows)
    lines = [*lines, *lines_of(rows)]
    common.publish("detection_limit", lines, options, common.ROOT / "docs")


if __name__ == "__main__":
    main()
