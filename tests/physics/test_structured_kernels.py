"""Compiled counts per gate of structured hypotheses against the reference."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import structured_dots

from pncbayes.inference.structured import StructuredPosterior
from pncbayes.physics.structured_file import load_structured, structured_names
from pncbayes.physics.structured_kernels import fill_gate_rates, fill_values, layout_of
from pncbayes.physics.structures import LogNormal, Part, StructuredModel


def a_model_of_all_parts() -> StructuredModel:
    """What no shipped file has: a dark part beside one of counted traps."""
    model = load_structured("hot_carrier")
    rate = LogNormal(1.0, 1.0)
    dark = Part("dark", "background", 2, {"k_trap_per_s": rate, "k_detrap_per_s": rate})
    parts = (*model.variants()[-1].parts, dark)
    return StructuredModel(**{**vars(model), "parts": parts})


MODELS = [
    *(variant for name in structured_names() for variant in load_structured(name).variants()),
    a_model_of_all_parts(),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{model.name}_{model.n_states}")
def test_kernels_are_the_reference(model: StructuredModel) -> None:
    recorder, own = structured_dots.instrument()
    posterior = StructuredPosterior(model, np.zeros((1, 24)), 0.01, recorder, own)
    layout = layout_of(model, recorder, posterior.names, posterior.priors)
    rng = np.random.default_rng(1)
    for z in 1.5 * rng.standard_normal((20, posterior.size)):
        values, gates = np.empty(len(posterior.names)), np.empty((model.n_states, 24))
        fill_values(z, layout.priors, values)
        expected = posterior.values(z)
        np.testing.assert_allclose(values, [expected[n] for n in posterior.names], rtol=1e-12)
        deviation = z[len(posterior.names) :]
        every = np.arange(model.n_states)
        fill_gate_rates(values, deviation, layout.structure, layout.instrument, every, gates)
        np.testing.assert_allclose(gates, posterior.rates(z)[0], rtol=1e-10, atol=1e-9)
        one, alone = every[-1:], np.full_like(gates, np.nan)
        fill_gate_rates(values, deviation, layout.structure, layout.instrument, one, alone)
        np.testing.assert_array_equal(alone[-1], gates[-1])
        assert np.isnan(alone[:-1]).all()
