"""Model files: the shipped ones parse, and every wrong one says what is wrong with it."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from pncbayes.errors import ModelFileError
from pncbayes.physics.mechanisms import MechanismPriors
from pncbayes.physics.modelfile import (
    LogNormal,
    ModelFile,
    find_model_files,
    load_model,
    parse_model,
)

WRONG = Path(__file__).resolve().parents[1] / "data" / "wrong_models"
ROOT = Path(__file__).resolve().parents[2]


def test_shipped_models_are_found() -> None:
    found = find_model_files()
    assert {"free", "steady"} <= set(found)
    assert set(found) == {path.stem for path in (ROOT / "models").glob("*.toml")}


@pytest.mark.parametrize("name", ["free", "steady"])
def test_shipped_model_parses(name: str) -> None:
    model = load_model(name)
    assert model.name == name
    assert model.claim
    assert all(reference.startswith("10.") for reference in model.references)
    assert 1 <= model.n_states[0] <= model.n_states[1]
    assert load_model(model) is model
    assert load_model(find_model_files()[name]) == model
    assert load_model(str(find_model_files()[name])) == model


def test_the_text_of_a_model_is_the_model() -> None:
    model = load_model("free")
    again = parse_model(model.text)
    assert (again.text, again.digest) == (model.text, model.digest)
    assert again.mechanism == model.mechanism
    other = parse_model(model.text.replace("median = 2.0", "median = 1.5"))
    assert other.mechanism.scaling_median == 1.5
    with pytest.raises(ModelFileError, match="not TOML"):
        parse_model("median = = 2")
    with pytest.raises(ModelFileError, match="model text"):
        parse_model("schema = 1")


def test_numbers_are_those_of_the_file() -> None:
    model = load_model("free")
    content = tomllib.loads(model.text)
    assert model.n_states == tuple(content["n_states"])
    for name, table, key in (
        ("brightest_rate_per_s", "brightness", "brightest_rate_per_s"),
        ("decay_concentration", "decay", "concentration"),
        ("exit_rate_per_s", "switching", "exit_rate_per_s"),
        ("excess_variance_ratio", "noise", "excess_variance_ratio"),
    ):
        prior = getattr(model, name)
        assert prior.median == content[table][key]["median"]
        assert prior.sigma == content[table][key]["sigma"]
    assert model.repulsion == content["brightness"]["repulsion"]
    assert model.jump_concentration == content["switching"]["jump"]["concentration"]
    assert model.decay_base_concentration == content["decay"]["base"]["concentration"]
    priors = model.mechanism
    for name, key in (
        ("slack", "slack"),
        ("scatter", "scatter_share"),
        ("after_biexciton", "after_biexciton_share"),
        ("afterpulsing", "afterpulsing_share"),
    ):
        written = content["mechanism"][key]
        assert getattr(priors, f"{name}_median") == written["median"]
        assert getattr(priors, f"{name}_sigma") == written["sigma"]
    assert priors.weights_concentration == content["mechanism"]["weights_concentration"]
    assert priors == MechanismPriors()
    assert load_model("steady").n_states == (1, 1)


def test_digest_is_of_the_whole_text(tmp_path: Path) -> None:
    text = load_model("free").text
    assert load_model("free").digest != load_model("steady").digest
    copy, other = tmp_path / "copy.toml", tmp_path / "other.toml"
    copy.write_text(text, encoding="utf-8")
    other.write_text(text.replace("median = 1.0,", "median = 1.5,"), encoding="utf-8")
    assert load_model(copy).digest == load_model("free").digest
    assert load_model(other).digest != load_model("free").digest
    assert load_model(other).exit_rate_per_s == LogNormal(1.5, 2.0)


def test_widened_priors_keep_their_medians() -> None:
    model = load_model("free")
    wide = model.widened(2.0)
    n_widened = 0
    for field in fields(ModelFile):
        before, after = getattr(model, field.name), getattr(wide, field.name)
        if not isinstance(before, LogNormal):
            assert after == before
        elif field.name != "excess_variance_ratio":
            assert after == LogNormal(before.median, 2.0 * before.sigma)
            n_widened += 1
    assert n_widened == 3
    assert wide.widened(0.5) == model


def test_every_log_normal_prior_is_widened() -> None:
    model = load_model("free")
    prior = model.widened(2.0).excess_variance_ratio
    assert prior.sigma == 2.0 * model.excess_variance_ratio.sigma


# what the reader still lets pass, or refuses with another error than its own
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(
            path,
            id=path.stem,
        )
        for path in sorted(WRONG.glob("*.toml"))
    ],
)
def test_wrong_file_says_what_is_wrong(path: Path) -> None:
    """The first lines of each file say what the error has to name, and what is allowed."""
    lines = path.read_bytes().decode("utf-8", errors="replace").splitlines()
    names, allowed = (
        line.removeprefix(prefix)
        for line, prefix in zip(lines, ("# names: ", "# allowed: "), strict=False)
    )
    with pytest.raises(ModelFileError) as caught:
        load_model(path)
    message = str(caught.value)
    assert str(path) in message
    assert names in message
    assert allowed in message


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e12"])
@pytest.mark.parametrize("part", ["median", "sigma"])
@pytest.mark.parametrize(
    "where",
    [
        "[brightness] brightest_rate_per_s",
        "[decay] concentration",
        "[switching] exit_rate_per_s",
        "[noise] excess_variance_ratio",
    ],
)
def test_numbers_of_a_prior_must_be_finite(
    tmp_path: Path, where: str, part: str, value: str
) -> None:
    """The message names file, table, key and value, and what is allowed."""
    lines = load_model("free").text.splitlines()
    key = where.split()[1]
    (row,) = (k for k, line in enumerate(lines) if line.startswith(f"{key} = "))
    lines[row] = re.sub(rf"{part} = [^ ,]+", f"{part} = {value}", lines[row])
    path = tmp_path / "mine.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    expected = f"{path}: `{where} {part}` must be a positive number below 1e+12, got {float(value)}"
    with pytest.raises(ModelFileError, match=f"^{re.escape(expected)}$"):
        load_model(path)


@pytest.mark.parametrize("model", [3, None, b"free", ["free"]])
def test_what_is_no_model_lists_the_shipped_ones(model: Any) -> None:
    with pytest.raises(ModelFileError, match=r"`model` must be a name.* got .*free, .*steady"):
        load_model(model)


def test_there_are_wrong_files() -> None:
    assert len(list(WRONG.glob("*.toml"))) > 40


def test_unknown_name_lists_the_shipped_ones() -> None:
    with pytest.raises(ModelFileError, match=r"no model named 'fre'; shipped are .*free.*steady"):
        load_model("fre")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"nowhere.toml: cannot be read \(No such file"):
        load_model(tmp_path / "nowhere.toml")
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    with pytest.raises(ModelFileError, match=r"folder.toml: cannot be read"):
        load_model(folder)
