"""Photons that traces were made from, found again by their digest."""

from __future__ import annotations

import os
import warnings
import weakref
from collections import OrderedDict

import xarray as xr

from pncbayes.errors import PncbayesWarning
from pncbayes.photons.stream import Photons

__all__ = ["photons_of", "remember"]

_REMEMBERED: weakref.WeakValueDictionary[str, Photons] = weakref.WeakValueDictionary()
# Photons that came from no file could not be read again, so the last few are kept alive.
_KEPT: OrderedDict[str, Photons] = OrderedDict()
_MOST_KEPT = 4


def remember(photons: Photons) -> None:
    """Let `photons_of` find these photons, as long as they are in memory or in their file."""
    _REMEMBERED[photons.digest] = photons
    if not photons.path:
        _KEPT[photons.digest] = photons
        _KEPT.move_to_end(photons.digest)
        while len(_KEPT) > _MOST_KEPT:
            _KEPT.popitem(last=False)


def photons_of(trace: xr.Dataset) -> Photons | None:
    """Find the photons that a trace was made from.

    They are still in memory, or are read again from the trace's ``path``; then they must have the
    trace's digest. Of photons that came from no file, the last four are kept.

    Parameters
    ----------
    trace
        Made by `bin_photons`.

    Returns
    -------
    Photons or None
        None for a camera trace, and when the photons cannot be had any more.
    """
    digest = trace.attrs.get("digest", "")
    found = _REMEMBERED.get(digest)
    path = str(trace.attrs.get("path", ""))
    if found is not None or trace.attrs.get("kind") != "photons" or not os.path.exists(path):
        return found
    from pncbayes.photons.formats import read

    try:
        with warnings.catch_warnings():
            # the trace carries the warnings of its file already
            warnings.simplefilter("ignore", PncbayesWarning)
            try:
                again = read(path)
            except ValueError:
                # what was whole of a truncated file may be what the trace was made from
                again = read(path, salvage=True)
    except (OSError, ValueError):
        return None
    if not isinstance(again, Photons) or again.digest != digest:
        return None
    remember(again)
    return again
