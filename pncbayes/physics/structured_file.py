"""Model files of structured hypotheses, read and checked."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from typing import Any

from pncbayes.errors import ModelFileError
from pncbayes.physics.modelfile import (
    SCHEMA,
    LogNormal,
    ModelFile,
    check_keys,
    check_text,
    load_model,
    read_model_file,
)
from pncbayes.physics.structures import PART_KEYS, Part, Prior, StructuredModel, Uniform

__all__ = ["is_structured", "load_structured", "structured_names"]

MOST_STRUCTURED_STATES = 16
_LARGEST = 1e12
_EXCITON = ("exciton_rate_per_s", "exciton_lifetime_ns", "quantum_yield")
_INSTRUMENT = (
    "scatter_share", "afterpulsing_share", "biexciton_share", "biexciton_lifetime_ns",
    "after_biexciton_share",
)  # fmt: skip
# Keys that are shares of something, within 0 and 1; all others are positive.
_SHARES = ("quantum_yield", "hot_carrier_yield")
_TOP = (
    "schema", "family", "name", "claim", "references", "n_emitters", "exciton", "instrument",
    "decay", "part",
)  # fmt: skip
_FORMS = {
    "LogNormal": ("median", "sigma"),
    "Uniform": ("low", "high"),
    "Normal": ("mean", "sd"),
}


def structured_names() -> tuple[str, ...]:
    """Names of the shipped models that `compare_models` compares."""
    return ("steady", "auger", "hot_carrier", "nbc", "mixed", "two_emitters")


def is_structured(model: str | os.PathLike[str] | ModelFile | StructuredModel) -> bool:
    """Whether a model is a structured one."""
    if isinstance(model, ModelFile | StructuredModel):
        return isinstance(model, StructuredModel)
    return read_model_file(model)[0].get("family") == "structured"


def load_structured(model: str | os.PathLike[str] | ModelFile | StructuredModel) -> StructuredModel:
    """Read a structured model by name or path.

    Parameters
    ----------
    model
        Name of a shipped model, path of a TOML file, or a model. One with free decays and one
        state alone (``"steady"``) becomes an exciton without parts.

    Raises
    ------
    ModelFileError
        If it is not there, not TOML, not structured, or a key is missing, unknown or out of range.
    """
    if isinstance(model, StructuredModel):
        return model
    if isinstance(model, ModelFile) or not is_structured(model):
        return _steady(load_model(model))
    return _parse(*read_model_file(model))


def _steady(model: ModelFile) -> StructuredModel:
    if model.n_states != (1, 1):
        raise ModelFileError(
            f"the model {model.name!r} has free decays: its evidence and that of structured models "
            "differ by how well shapes of decays fit, not by mechanisms; compare among "
            f"{', '.join(structured_names())}, or files like them"
        )
    of = model.mechanism
    return StructuredModel(
        name=model.name,
        claim=model.claim,
        references=model.references,
        n_emitters=1,
        parts=(),
        exciton={
            "exciton_rate_per_s": model.brightest_rate_per_s,
            "exciton_lifetime_ns": LogNormal(
                of.exciton_lifetime_median_ns, of.exciton_lifetime_sigma
            ),
            "quantum_yield": Uniform(*of.quantum_yield),
        },
        instrument={
            "scatter_share": LogNormal(of.scatter_median, of.scatter_sigma),
            "afterpulsing_share": LogNormal(of.afterpulsing_median, of.afterpulsing_sigma),
            "after_biexciton_share": LogNormal(of.after_biexciton_median, of.after_biexciton_sigma),
            "biexciton_share": LogNormal(of.biexciton_share_median, of.biexciton_share_sigma),
            "biexciton_lifetime_ns": LogNormal(
                of.biexciton_lifetime_median_ns, of.biexciton_lifetime_sigma
            ),
        },
        slack=of.slack_median,
        concentration=LogNormal(1000.0, 1.5),
        text=model.text,
        digest=model.digest,
    )


def _parse(content: Mapping[str, Any], text: str, path: str) -> StructuredModel:
    check_keys(content, _TOP, path, "the file")
    if content["schema"] is True or content["schema"] != SCHEMA:
        raise ModelFileError(
            f"{path}: `schema` is {content['schema']!r}; this version reads {SCHEMA}"
        )
    references = content["references"]
    if not isinstance(references, list):
        raise ModelFileError(
            f"{path}: `references` must be a list of DOIs as text, got {references!r}"
        )
    check_keys(content["exciton"], _EXCITON, path, "[exciton]")
    check_keys(content["instrument"], _INSTRUMENT, path, "[instrument]")
    check_keys(content["decay"], ("slack", "concentration"), path, "[decay]")
    slack = _number(content["decay"]["slack"], "[decay] slack", path)
    if not 0.01 <= slack <= 0.5:
        raise ModelFileError(f"{path}: [decay] slack must be within 0.01 to 0.5, got {slack}")
    concentration = _prior(
        content["decay"]["concentration"], "concentration", "[decay] concentration", path
    )
    if not isinstance(concentration, LogNormal):
        raise ModelFileError(f"{path}: [decay] concentration must be a LogNormal")
    if not isinstance(content["part"], list):
        raise ModelFileError(
            f"{path}: parts are written as tables of an array, each under [[part]], got "
            f"{content['part']!r}"
        )
    model = StructuredModel(
        name=check_text(content["name"], "name", path),
        claim=check_text(content["claim"], "claim", path),
        references=tuple(check_text(item, "references", path) for item in references),
        n_emitters=_whole(content["n_emitters"], 1, 2, "n_emitters", path),
        parts=tuple(_part(part, place, path) for place, part in enumerate(content["part"], 1)),
        exciton=_priors(content["exciton"], _EXCITON, "[exciton]", path),
        instrument=_priors(content["instrument"], _INSTRUMENT, "[instrument]", path),
        slack=slack,
        concentration=concentration,
        text=text,
        digest=hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
    )
    names = [part.name for part in model.parts]
    if len(set(names)) < len(names):
        raise ModelFileError(f"{path}: every [[part]] needs a name of its own, got {names}")
    most = max(variant.n_states for variant in model.variants())
    if most > MOST_STRUCTURED_STATES:
        raise ModelFileError(
            f"{path}: the parts make {most} states, at most {MOST_STRUCTURED_STATES} are allowed; "
            "take a part or some of its levels away"
        )
    return model


def _part(table: Any, place: int, path: str) -> Part:
    where = f"[[part]] {place}"
    if not isinstance(table, dict) or table.get("mechanism") not in PART_KEYS:
        given = table.get("mechanism") if isinstance(table, dict) else table
        raise ModelFileError(
            f"{path}: {where} `mechanism` must be one of {', '.join(PART_KEYS)}, got {given!r}"
        )
    mechanism = table["mechanism"]
    check_keys(table, ("name", "mechanism", "n_levels", *PART_KEYS[mechanism]), path, where)
    name = check_text(table["name"], f"{where} name", path)
    if not name.isidentifier():
        raise ModelFileError(
            f"{path}: {where} `name` must be letters, digits and underscores, got {name!r}"
        )
    most = 2 if mechanism in ("background", "other") else 8
    levels = table["n_levels"]
    low, high = levels if isinstance(levels, list) and len(levels) == 2 else (levels, levels)
    fewest = _whole(low, 2, most, f"{where} n_levels", path)
    largest = _whole(high, fewest, most, f"{where} n_levels", path)
    priors = _priors(table, PART_KEYS[mechanism], where, path)
    return Part(name, mechanism, fewest, priors, None if largest == fewest else largest)


def _priors(
    table: Mapping[str, Any], keys: tuple[str, ...], where: str, path: str
) -> dict[str, Prior]:
    return {key: _prior(table[key], key, f"{where} {key}", path) for key in keys}


def _prior(prior: Any, key: str, where: str, path: str) -> Prior:
    form = prior.get("dist") if isinstance(prior, dict) else None
    if form not in _FORMS:
        raise ModelFileError(
            f"{path}: {where} must be a prior, "
            f'{{ dist = "LogNormal", median = ..., sigma = ... }} or '
            f'{{ dist = "Uniform", low = ..., high = ... }}, got {prior!r}'
        )
    check_keys(prior, ("dist", *_FORMS[form]), path, where)
    first, second = (_number(prior[name], f"{where} {name}", path) for name in _FORMS[form])
    if form == "Uniform":
        top = 1.0 if key in _SHARES else math.inf
        if not 0.0 <= first < second <= top:
            raise ModelFileError(
                f"{path}: {where} must have 0 <= low < high{' <= 1' if top == 1 else ''}, got "
                f"{first:g} and {second:g}"
            )
        return Uniform(first, second)
    if form == "Normal" or key in _SHARES:
        raise ModelFileError(
            f"{path}: {where} is {'a share' if key in _SHARES else 'positive'}: its prior must be "
            f"{'Uniform' if key in _SHARES else 'LogNormal or Uniform'}, got {form}"
        )
    if not (first > 0.0 and second > 0.0):
        raise ModelFileError(
            f"{path}: {where} median and sigma must be positive, got {first:g} and {second:g}"
        )
    return LogNormal(first, second)


def _number(value: Any, where: str, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
        raise ModelFileError(
            f"{path}: {where} must be a number of at most {_LARGEST:g}, got {value!r}"
        )
    return float(value)


def _whole(value: Any, low: int, high: int, where: str, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ModelFileError(
            f"{path}: {where} must be a whole number from {low} to {high}, got {value!r}"
        )
    return value
