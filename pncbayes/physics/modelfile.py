"""Model files: hypotheses as data, read with the standard library and never executed."""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pncbayes.errors import ModelFileError
from pncbayes.physics.mechanisms import MECHANISMS, MechanismPriors

__all__ = ["LogNormal", "ModelFile", "find_model_files", "load_model", "parse_model"]

SCHEMA = 1
MOST_STATES = 12
_LARGEST = 1e12


@dataclass(frozen=True)
class LogNormal:
    """A log-normal prior.

    Attributes
    ----------
    median
        Median, in the unit that the key's name says.
    sigma
        Standard deviation of the natural logarithm.
    """

    median: float
    sigma: float


@dataclass(frozen=True)
class ModelFile:
    """A hypothesis: what is believed before the data are seen.

    Attributes
    ----------
    name, claim, references
        What the file says of itself.
    n_states
        Fewest and most states.
    brightest_rate_per_s
        Prior of the brightest level, counts per s; every other level is uniform below it.
    repulsion
        Exponent of the distance between levels in their prior, used where there are no delays.
    decay_concentration
        Prior of the concentration of the Dirichlet of each decay around the base shape.
    decay_base_concentration
        Concentration per gate of the Dirichlet prior of the base shape; 1 is uniform.
    exit_rate_per_s
        Prior of the exit rate of each state, per s.
    jump_concentration
        Concentration of the Dirichlet over the states that an exit leads to.
    excess_variance_ratio
        Prior of the excess variance ratio, used when excess noise is asked for.
    mechanism
        Priors of the mechanisms by which states lose light.
    text, digest
        The file itself and its hash.
    """

    name: str
    claim: str
    references: tuple[str, ...]
    n_states: tuple[int, int]
    brightest_rate_per_s: LogNormal
    repulsion: float
    decay_concentration: LogNormal
    decay_base_concentration: float
    exit_rate_per_s: LogNormal
    jump_concentration: float
    excess_variance_ratio: LogNormal
    mechanism: MechanismPriors
    text: str
    digest: str

    def widened(self, factor: float) -> ModelFile:
        """Return the same beliefs with every log-normal prior wider by `factor`."""
        from dataclasses import replace

        def widen(prior: LogNormal) -> LogNormal:
            return LogNormal(prior.median, prior.sigma * factor)

        return replace(
            self,
            brightest_rate_per_s=widen(self.brightest_rate_per_s),
            decay_concentration=widen(self.decay_concentration),
            exit_rate_per_s=widen(self.exit_rate_per_s),
            excess_variance_ratio=widen(self.excess_variance_ratio),
        )


