"""Where the mechanisms are drawn is where their densities are."""

import math

import numpy as np
import pytest
from matplotlib.path import Path

from pncbayes.physics import loci
from pncbayes.physics.mechanism_kernels import AUGER, HOT_CARRIER, NBC, log_prior_given_brightness
from pncbayes.physics.mechanisms import MechanismPriors, charging_shares

PRIORS = MechanismPriors()
OTHERS = MechanismPriors(
    slack_median=0.2, scaling_median=1.7, scaling_sigma=0.1, quantum_yield=(0.5, 1.0)
)


def density(label: int, lifetime: float, brightness: float, priors: MechanismPriors) -> float:
    """Log density of ln g at a place of the plane."""
    return log_prior_given_brightness(
        label, math.log(brightness), math.log(lifetime), priors.packed()
    )


@pytest.mark.parametrize("priors", [PRIORS, OTHERS])
def test_bands_end_where_the_density_is_that_of_one_sd(priors: MechanismPriors) -> None:
    for label, outline, middle_g in (
        (HOT_CARRIER, loci.hot_carrier_band(priors), 1.0),
        (NBC, loci.nbc_band(priors), 0.4),
    ):
        brightness = 0.4
        top = density(label, middle_g, brightness, priors)
        if label == HOT_CARRIER:
            edges = [(g, brightness) for g in outline[[0, 3], 0]]
        else:
            edges = [(brightness / ratio, brightness) for ratio in outline[:, 1] / outline[:, 0]]
        for g, f in edges:
            assert density(label, g, f, priors) == pytest.approx(top - 0.5)
        assert outline[:, 1].max() == 1.0
    low, high = loci.scaling_range(priors)
    top = density(AUGER, 0.1, 0.1 * priors.scaling_median, priors)
    for ratio in (low, high):
        assert density(AUGER, 0.1, 0.1 * ratio, priors) == pytest.approx(top - 0.5)


@pytest.mark.parametrize("priors", [PRIORS, OTHERS])
def test_the_auger_band_ends_where_the_auger_rate_would_be_negative(
    priors: MechanismPriors,
) -> None:
    outline = loci.auger_band(priors)
    ratios = outline[:, 1] / outline[:, 0]
    low, high = loci.scaling_range(priors)
    assert ratios.min() == pytest.approx(low)
    assert ratios.max() == pytest.approx(high)
    assert (low, high) == pytest.approx(
        tuple(
            priors.scaling_median
            * np.exp(np.array([-1, 1]) * math.hypot(priors.scaling_sigma, priors.slack_median))
        )
    )
    for lifetime, ratio in zip(outline[1:-1, 0], ratios[1:-1], strict=True):
        assert density(AUGER, 0.999 * lifetime, 0.999 * lifetime * ratio, priors) > -100.0
        assert density(AUGER, 1.001 * lifetime, 1.001 * lifetime * ratio, priors) < -1e200
        # k_A = 1/g - 1 - (m - 1) Q = 0
        assert 1.0 / lifetime - 1.0 == pytest.approx((ratio - 1.0) * priors.quantum_yield[0])


def test_charging_fills_its_region_and_nothing_else() -> None:
    rng = np.random.default_rng(1)
    m = PRIORS.scaling_median
    c, g_trion = rng.uniform(0.02, 0.88, 500), rng.uniform(0.006, 0.98 / m, 500)
    # the decay of a mixture: light over amplitude at time zero
    light = (1.0 - c) * 1.0 + c * m * g_trion
    lifetime = light / ((1.0 - c) + c * m)
    region = Path(loci.charging_region(PRIORS))
    places = np.column_stack([lifetime, light])
    assert region.contains_points(places).all()
    np.testing.assert_allclose(charging_shares(np.log(light), np.log(g_trion), m), c)
    # R = 1 + c (m - 1): below the region c would be too small for its brightness, above too large
    assert not region.contains_points(
        np.column_stack([light / (0.98 * (m - (m - 1) * light)), light])
    ).any()
    assert not region.contains_points(
        np.column_stack([light / (1.0 + 0.92 * (m - 1)), light])
    ).any()
    assert charging_shares(np.log([0.2]), np.log([0.006]), m)[0] > 0.0
    assert charging_shares(np.log([0.1]), np.log([0.006]), m)[0] == 0.0
