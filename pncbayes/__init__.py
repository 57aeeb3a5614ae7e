"""Bayesian analysis of the light of single perovskite nanocrystals.

>>> import pncbayes as pnc
>>> photons = pnc.read("dot_017.ptu")  # doctest: +SKIP
>>> fit = pnc.fit(photons, random_seed=1)  # doctest: +SKIP
>>> pnc.plot_overview(fit)  # doctest: +SKIP

Nothing is imported before it is used: public names load their module on first access.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pncbayes.errors import (
        DiagnosticError,
        ModelFileError,
        PhotonFileError,
        PncbayesWarning,
    )
    from pncbayes.inference.build import build
    from pncbayes.inference.compare_models import compare_models
    from pncbayes.inference.comparison import ModelComparison
    from pncbayes.inference.detection import DetectionLimit, detection_limit
    from pncbayes.inference.dynamics import Dynamics
    from pncbayes.inference.find_dynamics import dynamics
    from pncbayes.inference.fit import fit
    from pncbayes.inference.results import Fit, load
    from pncbayes.photons.binning import bin_photons, camera_trace
    from pncbayes.photons.formats import read
    from pncbayes.photons.screening import Screening, screen
    from pncbayes.photons.stream import Photons
    from pncbayes.photons.writers import write_photons
    from pncbayes.physics.exciton import Exciton
    from pncbayes.physics.simulate import simulate
    from pncbayes.report.dynamics import plot_dynamics
    from pncbayes.report.intensity_lifetime import plot_intensity_lifetime
    from pncbayes.report.overview import plot_overview
    from pncbayes.report.screening import plot_screening

    __version__: str

__all__ = [
    "DetectionLimit",
    "DiagnosticError",
    "Dynamics",
    "Exciton",
    "Fit",
    "ModelComparison",
    "ModelFileError",
    "PhotonFileError",
    "Photons",
    "PncbayesWarning",
    "Screening",
    "__version__",
    "bin_photons",
    "build",
    "camera_trace",
    "compare_models",
    "detection_limit",
    "dynamics",
    "fit",
    "load",
    "plot_dynamics",
    "plot_intensity_lifetime",
    "plot_overview",
    "plot_screening",
    "read",
    "screen",
    "simulate",
    "write_photons",
]

_PUBLIC = {
    "DetectionLimit": "pncbayes.inference.detection",
    "DiagnosticError": "pncbayes.errors",
    "Dynamics": "pncbayes.inference.dynamics",
    "Exciton": "pncbayes.physics.exciton",
    "Fit": "pncbayes.inference.results",
    "ModelComparison": "pncbayes.inference.comparison",
    "ModelFileError": "pncbayes.errors",
    "PhotonFileError": "pncbayes.errors",
    "Photons": "pncbayes.photons.stream",
    "PncbayesWarning": "pncbayes.errors",
    "Screening": "pncbayes.photons.screening",
    "bin_photons": "pncbayes.photons.binning",
    "build": "pncbayes.inference.build",
    "camera_trace": "pncbayes.photons.binning",
    "compare_models": "pncbayes.inference.compare_models",
    "detection_limit": "pncbayes.inference.detection",
    "dynamics": "pncbayes.inference.find_dynamics",
    "fit": "pncbayes.inference.fit",
    "load": "pncbayes.inference.results",
    "plot_dynamics": "pncbayes.report.dynamics",
    "plot_intensity_lifetime": "pncbayes.report.intensity_lifetime",
    "plot_overview": "pncbayes.report.overview",
    "plot_screening": "pncbayes.report.screening",
    "read": "pncbayes.photons.formats",
    "screen": "pncbayes.photons.screening",
    "simulate": "pncbayes.physics.simulate",
    "write_photons": "pncbayes.photons.writers",
}


def __getattr__(name: str) -> Any:
    """Load a public name from the module that holds it, and remember it."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("pncbayes")
    elif name in _PUBLIC:
        value = getattr(import_module(_PUBLIC[name]), name)
    else:
        raise AttributeError(f"module 'pncbayes' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, loaded or not."""
    return sorted({*globals(), *__all__})
