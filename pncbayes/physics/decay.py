"""What a state emits over the laser period, and its lifetime: the public names of both.

The formulas stand in `pncbayes.physics.convolution`, the fit in `pncbayes.physics.lifetime`.
"""

from pncbayes.physics.convolution import (
    GaussianResponse,
    HistogramResponse,
    Response,
    as_response,
    exponential_gate_probability,
    flat_gate_fraction,
    gate_probability,
    periodic_exponential,
    periodic_exponential_gaussian,
    scatter_gate_probability,
)
from pncbayes.physics.lifetime import (
    LifetimeFit,
    LifetimeFitter,
    amplitude_averaged_lifetime,
    lifetime_fitter,
    response_shift_ns,
)

__all__ = [
    "GaussianResponse",
    "HistogramResponse",
    "LifetimeFit",
    "LifetimeFitter",
    "Response",
    "amplitude_averaged_lifetime",
    "as_response",
    "exponential_gate_probability",
    "flat_gate_fraction",
    "gate_probability",
    "lifetime_fitter",
    "periodic_exponential",
    "periodic_exponential_gaussian",
    "response_shift_ns",
    "scatter_gate_probability",
]
