"""Files of any format: wrong ones say what is wrong, real ones are read as their README says."""

from __future__ import annotations

import re

import numpy as np
import ptufile
import pytest
import recordings as rec

from pncbayes.errors import PhotonFileError
from pncbayes.photons.facts import photon_facts
from pncbayes.photons.formats import read


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.ptu", rec.ptu(0x01010304, np.array([127 << 25 | 3, 65 << 25], "<u4").tobytes())),
        ("a.ptu", rec.ptu(0x01010304, b"")),
        ("a.ht2", rec.hydraharp(2, False, np.array([64 << 25], "<u4").tobytes())),
        ("a.spc", np.array([1 << 31 | 135, 1 << 31], "<u4").tobytes()),
        ("a.spc", np.array([1 << 31 | 135], "<u4").tobytes()),
    ],
)
def test_no_photons(tmp_path, name, content):
    path = rec.write(tmp_path, name, content)
    with pytest.raises(PhotonFileError, match="holds no photons"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.ptu", b"", "the file is empty"),
        ("a.ptu", b"PQTTTR\0\0" + b"1.0.00\0\0", "header has no end"),
        ("a.ptu", rec.ptu(0x01010304, bytes(8))[:200], "header has no end"),
        ("a.ptu", rec.ptu(0x09090909, bytes(8)), "record type 0x09090909"),
        ("a.ptu", rec.ptu(0x01010304, bytes(8), MeasDesc_GlobalResolution=0.0), "period_ns"),
        ("a.ptu", rec.ptu(0x01010304, bytes(8), MeasDesc_Resolution=-1.0), "delay clock"),
        ("a.ptu", rec.ptu(0x01010304, bytes(8), MeasDesc_Resolution="x"), "MeasDesc_Resolution"),
        ("a.ptu", rec.ptu(0x01010304, bytes(8), TTResultFormat_BitsPerRecord=64), "64 bits"),
        ("a.phu", b"PQHISTO\0" + bytes(100), "histogram"),
        ("a.ht3", b"HydraHarp\0" + bytes(100), "ends inside its header"),
        ("a.ht3", rec.hydraharp(3, True, bytes(8)), "format version '3.0'"),
        ("a.ht3", rec.hydraharp(2, True, bytes(8), measurement_mode=0), "measurement mode 0"),
        ("a.ht3", rec.hydraharp(2, True, bytes(8), bits_per_record=16), "16 bits"),
        ("a.ht3", rec.hydraharp(2, True, bytes(8), n_inputs=0)[:710], "ends inside its header"),
        ("a.pt3", rec.picoharp(True, bytes(8), version=b"1.0"), "format version '1.0'"),
        ("a.t3r", rec.timeharp(bytes(8), measurement_mode=0), "measurement mode 0"),
        ("a.t3r", rec.timeharp(bytes(8), global_clock_ns=0), "global clock"),
        ("a.t3r", rec.timeharp(bytes(8), resolution_ns=np.nan), "delay clock"),
        ("a.spc", bytes(64), "not a Becker & Hickl header"),
        ("a.bin", bytes(range(256)), "none of the known formats"),
        ("a.npy", b"\x93NUMPY" + bytes(50), "numpy.savez"),
        ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(50), "truncated or damaged"),
        ("a.parquet", b"PAR1" + bytes(50), "truncated or damaged"),
        ("a.npz", b"PK\x03\x04" + bytes(50), "truncated or damaged"),
        ("a.traces", bytes(20), "header of a .traces file"),
        ("a.traces", b"\x05\0\0\0\x02\0" + bytes(3), "truncated"),
        ("a.csv", b"# only a comment\n", "no table"),
        ("a.csv", b"hello world\n", "no column of times|no photons"),
    ],
)
def test_wrong_files_say_what_is_wrong(tmp_path, name, content, message):
    path = rec.write(tmp_path, name, content)
    with pytest.raises(PhotonFileError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(PhotonFileError, match="no such file"):
        read(tmp_path / "nothing.ptu")
    with pytest.raises(PhotonFileError, match="is a folder"):
        read(tmp_path)


def test_unknown_options_name_the_known_ones(tmp_path):
    path = rec.write(tmp_path, "a.ptu", rec.ptu(0x01010304, bytes(8)))
    with pytest.raises(PhotonFileError, match=r"`width_s` is no option.*period_ns, sync_detector"):
        read(path, width_s=0.01)


# Real recordings; the numbers are those of their README.


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "n_photons", "duration_s"),
    [
        ("qd_hydraharp_t3/v10_t3.ptu", 94_560, 30.0),
        ("nc_hydraharp_t2/DotD_run_one126.stream", 377_011, 120.0),
        ("nc_hydraharp_t2/DotD_run_one52.stream", 219_143, 120.0),
        ("lhcii_picoharp_pt3/trace1.pt3", 107_818, 120.0),
        ("lhcii_picoharp_pt3/trace2.pt3", 22_405, 120.0),
        ("lhcii_picoharp_pt3/trace4.pt3", 107_407, 60.0),
        ("lhcii_picoharp_pt3/trace5.pt3", 16_829, 60.0),
        ("lhcii_picoharp_pt3/trace6.pt3", 27_646, 60.0),
        ("spc_bh/bh_spc132.spc", 183_657, 62.3),
        ("picoquant_formats/v20_t2.ptu", 305_565, 5.0),
        ("picoquant_formats/beads.ptu", 73_787, 10.559),
        ("picoquant_formats/v20.ht3", 44_141, 10.0),
        ("picoquant_formats/PQ_HT3_SF.ht3", 181_023, None),
        ("picoquant_formats/v50.t3r", 85_571, 9.344),
        ("photon_hdf5/6A1.hdf5", 977_363, 901.9),
    ],
)
def test_real_recordings(shared_data, name, n_photons, duration_s):
    photons = read(shared_data / name)
    assert len(photons) == n_photons
    if duration_s is not None:
        assert photons.duration_s == pytest.approx(duration_s, abs=0.06)


