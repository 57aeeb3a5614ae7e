"""From what users give to the trace that is fitted."""

from __future__ import annotations

import json
import os
import warnings as python_warnings
from typing import Any

import numpy as np
import xarray as xr

from pncbayes.errors import PncbayesWarning
from pncbayes.inference.arguments import check_is_whole_recording, read_data
from pncbayes.photons.binning import bin_photons, merge_empty_gates, photons_of
from pncbayes.photons.stream import Photons

__all__ = ["trace_to_fit"]


def trace_to_fit(
    data: Photons | xr.Dataset | str | os.PathLike[str], width_s: float | None, response: Any
) -> tuple[xr.Dataset, list[str]]:
    """Trace to fit, and what was said while it was made.

    Raises
    ------
    ValueError
        If the data are none, the width is not that of a given trace, or the trace was cut.
    """
    data = read_data(data, response)
    if isinstance(data, xr.Dataset):
        own = float(data.attrs["width_s"])
        if width_s is not None and not np.isclose(width_s, own, rtol=1e-6, atol=0.0):
            raise ValueError(
                f"`width_s` is {width_s} s but the trace has bins of {own} s; leave `width_s` "
                "out, or give the photons"
            )
        check_is_whole_recording(data, photons_of(data))
        return merge_empty_gates(data), list(json.loads(data.attrs.get("warnings", "[]")))
    with python_warnings.catch_warnings():
        # they are kept in the trace and come back as warnings of the fit
        python_warnings.simplefilter("ignore", PncbayesWarning)
        trace = bin_photons(data, width_s, response=response)
    return merge_empty_gates(trace), list(json.loads(trace.attrs.get("warnings", "[]")))
