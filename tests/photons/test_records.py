"""Files of photon records, PicoQuant's and Becker & Hickl's, are read as they were written."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import recordings as rec

from pncbayes.errors import PhotonFileError, PncbayesWarning
from pncbayes.photons import recall
from pncbayes.photons.binning import bin_photons
from pncbayes.photons.formats import read
from pncbayes.photons.ptu import RECORD_TYPES
from pncbayes.photons.recall import photons_of


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


def test_content_goes_before_the_name(tmp_path):
    stream = rec.stream(1024)
    records = rec.hydraharp_records(stream, 1024, True, True)
    photons = read(rec.write(tmp_path, "a.pt3", rec.ptu(0x01010304, records)))
    assert_is(photons, stream)
    assert photons.warnings[-1].startswith("named .pt3 like PicoHarp")
    assert read(rec.write(tmp_path, "a.stream", rec.ptu(0x01010304, records))).warnings == ()


# Truncation and stale headers.


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
    digest = photons.digest
    with pytest.warns(PncbayesWarning, match="no laser pulse"):
        trace = bin_photons(photons, gates=[0.0, 200.0])
    del photons
    recall._REMEMBERED.clear()
    assert photons_of(trace).digest == digest


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


def test_damaged_tag_length_is_refused(tmp_path):
    content = bytearray(rec.ptu(0x01010304, bytes(8)))
    at = content.index(b"File_Comment") + 40
    for length in (-48, 2**40):
        content[at : at + 8] = length.to_bytes(8, "little", signed=True)
        with pytest.raises(PhotonFileError, match="File_Comment"):
            read(rec.write(tmp_path, "a.ptu", bytes(content)))


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