@pytest.mark.shared_data
def test_real_blinking_emitter(shared_data):
    photons = read(shared_data / "qd_hydraharp_t3/v10_t3.ptu")
    assert photons.detectors == {0: 48_001, 1: 46_559}
    assert photons.period_ns == 400.0
    assert photons.delay_tick_ns == pytest.approx(0.128)
    assert photons.warnings == ()
    facts = photon_facts(photons)
    assert facts["counts_per_10_ms"]["fano_factor"] == pytest.approx(8.4, abs=0.05)


@pytest.mark.shared_data
def test_real_details(shared_data):
    lhcii = read(shared_data / "lhcii_picoharp_pt3/trace1.pt3")
    assert lhcii.detectors == {1: 1803, 2: 106_015}
    assert 1e3 / lhcii.period_ns == pytest.approx(75.945, abs=0.001)
    assert lhcii.delay_tick_ns == 0.004
    beads = read(shared_data / "picoquant_formats/beads.ptu")
    assert beads.marker_ticks.size == 100
    formats = shared_data / "picoquant_formats"
    assert read(formats / "v50.t3r").metadata["n_records"] == 86_997
    assert len(read(formats / "PQ_HT3_SF.ht3").detectors) == 8
    stream = read(shared_data / "nc_hydraharp_t2/DotD_run_one126.stream")
    assert stream.tick_s == 1e-12
    assert re.search("header states 1597208 records", stream.warnings[0])
    hdf5 = read(shared_data / "photon_hdf5/6A1.hdf5")
    assert hdf5.detectors == {0: 678_751, 1: 298_612}
    assert hdf5.tick_s == 1e-8


@pytest.mark.shared_data
def test_real_incomplete_files(shared_data):
    formats = shared_data / "picoquant_formats"
    with pytest.raises(PhotonFileError, match="1050 are whole"):
        read(formats / "v10.ht3")
    assert len(read(formats / "v10.ht3", salvage=True)) == 32
    with pytest.raises(PhotonFileError, match="holds no photons"):
        read(formats / "v20.ht2")


@pytest.mark.shared_data
def test_real_becker_hickl_equals_its_decoded_arrays(shared_data):
    units = {"delay_tick_ns": 3.296e-3, "period_ns": 13.5}
    records = read(shared_data / "spc_bh/bh_spc132.spc", **units)
    columns = {"arr_0": "detector", "arr_1": "delay_ticks", "arr_2": "time_ticks"}
    arrays = read(shared_data / "spc_bh/bh_spc132.npz", columns=columns, tick_s=13.5e-9, **units)
    for name in ("time_ticks", "detector", "delay_ticks"):
        np.testing.assert_array_equal(getattr(records, name), getattr(arrays, name))
    assert records.tick_s == pytest.approx(13.5e-9)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    "name",
    ["qd_hydraharp_t3/v10_t3.ptu", "picoquant_formats/v20_t2.ptu", "picoquant_formats/beads.ptu"],
)
def test_real_ptu_equals_ptufile(shared_data, name):
    photons = read(shared_data / name)
    with ptufile.PtuFile(shared_data / name) as file:
        records = file.decode_records()
    found = records[records["channel"] >= 0]
    np.testing.assert_array_equal(photons.time_ticks, found["time"])
    np.testing.assert_array_equal(photons.detector, found["channel"])
    if photons.delay_ticks is not None:
        np.testing.assert_array_equal(photons.delay_ticks, found["dtime"])
    markers = records[records["marker"] > 0]
    np.testing.assert_array_equal(photons.marker_ticks, markers["time"])
    np.testing.assert_array_equal(photons.marker_codes, markers["marker"])
