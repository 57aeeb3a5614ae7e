"""Priors of what else there may be beside levels: a model file of the family ``dynamics``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import Any

from pncbayes.errors import ModelFileError
from pncbayes.physics.modelfile import (
    LogNormal,
    check_keys,
    check_text,
    read_model_file,
)

__all__ = ["DynamicsPriors", "load_dynamics_priors"]

_FLICKER = ("log_sd", "level_log_sd", "log_sd_of_rate", "relaxation_rate_per_s", "least_log_sd")
_ODDS = ("flicker", "bleaching", "hidden_state")


@dataclass(frozen=True)
class DynamicsPriors:
    """Beliefs about flicker, hidden states and bleaching.

    Attributes
    ----------
    log_sd
        Standard deviation of the log brightness that flickers, common to all levels.
    level_log_sd
        Standard deviation of the normal prior of the amplitude of each level.
    log_sd_of_rate
        Standard deviation of the log of a non-radiative rate that flickers.
    relaxation_rate_per_s
        Inverse correlation time.
    least_log_sd
        Fluctuation of the log brightness below which nothing is called flicker.
    flicker, bleaching, hidden_state
        Probability beforehand of each; of a hidden state, that a level has one more.
    digest
        Hash of the file.
    """

    log_sd: LogNormal
    level_log_sd: float
    log_sd_of_rate: LogNormal
    relaxation_rate_per_s: LogNormal
    least_log_sd: float
    flicker: float
    bleaching: float
    hidden_state: float
    digest: str


@cache
def load_dynamics_priors(model: str | os.PathLike[str] = "flicker") -> DynamicsPriors:
    """Read the priors of dynamics from a model file.

    Parameters
    ----------
    model
        Name of a shipped file (``"flicker"``), or the path of another.

    Raises
    ------
    ModelFileError
        If it is not there, not of the family ``dynamics``, or a key is missing, unknown or out of
        range.
    """
    import hashlib

    content, text, path = read_model_file(model)
    if content.get("family") != "dynamics":
        raise ModelFileError(
            f"{path}: not a file of dynamics (`family = \"dynamics\"`); shipped is 'flicker'"
        )
    check_keys(
        content, ("schema", "family", "name", "claim", "references", "flicker", "odds"), path,
        "the file",
    )  # fmt: skip
    if content["schema"] != 1 or content["schema"] is True:
        raise ModelFileError(f"{path}: `schema` must be 1, got {content['schema']!r}")
    for key in ("name", "claim"):
        check_text(content[key], key, path)
    flicker, odds = content["flicker"], content["odds"]
    check_keys(flicker, _FLICKER, path, "[flicker]")
    check_keys(odds, _ODDS, path, "[odds]")
    return DynamicsPriors(
        log_sd=_log_normal(flicker, "log_sd", path),
        level_log_sd=_number(flicker, "level_log_sd", path, 0.0, 5.0),
        log_sd_of_rate=_log_normal(flicker, "log_sd_of_rate", path),
        relaxation_rate_per_s=_log_normal(flicker, "relaxation_rate_per_s", path),
        least_log_sd=_number(flicker, "least_log_sd", path, 0.0, 1.0),
        flicker=_number(odds, "flicker", path, 0.0, 1.0),
        bleaching=_number(odds, "bleaching", path, 0.0, 1.0),
        hidden_state=_number(odds, "hidden_state", path, 0.0, 1.0),
        digest=hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
    )


def _number(table: Any, key: str, path: str, low: float, high: float) -> float:
    value = table[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < high:
        raise ModelFileError(
            f"{path}: `{key}` must be a number between {low:g} and {high:g}, got {value!r}"
        )
    return float(value)


def _log_normal(table: Any, key: str, path: str) -> LogNormal:
    prior = table[key]
    if not isinstance(prior, dict) or prior.get("dist") != "LogNormal":
        raise ModelFileError(
            f"{path}: `{key}` must be "
            f'{{ dist = "LogNormal", median = ..., sigma = ... }}, got {prior!r}'
        )
    check_keys(prior, ("dist", "median", "sigma"), path, key)
    return LogNormal(
        _number(prior, "median", path, 0.0, 1e9), _number(prior, "sigma", path, 0.0, 20.0)
    )
