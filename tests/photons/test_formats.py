"""Every format reads what was written into it, and wrong files say what is wrong."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path

import numpy as np
import ptufile
import pyarrow as pa
import pyarrow.parquet
import pytest
import recordings as rec
import xarray as xr

from pncbayes.errors import PhotonFileError
from pncbayes.photons.facts import photon_facts, sparkline
from pncbayes.photons.formats import read
from pncbayes.photons.ptu import RECORD_TYPES
from pncbayes.photons.stream import Photons

CAMERA = {"gain": 1.0, "offset": 0.0, "read_noise": 0.0, "excess_factor": 1.0}


def assert_is(photons, stream, *, delays=True, markers=True):
    np.testing.assert_array_equal(photons.time_ticks, stream.times)
    np.testing.assert_array_equal(photons.detector, stream.detectors)
    if delays:
        np.testing.assert_array_equal(photons.delay_ticks, stream.delays)
    else:
        assert photons.delay_ticks is None
    if markers:
        np.testing.assert_array_equal(photons.marker_ticks, stream.marker_times)
        np.testing.assert_array_equal(photons.marker_codes, stream.marker_codes)


@pytest.mark.parametrize("code", RECORD_TYPES, ids=lambda code: RECORD_TYPES[code][0])
def test_ptu_of_every_record_type(tmp_path, code):
    name, has_delays = RECORD_TYPES[code]
    if name.startswith("PicoHarp"):
        # markers of PicoHarp T2 have lost their lowest bits; they are tested by number only
        stream = rec.stream(65536 if has_delays else 210698240)
        records = rec.picoharp_records(stream, has_delays)
    else:
        wraparound = 1024 if has_delays else 33552000 if name == "HydraHarp 1 T2" else 33554432
        stream = rec.stream(wraparound)
        counted = not name.startswith("HydraHarp 1")
        records = rec.hydraharp_records(stream, wraparound, has_delays, counted)
    path = rec.write(tmp_path, "a.ptu", rec.ptu(code, records))
    photons = read(path)
    assert_is(photons, stream, delays=has_delays, markers=name != "PicoHarp T2")
    np.testing.assert_array_equal(photons.marker_codes, stream.marker_codes)
    assert photons.record_type == name
    assert photons.instrument == "test bench"
    assert photons.warnings == ()
    assert photons.path == str(path)
    if has_delays:
        assert photons.tick_s == 4e-7
        assert photons.period_ns == 400.0
        assert photons.delay_tick_ns == 0.128
    else:
        assert photons.tick_s == 1e-12
        assert photons.period_ns is None


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("has_delays", [False, True])
def test_hydraharp_headers(tmp_path, version, has_delays):
    wraparound = 1024 if has_delays else 33552000 if version == 1 else 33554432
    stream = rec.stream(wraparound)
    records = rec.hydraharp_records(stream, wraparound, has_delays, version == 2)
    name = f"a.ht{3 if has_delays else 2}"
    photons = read(rec.write(tmp_path, name, rec.hydraharp(version, has_delays, records)))
    assert_is(photons, stream, delays=has_delays)
    assert photons.tick_s == (4e-7 if has_delays else 1e-12)
    assert photons.record_type == f"HydraHarp {version} T{3 if has_delays else 2}"


def test_version_1_header_with_counted_overflows_is_read_by_its_records(tmp_path):
    stream = rec.stream(1024)
    records = rec.hydraharp_records(stream, 1024, True, counted=True)
    photons = read(rec.write(tmp_path, "a.ht3", rec.hydraharp(1, True, records)))
    assert_is(photons, stream)
    assert "version 1" in photons.warnings[0]


@pytest.mark.parametrize("has_delays", [False, True])
def test_picoharp_headers(tmp_path, has_delays):
    stream = rec.stream(65536 if has_delays else 210698240)
    records = rec.picoharp_records(stream, has_delays)
    name = f"a.pt{3 if has_delays else 2}"
    photons = read(rec.write(tmp_path, name, rec.picoharp(has_delays, records)))
    assert_is(photons, stream, delays=has_delays, markers=has_delays)
    assert photons.tick_s == (4e-7 if has_delays else 4e-12)
    assert photons.delay_tick_ns == (0.004 if has_delays else None)


def test_timeharp_200_channels_run_against_time(tmp_path):
    stream = rec.stream(65536)
    photons = read(rec.write(tmp_path, "a.t3r", rec.timeharp(rec.timeharp_records(stream))))
    assert_is(photons, stream)
    assert photons.tick_s == pytest.approx(1e-7)
    assert photons.period_ns == 200.0


def test_sync_events_are_photons_only_when_asked(tmp_path):
    words = np.array([0 << 25 | 5, 64 << 25 | 7, 1 << 25 | 9], "<u4")
    path = rec.write(tmp_path, "a.ptu", rec.ptu(0x01010204, words.tobytes()))
    plain = read(path)
    np.testing.assert_array_equal(plain.detector, [0, 1])
    assert plain.metadata["n_sync"] == 1
    np.testing.assert_array_equal(read(path, sync_detector=9).detector, [0, 9, 1])
    with pytest.raises(PhotonFileError, match=r"sync_detector.*got 300"):
        read(path, sync_detector=300)


def test_period_from_the_caller_when_the_header_has_none(tmp_path):
    stream = rec.stream(1024)
    records = rec.hydraharp_records(stream, 1024, True, True)
    path = rec.write(tmp_path, "a.ht3", rec.hydraharp(2, True, records, sync_rate=0))
    with pytest.raises(PhotonFileError, match="period_ns"):
        read(path)
    assert read(path, period_ns=200.0).tick_s == pytest.approx(2e-7)
    with pytest.raises(PhotonFileError, match=r"period_ns.*-1"):
        read(path, period_ns=-1.0)


def test_duration_is_the_headers_only_when_the_records_bear_it_out(tmp_path):
    records = np.array([10, 127 << 25 | 1000], "<u4").tobytes()  # until 0.4096 s
    code = 0x01010304
    near = rec.write(tmp_path, "a.ptu", rec.ptu(code, records, TTResult_StopAfter=410))
    far = rec.write(tmp_path, "b.ptu", rec.ptu(code, records, TTResult_StopAfter=60_000))
    assert read(near).duration_s == pytest.approx(0.41)
    assert read(far).duration_s == pytest.approx(0.4096)


def test_delays_beyond_the_period_are_kept_and_counted(tmp_path):
    delays = [0, 3124, 3125, 30000]
    records = np.array([d << 10 | 1 for d in delays], "<u4").tobytes()
    photons = read(rec.write(tmp_path, "a.ptu", rec.ptu(0x01010304, records)))
    np.testing.assert_array_equal(photons.delay_ticks, delays)
    assert photons.warnings == (
        "2 of 4 delays lie beyond the laser period of 400 ns; they are kept as recorded",
    )


# Truncation, stale headers, nothing to read.


def test_truncated_file_is_refused_and_salvaged(tmp_path):
    stream = rec.stream(1024)
    whole = rec.ptu(0x01010304, rec.hydraharp_records(stream, 1024, True, True))
    path = rec.write(tmp_path, "a.ptu", whole[:-10])
    with pytest.raises(PhotonFileError, match=r"truncated.*salvage=True") as caught:
        read(path)
    assert str(path) in str(caught.value)
    photons = read(path, salvage=True)
    np.testing.assert_array_equal(photons.time_ticks, stream.times[: len(photons)])
    assert "truncated" in photons.warnings[0]
    assert str(len(whole)) not in photons.warnings[0]


def test_stale_counts_that_are_no_truncation(tmp_path):
    stream = rec.stream(33554432)
    records = rec.hydraharp_records(stream, 33554432, False, True)
    copied = rec.hydraharp(2, False, records, promised=10**9, acquisition_ms=0)
    photons = read(rec.write(tmp_path, "a.ht2", copied))
    assert_is(photons, stream, delays=False)
    assert "1000000000" in photons.warnings[0]
    short = rec.write(tmp_path, "b.ht2", rec.hydraharp(2, False, records, promised=3))
    assert "all were read" in read(short).warnings[0]
    assert len(read(short)) == len(stream.times)
    spare = rec.write(tmp_path, "c.ht2", rec.hydraharp(2, False, records) + b"ab")
    assert read(spare).warnings == ("2 bytes after the last record were ignored",)


def test_absurd_header_numbers_cost_no_memory(tmp_path):
    records = rec.hydraharp_records(rec.stream(1024), 1024, True, True)
    path = rec.write(tmp_path, "a.ptu", rec.ptu(0x01010304, records, promised=2**62))
    other = rec.write(tmp_path, "a.ht3", rec.hydraharp(2, True, records, promised=2**63))
    read(path, salvage=True)
    tracemalloc.start()
    for name in (path, other):
        with pytest.raises(PhotonFileError, match="truncated"):
            read(name)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    image = rec.write(tmp_path, "b.ht3", rec.hydraharp(2, True, records, image_words=2**30))
    with pytest.raises(PhotonFileError, match="image header"):
        read(image)


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


def test_damaged_tag_length_is_refused(tmp_path):
    content = bytearray(rec.ptu(0x01010304, bytes(8)))
    at = content.index(b"File_Comment") + 40
    for length in (-48, 2**40):
        content[at : at + 8] = length.to_bytes(8, "little", signed=True)
        with pytest.raises(PhotonFileError, match="File_Comment"):
            read(rec.write(tmp_path, "a.ptu", bytes(content)))


def test_content_goes_before_the_name(tmp_path):
    stream = rec.stream(1024)
    records = rec.hydraharp_records(stream, 1024, True, True)
    photons = read(rec.write(tmp_path, "a.pt3", rec.ptu(0x01010304, records)))
    assert_is(photons, stream)
    assert photons.warnings[-1].startswith("named .pt3 like PicoHarp")
    assert read(rec.write(tmp_path, "a.stream", rec.ptu(0x01010304, records))).warnings == ()


def test_records_of_another_type_are_refused(tmp_path):
    words = np.full(100, 80 << 25, "<u4")  # special codes that no instrument writes
    words[0] = 5
    path = rec.write(tmp_path, "a.ptu", rec.ptu(0x01010304, words.tobytes()))
    with pytest.raises(PhotonFileError, match="99 of 100 records are not defined"):
        read(path)


def test_time_running_backwards(tmp_path):
    path = rec.write(tmp_path, "a.ptu", rec.ptu(0x01010304, np.array([9, 5], "<u4").tobytes()))
    with pytest.raises(PhotonFileError, match="time runs backwards at photon 1"):
        read(path)


def test_unknown_options_name_the_known_ones(tmp_path):
    path = rec.write(tmp_path, "a.ptu", rec.ptu(0x01010304, bytes(8)))
    with pytest.raises(PhotonFileError, match=r"`width_s` is no option.*period_ns, sync_detector"):
        read(path, width_s=0.01)


# Becker & Hickl.


@pytest.mark.parametrize(
    ("record_format", "wraparound"),
    [("SPC-130", 2**12), ("SPC-600-256", 2**17), ("SPC-600-4096", 2**24)],
)
def test_becker_hickl(tmp_path, record_format, wraparound):
    stream = rec.stream(wraparound)
    path = rec.write(tmp_path, "a.spc", rec.becker_hickl(record_format, stream))
    photons = read(path, record_format=record_format, delay_tick_ns=0.01, period_ns=13.5)
    assert_is(photons, stream, markers=record_format == "SPC-130")
    assert photons.tick_s == pytest.approx(13.5e-9)
    assert photons.period_ns == 13.5


def test_becker_hickl_delays_need_their_unit(tmp_path):
    path = rec.write(tmp_path, "a.spc", rec.becker_hickl("SPC-130", rec.stream(4096)))
    photons = read(path)
    assert photons.delay_ticks is None
    assert "delay_tick_ns" in photons.warnings[0]
    settings = (0x28 << 4).to_bytes(2, "little") + b"#SP [SP_TAC_R,F,5.0e-08] #SP [SP_TAC_G,I,4]"
    rec.write(tmp_path, "a.set", settings)
    assert read(path).delay_tick_ns == pytest.approx(50 / 4 / 4096)
    rec.write(tmp_path, "a.set", b"x")
    assert read(path).delay_ticks is None


def test_becker_hickl_of_another_format(tmp_path):
    path = rec.write(tmp_path, "a.spc", rec.becker_hickl("SPC-600-256", rec.stream(2**17)))
    with pytest.raises(PhotonFileError, match=r"backwards.*record_format"):
        read(path)
    with pytest.raises(PhotonFileError, match="must be one of SPC-130"):
        read(path, record_format="SPC-1")


# Tables of time tags.


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
        ("time_s\nx\n0.1\n", {}, "must hold numbers, but holds text, first 'x'"),
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


def test_csv_cut_short(tmp_path):
    path = rec.write(tmp_path, "a.csv", b"time_ns,detector\n1,0\n2,1\n3")
    with pytest.raises(PhotonFileError, match="row 3"):
        read(path)
    photons = read(path, salvage=True)
    assert len(photons) == 2
    assert photons.warnings == ("the last line was cut short and was left out",)
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


# Traces.


def test_binned_counts(tmp_path):
    path = rec.write(tmp_path, "a.csv", b"time_s,counts\n0.00,3\n0.01,0\n0.02,5\n")
    trace = read(path, width_s=0.01)
    assert isinstance(trace, xr.Dataset)
    assert trace["counts"].dims == ("time", "gate")
    assert trace["counts"].dtype == np.uint32
    np.testing.assert_array_equal(trace["counts"][:, 0], [3, 0, 5])
    np.testing.assert_allclose(trace["time"], [0.0, 0.01, 0.02])
    assert trace.attrs["kind"] == "photons"
    assert trace.attrs["duration_s"] == pytest.approx(0.03)
    assert trace.attrs["digest"] != read(path, width_s=0.02).attrs["digest"]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("1\n2\n", {"width_s": 0.0}, "width_s"),
        ("1\n-2\n", {"width_s": 0.01}, "frame_s"),
        ("1\n2.5\n", {"width_s": 0.01}, "whole numbers"),
        ("0\n0\n", {"width_s": 0.01}, "holds no photons"),
        ("1\nnan\n", {"width_s": 0.01}, "row 2"),
        ("1\nx\n", {"width_s": 0.01}, "list of numbers"),
        ("1,2\n3,4\n", {"width_s": 0.01}, "choose the column"),
        ("1,2\n3,4\n", {"width_s": 0.01, "column": 2}, "choose the column"),
        ("1\n2\n", {"width_s": 0.01, "frame_s": 0.01}, "give one of them"),
        ("1\n2\n", {"frame_s": -1.0}, "frame_s"),
    ],
)
def test_count_errors(tmp_path, text, options, message):
    with pytest.raises(PhotonFileError, match=message):
        read(rec.write(tmp_path, "a.csv", text.encode()), **options)


def test_camera_text_and_binary(tmp_path):
    path = rec.write(tmp_path, "a.dat", b"1\t240.5\n2\t250.5\n")
    trace = read(path, frame_s=0.1, column=1, **CAMERA)
    assert trace.attrs["kind"] == "camera"
    np.testing.assert_array_equal(trace["counts"][:, 0], [240.5, 250.5])
    counts = np.arange(6, dtype="<i2").reshape(3, 2) + 240
    content = (3).to_bytes(4, "little") + (2).to_bytes(2, "little") + counts.tobytes()
    path = rec.write(tmp_path, "a.traces", content)
    second = read(path, frame_s=0.1, trace=1, **CAMERA)
    np.testing.assert_array_equal(second["counts"][:, 0], [241, 243, 245])
    with pytest.raises(PhotonFileError, match=r"2 camera traces.*0 to 1"):
        read(path)
    with pytest.raises(PhotonFileError, match="0 to 1, got 2"):
        read(path, frame_s=0.1, trace=2)
    named = rec.write(tmp_path, "a.ptu", content)
    warnings = json.loads(read(named, frame_s=0.1, trace=1, **CAMERA).attrs["warnings"])
    assert any("named .ptu" in text for text in warnings)


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


# Facts.


def test_facts():
    rng = np.random.default_rng(5)
    times = np.sort(rng.integers(0, 10_000_000, 50_000))
    photons = Photons(
        times,
        1e-6,
        delay_ticks=rng.exponential(50, times.size).astype(np.int32),
        delay_tick_ns=0.1,
        period_ns=400.0,
        duration_s=10.0,
        marker_ticks=np.array([1, 2, 3]),
        marker_codes=np.array([1, 1, 4], np.uint8),
    )
    facts = photon_facts(photons)
    counts = np.bincount(times // 10_000, minlength=1000)
    found = facts["counts_per_10_ms"]
    assert found["mean"] == pytest.approx(50.0)
    assert found["fano_factor"] == pytest.approx(counts.var(ddof=1) / counts.mean())
    assert found["q50"] == pytest.approx(np.median(counts), abs=1)
    assert found["largest"] == counts.max()
    assert facts["markers_per_code"] == {1: 2, 4: 1}
    assert len(facts["decay_sparkline"]) == 48
    assert facts["decay_sparkline"][0] == "█"
    json.dumps(facts)


def test_facts_of_little():
    facts = photon_facts(Photons(np.array([5]), 1e-6))
    assert facts["counts_per_10_ms"] is None
    assert facts["decay_sparkline"] is None
    dark = photon_facts(Photons(np.array([5]), 1e-6, duration_s=86_400.0))
    assert dark["counts_per_10_ms"]["n_bins"] == 8_640_000
    assert sparkline(np.zeros(3)) == "▁▁▁"
    assert sparkline(np.array([0.0, 0.5, 1.0])) == "▁▄█"


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


@pytest.mark.shared_data
def test_real_camera_traces(shared_data):
    folder = shared_data / "camera_traces"
    trace = read(folder / "binary_example.traces", frame_s=0.1, trace=0, **CAMERA)
    assert trace.sizes == {"time": 2004, "gate": 1}
    # neighbouring frames are alike only if traces and frames are told apart the right way
    counts = read(folder / "binary_example.traces", frame_s=0.1, trace=1, **CAMERA)["counts"][:, 0]
    assert np.corrcoef(counts[1:], counts[:-1])[0, 1] > 0.3
    text = read(folder / "plain_text_example.dat", frame_s=0.1, column=1, **CAMERA)
    assert text["counts"].values[0, 0] == pytest.approx(18.746152)
