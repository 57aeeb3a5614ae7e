import numpy as np
import pytest

from pncbayes.photons.formats import read
from pncbayes.photons.spectrum import spectral_lines
from pncbayes.photons.stream import Photons
from pncbayes.physics.simulate import PeriodicModulation, SimulatedState, simulate


def blinking(random_seed, **settings):
    return simulate(
        [SimulatedState(20e3), SimulatedState(3e3)],
        [5.0, 12.0],
        20.0,
        period_ns=None,
        random_seed=random_seed,
        **settings,
    ).photons


@pytest.mark.parametrize("seed", range(6))
def test_blinking_alone_has_no_line(seed):
    assert spectral_lines(blinking(seed)) == []


@pytest.mark.parametrize("frequency_hz", [50.0, 124.0, 700.0])
def test_a_line_is_found_where_it_is_and_as_deep_as_it_is(frequency_hz):
    periodic = PeriodicModulation(frequency_hz, 0.2)
    lines = spectral_lines(blinking(1, periodic=periodic))
    assert lines[0].frequency_hz == pytest.approx(frequency_hz, abs=1.0)
    assert lines[0].depth == pytest.approx(0.2, rel=0.25)


def test_short_recordings_are_not_screened():
    assert spectral_lines(Photons(np.arange(5000), 1e-4)) == []


@pytest.mark.shared_data
def test_the_real_emitter_hums_at_124_hz(shared_data):
    lines = spectral_lines(read(shared_data / "qd_hydraharp_t3" / "v10_t3.ptu"))
    assert any(abs(line.frequency_hz - 124) <= 2 for line in lines)
