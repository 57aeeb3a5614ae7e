"""Lay out a Photon-HDF5 0.5 file.

Reference
---------
A. Ingargiola et al., Biophys. J. 110, 26 (2016), doi:10.1016/j.bpj.2015.11.013
"""

from __future__ import annotations

from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from pncbayes.photons.stream import Photons

__all__ = ["fill_photon_hdf5"]

_URL = "http://photon-hdf5.org/"
_SPLIT = "photon_data/measurement_specs/detectors_specs/split_ch"
# The definition of the format fixes these descriptions, and validators compare them.
_TITLES = {
    "/": "A file format for photon-counting detector based single-molecule spectroscopy "
    "experiments.",
    "acquisition_duration": "Measurement duration in seconds.",
    "description": "A user-defined comment describing the data file.",
    "photon_data": "Group containing arrays of photon-data.",
    "photon_data/timestamps": "Array of photon timestamps. Units specified in timestamps_units "
    "(defined in timestamps_specs/).",
    "photon_data/detectors": "Array of pixel IDs for each timestamp.",
    "photon_data/nanotimes": "TCSPC photon arrival time (nanotimes). Units and other "
    "specifications are in nanotimes_specs group.",
    "photon_data/timestamps_specs": "Specifications for timestamps.",
    "photon_data/timestamps_specs/timestamps_unit": "Value of 1-unit timestamp-increment in "
    "seconds.",
    "photon_data/nanotimes_specs": "Group for nanotime-specific data.",
    "photon_data/nanotimes_specs/tcspc_unit": "Value of 1-unit nanotime-increment in seconds "
    "(TCSPC bin size).",
    "photon_data/nanotimes_specs/tcspc_num_bins": "Number of TCSPC bins.",
    "photon_data/measurement_specs": "Metadata necessary for interpretation of the particular type "
    "of measurement.",
    "photon_data/measurement_specs/measurement_type": "Name of the measurement the data "
    "represents.",
    "photon_data/measurement_specs/laser_repetition_rate": "Repetition rate of the pulsed "
    "excitation laser (in Hertz).",
    "photon_data/measurement_specs/detectors_specs": "Mapping between the pixel IDs and the "
    "detection channels.",
    "setup": "Information about the experimental setup.",
    "setup/num_pixels": "Total number of detector pixels.",
    "setup/num_spots": 'Number of excitation (or detection) "spots" in the sample.',
    "setup/num_spectral_ch": "Number of distinct spectral bands which are acquired.",
    "setup/num_polarization_ch": "Number of distinct polarization states which are acquired.",
    "setup/num_split_ch": "Number of distinct detection channels detecting the same spectral band "
    "and polarization. This value is > 1 when using a non-polarizing beam splitter.",
    "setup/modulated_excitation": "True (i.e. 1) if there is any form of excitation modulation of "
    "excitation wavelength (as in us-ALEX or PAX) or polarization. This field is also True for "
    "pulse-interleaved excitation (PIE) or ns-ALEX measurements.",
    "setup/lifetime": "True (i.e. 1) if the measurement includes a nanotimes array of photon "
    "arrival times with respect to a laser pulse (as in TCSPC measurements).",
    "setup/excitation_alternated": "New in version 0.5. Indicates whether each excitation source "
    "is alternated (True, or 1) or not alternated (False, or 0).",
    "setup/excitation_cw": "For each excitation source, this field indicates whether excitation is "
    "continuous wave (CW), True (i.e. 1), or pulsed, False (i.e. 0).",
    "setup/laser_repetition_rates": "Repetition rates in Hz for each laser. CW lasers have a value "
    "of 0.",
    "setup/detectors": "Metadata relative to each detector's pixel. Each field is an array with "
    "size equal to the number of the detectors.",
    "setup/detectors/id": "Detector IDs as they appear on /photon_data/detectors.",
    "setup/detectors/counts": "Total number of counts detected by each detector.",
    "identity": "Information about the Photon-HDF5 data file.",
    "identity/author": "Author of the current data file.",
    "identity/author_affiliation": "Company or institution the author is affiliated with.",
    "identity/creation_time": "Creation time of the current Photon-HDF5 file.",
    "identity/filename": "Original file name of the current Photon-HDF5 file (i.e. file name at "
    "creation time).",
    "identity/format_name": "Name of the file format.",
    "identity/format_version": "Version for the Photon-HDF5 format.",
    "identity/format_url": "Official URL for the Photon-HDF5 format.",
    "identity/software": "Name of the software used to create the current Photon-HDF5 file.",
    "identity/software_version": "Version of the software used to create current the Photon-HDF5 "
    "file.",
}


