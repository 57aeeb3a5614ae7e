"""Time tags in files of no instrument: CSV, NPZ and Parquet tables, and Photon-HDF5."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import recordings as rec

from pncbayes.errors import PhotonFileError
from pncbayes.photons.formats import read


def test_csv_with_units_in_the_names(tmp_path):
    text = b"# a comment\ntime_ps,detector,delay_ns\n5,0,1.5\n70,1,2.25\n"
    photons = read(rec.write(tmp_path, "a.csv", text), period_ns=100.0)
    np.testing.assert_array_equal(photons.time_ticks, [5, 70])
    np.testing.assert_array_equal(photons.detector, [0, 1])
    np.testing.assert_allclose(photons.delay_ns, [1.5, 2.25])
    assert photons.tick_s == 1e-12
    assert photons.period_ns == 100.0


@pytest.mark.parametrize("separator", [",", ";", "\t", " ", "   "])
def test_csv_columns_named_by_the_caller(tmp_path, separator):
    text = "\n".join(separator.join(row) for row in (("3", "1", "20"), ("4", "0", "21")))
    path = rec.write(tmp_path, "a.dat", text.encode())
    options = {"columns": ["time_ticks", "detector", "delay_ticks"], "tick_s": 1e-9}
    photons = read(path, **options, delay_tick_ns=0.5, duration_s=1.0)
    np.testing.assert_array_equal(photons.delay_ticks, [20, 21])
    assert photons.delay_tick_ns == 0.5
    assert photons.duration_s == 1.0
    with pytest.raises(PhotonFileError, match="delay_tick_ns"):
        read(path, **options)
    with pytest.raises(PhotonFileError, match="never guessed"):
        read(path)


def test_seconds_are_kept_to_the_picosecond(tmp_path):
    photons = read(rec.write(tmp_path, "a.csv", b"time_s\n0.1\n0.100000000001\n"))
    np.testing.assert_array_equal(photons.time_ticks, [10**11, 10**11 + 1])
    coarse = read(rec.write(tmp_path, "a.csv", b"time_s\n0.1\n0.2\n"), tick_s=1e-9)
    np.testing.assert_array_equal(coarse.time_ticks, [10**8, 2 * 10**8])


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("time_s\n0.1\n\nnan\n", {}, "not a number in 1 rows, first in row 2"),
        ("time_s\n0.2\n0.1\n", {}, "backwards"),
        ("time_s\n-1.0\n0.1\n", {}, "negative"),
        ("time_s\nx\n0.1\n", {}, "must hold numbers, but holds text, first in row 1: 'x'"),
        ("time_ticks\n1\n2\n", {}, "tick_s"),
        ("time_ticks\n1.5\n2\n", {"tick_s": 1e-9}, "fractions"),
        ("time_ticks\n1\n2\n", {"tick_s": -1.0}, "must be positive"),
        ("time_s,time_ns\n1,1\n", {}, "choose one"),
        ("time_s\n", {}, "holds no photons"),
        ("time_s\n1e30\n", {}, "check its unit"),
        ("time_ns,delay_ns\n1,1e15\n", {}, "no delay"),
        ("time_ns,detector\n1,300\n", {}, "0 to 255"),
        ("a,b\n1,2\n", {"columns": ["time_ns", "delay_ns", "detector"]}, "names 3 columns"),
        ("a,b\n1,2\n", {"columns": {"c": "time_ns"}}, "no column 'c'"),
        ("1,2\n3\n4,5,6\n", {}, "not a table"),
        ("1\n2\n", {"gain": 1.0}, "frame_s"),
        ("1\n2\n", {"width_s": "10 ms"}, "`width_s` must be a number, got '10 ms'"),
        ("1\n2\n", {"frame_s": 0.1, "gain": True}, "`gain` must be a number, got True"),
    ],
)
def test_csv_errors(tmp_path, text, options, message):
    path = rec.write(tmp_path, "a.csv", text.encode())
    with pytest.raises(PhotonFileError, match=message) as caught:
        read(path, **options)
    assert str(path) in str(caught.value)


def test_text_among_numbers_is_found(tmp_path):
    path = rec.write(tmp_path, "a.csv", b"time_ns\n1\n2\nOVERFLOW\n4\n")
    with pytest.raises(PhotonFileError, match="first in row 3: 'OVERFLOW'"):
        read(path)


def test_a_unit_without_its_column_is_refused(tmp_path):
    path = rec.write(tmp_path, "a.csv", b"time_ticks,delay,detector\n1,3,0\n2,4,0\n")
    with pytest.raises(PhotonFileError, match="no column of delays among"):
        read(path, tick_s=1e-7, delay_tick_ns=0.1)
    photons = read(
        path, tick_s=1e-7, delay_tick_ns=0.1, columns={"time_ticks": "time_ticks",
        "delay": "delay_ticks"},
    )  # fmt: skip
    np.testing.assert_array_equal(photons.delay_ticks, [3, 4])


def test_csv_cut_short(tmp_path):
    path = rec.write(tmp_path, "a.csv", b"time_ns,detector\n1,0\n2,1\n3")
    with pytest.raises(PhotonFileError, match=r"row 3.*last line lacks values.*--salvage"):
        read(path)
    photons = read(path, salvage=True)
    assert len(photons) == 2
    assert photons.warnings == ("the last line was cut short and was left out",)
    gap = rec.write(tmp_path, "c.csv", b"time_ns,detector\n1,0\n2,\n3,1\n")
    with pytest.raises(PhotonFileError, match="row 2") as caught:
        read(gap)
    assert "salvage" not in str(caught.value)
    path = rec.write(tmp_path, "b.csv", b"counts,other\n1,0\n2,1\n3")
    trace = read(path, salvage=True, width_s=0.01)
    assert trace.sizes["time"] == 2
    assert "cut short" in trace.attrs["warnings"]


def test_npz(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, time_ns=np.array([1, 2]), other=np.arange(5))
    np.testing.assert_array_equal(read(path).time_ticks, [1, 2])
    np.savez(path, arr_0=np.array([1, 2]), arr_1=np.array([5, 6]))
    photons = read(path, columns={"arr_0": "time_ticks", "arr_1": "detector"}, tick_s=1e-9)
    np.testing.assert_array_equal(photons.detector, [5, 6])
    np.savez(path, time_ns=np.array([{}], dtype=object))
    with pytest.raises(PhotonFileError, match="not a list of numbers"):
        read(path)


def test_parquet_of_others_needs_units(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.table({"time_ticks": [1, 2], "label": ["a", "b"]}), path)
    with pytest.raises(PhotonFileError, match="tick_s"):
        read(path)
    assert read(path, tick_s=1e-9).tick_s == 1e-9
    pyarrow.parquet.write_table(pa.table({"time_ns": [1, None]}), path)
    with pytest.raises(PhotonFileError, match="not a number"):
        read(path)


# Photon-HDF5.


def photon_hdf5(path: Path, **fields) -> Path:
    import h5py

    with h5py.File(path, "w") as file:
        for name, value in fields.items():
            file[name.replace("__", "/")] = value
    return path


def test_photon_hdf5_marker_numbers_are_no_photons(tmp_path):
    path = photon_hdf5(
        tmp_path / "a.h5",
        photon_data__timestamps=np.array([1, 2, 3]),
        photon_data__detectors=np.array([0, 7, 1], np.uint8),
        photon_data__timestamps_specs__timestamps_unit=1e-8,
        photon_data__measurement_specs__detectors_specs__non_photon_id1=np.array([7]),
        acquisition_duration=1.0,
    )
    photons = read(path)
    np.testing.assert_array_equal(photons.time_ticks, [1, 3])
    np.testing.assert_array_equal(photons.marker_ticks, [2])
    assert photons.duration_s == 1.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"other": 1}, "not Photon-HDF5"),
        ({"photon_data__detectors": np.array([1])}, "holds no photons"),
        ({"photon_data__timestamps": np.array([1, 2])}, "timestamps_unit"),
        ({"photon_data__timestamps": np.zeros((2, 2), int)}, "list of numbers"),
        (
            {
                "photon_data__timestamps": np.array([0.5, 2]),
                "photon_data__timestamps_specs__timestamps_unit": 1e-8,
            },
            "fractions",
        ),
        (
            {
                "photon_data__timestamps": np.array([1, 2]),
                "photon_data__timestamps_specs__timestamps_unit": 1e-8,
                "photon_data__nanotimes": np.array([1, 2]),
            },
            "tcspc_unit",
        ),
        (
            {
                "photon_data__timestamps": np.array([1, 2]),
                "photon_data__timestamps_specs__timestamps_unit": 1e-8,
                "photon_data__detectors": np.array([1], np.uint8),
            },
            "2 timestamps but 1",
        ),
        (
            {"photon_data0__timestamps": np.array([1]), "photon_data1__timestamps": np.array([2])},
            "choose one of photon_data0, photon_data1",
        ),
    ],
)
def test_photon_hdf5_errors(tmp_path, fields, message):
    with pytest.raises(PhotonFileError, match=message):
        read(photon_hdf5(tmp_path / "a.h5", **fields))


def test_photon_hdf5_with_a_lying_shape(tmp_path):
    import h5py

    path = photon_hdf5(tmp_path / "a.h5", photon_data__timestamps_specs__timestamps_unit=1e-8)
    with h5py.File(path, "a") as file:
        file.create_dataset("photon_data/timestamps", shape=(10**12,), dtype="i8", chunks=(1000,))
    with pytest.raises(PhotonFileError, match="claims 8000000000000 bytes"):
        read(path)