def find_model_files() -> dict[str, Path]:
    """Names and paths of the models that are shipped, installed or in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "models", package.parent / "models"):
        found = {path.stem: path for path in sorted(folder.glob("*.toml"))}
        if found:
            return found
    raise ModelFileError("no model files were found beside the package; reinstall pncbayes")


def load_model(model: str | os.PathLike[str] | ModelFile) -> ModelFile:
    """Read a model file by name or path.

    Parameters
    ----------
    model
        Name of a shipped model (``"free"``), path of a TOML file, or a `ModelFile`.

    Returns
    -------
    ModelFile

    Raises
    ------
    ModelFileError
        If it is not there, not TOML, or a key is missing, unknown or out of range.
    """
    if isinstance(model, ModelFile):
        return model
    content, text, path = read_model_file(model)
    if content.get("family") == "structured":
        raise ModelFileError(
            f"{path}: a structured model, for `pncbayes.build` and `pncbayes.compare_models`; "
            "`fit` takes one whose decays are free, as 'free' is"
        )
    if content.get("family") == "dynamics":
        raise ModelFileError(
            f"{path}: priors of flicker, for `families` of `pncbayes.dynamics`; `fit` takes a "
            "model of levels, as 'free' is"
        )
    return _parse(content, text, path)


def read_model_file(model: str | os.PathLike[str]) -> tuple[dict[str, Any], str, str]:
    """Read a model file by name or path: its content, its text and its path.

    Raises
    ------
    ModelFileError
        If it is not there, or not TOML.
    """
    if not isinstance(model, str | os.PathLike):
        raise ModelFileError(
            f"`model` must be a name, the path of a .toml file or a `ModelFile`, got {model!r}; "
            f"shipped are {', '.join(find_model_files())}"
        )
    path = Path(model)
    if path.suffix != ".toml":
        shipped = find_model_files()
        if str(model) not in shipped:
            raise ModelFileError(
                f"no model named {str(model)!r}; shipped are {', '.join(shipped)}; "
                "or give the path of a .toml file"
            )
        path = shipped[str(model)]
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path}: not a TOML file ({error})") from error
    return content, text, str(path)


def parse_model(text: str) -> ModelFile:
    """Read a model from its text, as a fit keeps it in ``tree.attrs["model_text"]``.

    Raises
    ------
    ModelFileError
        As `load_model`.
    """
    try:
        return _parse(tomllib.loads(text), text, "model text")
    except tomllib.TOMLDecodeError as error:
        raise ModelFileError(f"model text: not TOML ({error})") from error


_TABLES: dict[str, tuple[str, ...]] = {
    "brightness": ("brightest_rate_per_s", "relative", "repulsion"),
    "decay": ("family", "base", "concentration"),
    "switching": ("family", "exit_rate_per_s", "jump"),
    "noise": ("excess_variance_ratio",),
    "mechanism": (
        "slack", "radiative_scaling", "quantum_yield", "exciton_lifetime_ns", "scatter_share",
        "biexciton_share", "biexciton_lifetime_ns", "after_biexciton_share", "afterpulsing_share",
        "weights", "weights_concentration",
    ),
}  # fmt: skip
_TOP = ("schema", "name", "claim", "references", "n_states")


def _parse(content: Mapping[str, Any], text: str, path: str) -> ModelFile:
    check_keys(content, (*_TOP, *_TABLES), path, "the file")
    if content["schema"] is True or content["schema"] != SCHEMA:
        raise ModelFileError(
            f"{path}: `schema` is {content['schema']!r}; this version reads {SCHEMA}"
        )
    for table, keys in _TABLES.items():
        check_keys(content[table], keys, path, f"[{table}]")
    n_states = content["n_states"]
    if (
        not isinstance(n_states, list)
        or len(n_states) != 2
        or not all(isinstance(n, int) and not isinstance(n, bool) for n in n_states)
        or not 1 <= n_states[0] <= n_states[1] <= MOST_STATES
    ):
        raise ModelFileError(
            f"{path}: `n_states` must be [fewest, most] within 1 to {MOST_STATES}, got {n_states!r}"
        )
    for table, allowed in (("decay", "free"), ("switching", "markov")):
        family = content[table]["family"]
        if family != allowed:
            raise ModelFileError(f"{path}: [{table}] `family` must be {allowed!r}, got {family!r}")
    relative = content["brightness"]["relative"]
    if relative != {"dist": "Uniform", "low": 0.0, "high": 1.0}:
        raise ModelFileError(
            f"{path}: [brightness] `relative` must be "
            f'{{ dist = "Uniform", low = 0.0, high = 1.0 }}, got {relative!r}'
        )
    references = content["references"]
    if not isinstance(references, list):
        raise ModelFileError(
            f"{path}: `references` must be a list of DOIs as text, got {references!r}"
        )
    return ModelFile(
        name=check_text(content["name"], "name", path),
        claim=check_text(content["claim"], "claim", path),
        references=tuple(check_text(item, "references", path) for item in references),
        n_states=(n_states[0], n_states[1]),
        brightest_rate_per_s=_log_normal(content, "brightness", "brightest_rate_per_s", path),
        repulsion=_positive(content["brightness"]["repulsion"], "repulsion", path),
        decay_concentration=_log_normal(content, "decay", "concentration", path),
        decay_base_concentration=_dirichlet(content, "decay", "base", path),
        exit_rate_per_s=_log_normal(content, "switching", "exit_rate_per_s", path),
        jump_concentration=_dirichlet(content, "switching", "jump", path),
        excess_variance_ratio=_log_normal(content, "noise", "excess_variance_ratio", path),
        mechanism=_mechanism(content, path),
        text=text,
        digest=hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
    )


def check_keys(table: Any, allowed: tuple[str, ...], path: str, where: str) -> None:
    if not isinstance(table, dict):
        raise ModelFileError(f"{path}: {where} must be a table, got {table!r}")
    for key in table:
        if key not in allowed:
            raise ModelFileError(
                f"{path}: unknown key {key!r} in {where}; allowed are {', '.join(allowed)}"
            )
    for key in allowed:
        if key not in table:
            raise ModelFileError(f"{path}: {where} lacks the key {key!r}")


def check_text(value: Any, key: str, path: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ModelFileError(f"{path}: `{key}` must be text, got {value!r}")
    return value


def _positive(value: Any, key: str, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _LARGEST:
        raise ModelFileError(
            f"{path}: `{key}` must be a positive number below {_LARGEST:g}, got {value!r}"
        )
    return float(value)


def _log_normal(content: Mapping[str, Any], table: str, key: str, path: str) -> LogNormal:
    prior = content[table][key]
    where = f"[{table}] {key}"
    if not isinstance(prior, dict) or prior.get("dist") != "LogNormal":
        raise ModelFileError(
            f"{path}: {where} must be "
            f'{{ dist = "LogNormal", median = ..., sigma = ... }}, got {prior!r}'
        )
    check_keys(prior, ("dist", "median", "sigma"), path, where)
    return LogNormal(
        _positive(prior["median"], f"{where} median", path),
        _positive(prior["sigma"], f"{where} sigma", path),
    )


def _mechanism(content: Mapping[str, Any], path: str) -> MechanismPriors:
    table = content["mechanism"]
    scaling = _log_normal(content, "mechanism", "radiative_scaling", path)
    lifetime = _log_normal(content, "mechanism", "exciton_lifetime_ns", path)
    scatter = _log_normal(content, "mechanism", "scatter_share", path)
    pair = _log_normal(content, "mechanism", "biexciton_share", path)
    pair_lifetime = _log_normal(content, "mechanism", "biexciton_lifetime_ns", path)
    after = _log_normal(content, "mechanism", "after_biexciton_share", path)
    afterpulsing = _log_normal(content, "mechanism", "afterpulsing_share", path)
    slack = _log_normal(content, "mechanism", "slack", path)
    if not 0.01 <= slack.median <= 0.5:
        raise ModelFileError(
            f"{path}: [mechanism] slack median must be within 0.01 to 0.5, got {slack.median}"
        )
    weights = table["weights"]
    check_keys(weights, MECHANISMS, path, "[mechanism] weights")
    for name, value in weights.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value < _LARGEST:
            raise ModelFileError(
                f"{path}: [mechanism] weights {name} must be a number of 0 or more, got {value!r}"
            )
    if not weights["other"] > 0:
        raise ModelFileError(
            f"{path}: [mechanism] weights other must be above 0: a state that no mechanism "
            "explains would be given the least bad name"
        )
    return MechanismPriors(
        slack_median=slack.median,
        slack_sigma=slack.sigma,
        scaling_median=scaling.median,
        scaling_sigma=scaling.sigma,
        quantum_yield=_share_range(table["quantum_yield"], "[mechanism] quantum_yield", path),
        exciton_lifetime_median_ns=lifetime.median,
        exciton_lifetime_sigma=lifetime.sigma,
        scatter_median=scatter.median,
        scatter_sigma=scatter.sigma,
        biexciton_share_median=pair.median,
        biexciton_share_sigma=pair.sigma,
        biexciton_lifetime_median_ns=pair_lifetime.median,
        biexciton_lifetime_sigma=pair_lifetime.sigma,
        after_biexciton_median=after.median,
        after_biexciton_sigma=after.sigma,
        afterpulsing_median=afterpulsing.median,
        afterpulsing_sigma=afterpulsing.sigma,
        weights={name: float(weights[name]) for name in MECHANISMS},
        weights_concentration=_positive(
            table["weights_concentration"], "[mechanism] weights_concentration", path
        ),
    )


def _share_range(prior: Any, where: str, path: str) -> tuple[float, float]:
    if not isinstance(prior, dict) or prior.get("dist") != "Uniform":
        raise ModelFileError(
            f'{path}: {where} must be {{ dist = "Uniform", low = ..., high = ... }}, got {prior!r}'
        )
    check_keys(prior, ("dist", "low", "high"), path, where)
    low, high = prior["low"], prior["high"]
    numbers = all(isinstance(n, int | float) and not isinstance(n, bool) for n in (low, high))
    if not numbers or not 0 <= low < high <= 1:
        raise ModelFileError(f"{path}: {where} must have 0 <= low < high <= 1, got {prior!r}")
    return float(low), float(high)


def _dirichlet(content: Mapping[str, Any], table: str, key: str, path: str) -> float:
    prior = content[table][key]
    if not isinstance(prior, dict) or prior.get("dist") != "Dirichlet":
        raise ModelFileError(f"{path}: [{table}] `{key}` must be a Dirichlet, got {prior!r}")
    for name in prior:
        if name not in ("dist", "concentration"):
            raise ModelFileError(
                f"{path}: unknown key {name!r} in [{table}] {key}; allowed are dist, concentration"
            )
    return _positive(prior.get("concentration"), f"[{table}] {key} concentration", path)