def fill_photon_hdf5(file: Any, photons: Photons, file_name: str) -> None:
    """Write all groups of a recording.

    What the format has no place for (markers, instrument) goes to ``/user/pncbayes``.

    Parameters
    ----------
    file
        An h5py file, open for writing and empty.
    photons
        The recording.
    file_name
        Name to state in ``/identity``.
    """
    for name, value in _fields(photons, file_name).items():
        _put(file, name, value)
    titles = dict(_TITLES)
    for i in range(len(photons.detectors)):
        titles[f"{_SPLIT}{i + 1}"] = (
            f"Pixel IDs for the {_ordinal(i + 1)} channel split through a non-polarizing beam "
            "splitter."
        )
    for name, title in titles.items():
        if name in file:
            file[name].attrs["TITLE"] = np.bytes_(title.encode())
    file.attrs["format_name"] = np.bytes_(b"Photon-HDF5")
    file.attrs["format_version"] = np.bytes_(b"0.5")
    file.attrs["format_url"] = np.bytes_(_URL.encode())


def _fields(photons: Photons, file_name: str) -> dict[str, Any]:
    """Every field by name; None and empty ones are not written."""
    has_delays = photons.delay_ticks is not None and photons.delay_tick_ns is not None
    is_pulsed = has_delays or photons.period_ns is not None
    detectors = photons.detectors
    description = photons.metadata.get("description") or "Photon stream of one emitter"
    fields: dict[str, Any] = {
        "acquisition_duration": photons.duration_s,
        "description": str(description),
        "photon_data/timestamps": photons.time_ticks,
        "photon_data/timestamps_specs/timestamps_unit": photons.tick_s,
        "photon_data/detectors": photons.detector,
        "photon_data/measurement_specs/measurement_type": "generic",
        "setup/num_pixels": len(detectors),
        "setup/num_spots": 1,
        "setup/num_spectral_ch": 1,
        "setup/num_polarization_ch": 1,
        "setup/num_split_ch": len(detectors),
        "setup/modulated_excitation": False,
        "setup/lifetime": has_delays,
        "setup/excitation_alternated": np.array([0], np.uint8),
        "setup/excitation_cw": np.array([0 if is_pulsed else 1], np.uint8),
        "setup/detectors/id": np.array(list(detectors), np.uint8),
        "setup/detectors/counts": np.array(list(detectors.values()), np.int64),
        "identity/author": "unknown",
        "identity/author_affiliation": "unknown",
        "identity/creation_time": datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
        "identity/filename": file_name,
        "identity/format_name": "Photon-HDF5",
        "identity/format_version": "0.5",
        "identity/format_url": _URL,
        "identity/software": "pncbayes",
        "identity/software_version": _own_version(),
        "user/pncbayes/instrument": photons.instrument,
    }
    if photons.delay_ticks is not None and photons.delay_tick_ns is not None:
        n_bins = int(photons.delay_ticks.max()) + 1
        fields |= {
            "photon_data/nanotimes": photons.delay_ticks,
            "photon_data/nanotimes_specs/tcspc_unit": photons.delay_tick_ns * 1e-9,
            "photon_data/nanotimes_specs/tcspc_num_bins": n_bins,
        }
    if photons.period_ns is not None:
        rate = 1e9 / photons.period_ns
        fields["photon_data/measurement_specs/laser_repetition_rate"] = rate
        fields["setup/laser_repetition_rates"] = np.array([rate])
    for i, number in enumerate(detectors):
        fields[f"{_SPLIT}{i + 1}"] = np.array([number], np.uint8)
    if photons.marker_ticks.size:
        fields["user/pncbayes/marker_ticks"] = photons.marker_ticks
        fields["user/pncbayes/marker_codes"] = photons.marker_codes
    return fields


def _put(file: Any, name: str, value: Any) -> None:
    options: dict[str, Any] = {}
    if isinstance(value, str):
        if value:
            dataset = file.create_dataset(name, data=np.bytes_(value.encode()))
            # so that readers built on PyTables get bytes and not an array
            dataset.attrs["CLASS"] = np.bytes_(b"ARRAY")
            dataset.attrs["FLAVOR"] = np.bytes_(b"python")
        return
    if isinstance(value, bool):
        value = np.uint8(value)
    elif isinstance(value, np.ndarray) and value.size > 1024:
        options = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
    file.create_dataset(name, data=value, **options)


def _ordinal(number: int) -> str:
    """Return the ordinal word, as the format's definition spells it."""
    words = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
    return words[number - 1] if number <= len(words) else f"{number}th"


def _own_version() -> str:
    try:
        return version("pncbayes")
    except PackageNotFoundError:
        return "unknown"
