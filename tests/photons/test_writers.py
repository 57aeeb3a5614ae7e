"""What is written is read back equal, by us and by others, and a failure leaves nothing behind."""

from __future__ import annotations

import errno
import os

import numpy as np
import ptufile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pncbayes.errors import PhotonFileError
from pncbayes.photons.formats import read
from pncbayes.photons.stream import Photons
from pncbayes.photons.writers import PtuWriter, write_photons

SUFFIXES = (".ptu", ".h5", ".hdf5", ".parquet")


def recording(*, has_delays: bool = True, n_photons: int = 2000, seed: int = 1) -> Photons:
    """Photons with a long dark stretch, two detectors and a marker before, in and after them."""
    rng = np.random.default_rng(seed)
    tick_s = 4e-7 if has_delays else 1e-12
    times = np.sort(rng.integers(0, int(0.5 / tick_s), n_photons))
    times[n_photons // 2 :] += int(2.0 / tick_s)
    return Photons(
        times,
        tick_s,
        detector=rng.integers(0, 2, n_photons).astype(np.uint8),
        delay_ticks=rng.integers(0, 3125, n_photons).astype(np.int32) if has_delays else None,
        delay_tick_ns=0.128 if has_delays else None,
        period_ns=400.0 if has_delays else None,
        duration_s=3.00012345678,
        marker_ticks=np.array([0, times[100], times[-1] + 1]),
        marker_codes=np.array([1, 15, 2], np.uint8),
        instrument="test bench",
    )


def assert_equal(found: Photons, wanted: Photons) -> None:
    assert found.digest == wanted.digest
    np.testing.assert_array_equal(found.marker_ticks, wanted.marker_ticks)
    np.testing.assert_array_equal(found.marker_codes, wanted.marker_codes)
    assert found.warnings == ()
    assert found.instrument == wanted.instrument


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("has_delays", [True, False])
def test_written_is_read_back_equal(tmp_path, suffix, has_delays):
    photons = recording(has_delays=has_delays)
    path = write_photons(photons, tmp_path / f"dot{suffix}")
    assert_equal(read(path), photons)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("has_delays", [True, False])
def test_ptufile_reads_what_we_write(tmp_path, has_delays):
    photons = recording(has_delays=has_delays)
    path = write_photons(photons, tmp_path / "dot.ptu")
    with ptufile.PtuFile(path) as file:
        records = file.decode_records()
        assert file.number_records == records.size
        assert file.tcspc_resolution == pytest.approx(1.28e-10 if has_delays else 1e-12)
    found = records[records["channel"] >= 0]
    np.testing.assert_array_equal(found["time"], photons.time_ticks)
    np.testing.assert_array_equal(found["channel"], photons.detector)
    if has_delays:
        np.testing.assert_array_equal(found["dtime"], photons.delay_ticks)
    np.testing.assert_array_equal(records["marker"][records["marker"] > 0], photons.marker_codes)


def test_tttrlib_reads_what_we_write(tmp_path):
    tttrlib = pytest.importorskip("tttrlib")
    photons = recording()
    path = write_photons(photons, tmp_path / "dot.ptu")
    file = tttrlib.TTTR(str(path), "PTU")
    is_photon = np.asarray(file.event_types) == 0
    np.testing.assert_array_equal(np.asarray(file.macro_times)[is_photon], photons.time_ticks)
    np.testing.assert_array_equal(np.asarray(file.micro_times)[is_photon], photons.delay_ticks)
    np.testing.assert_array_equal(np.asarray(file.routing_channels)[is_photon], photons.detector)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("has_delays", [True, False])
def test_phconvert_finds_our_photon_hdf5_valid(tmp_path, has_delays):
    phconvert = pytest.importorskip("phconvert")
    photons = recording(has_delays=has_delays)
    path = write_photons(photons, tmp_path / "dot.h5")
    file = phconvert.hdf5.load_photon_hdf5(str(path))
    np.testing.assert_array_equal(file.root.photon_data.timestamps.read(), photons.time_ticks)
    file.close()


def test_chunks_make_the_same_file_as_one(tmp_path):
    photons = recording()
    with PtuWriter(
        tmp_path / "chunks.ptu",
        tick_s=photons.tick_s,
        delay_tick_ns=photons.delay_tick_ns,
        instrument=photons.instrument,
        duration_s=photons.duration_s,
    ) as writer:
        writer.write([], [], [], marker_ticks=[0], marker_codes=[1])
        for part in np.array_split(np.arange(len(photons)), 7):
            times = photons.time_ticks[part]
            marks = np.isin(photons.marker_ticks, times) & (photons.marker_ticks > 0)
            writer.write(
                times,
                photons.detector[part],
                photons.delay_ticks[part],
                marker_ticks=photons.marker_ticks[marks],
                marker_codes=photons.marker_codes[marks],
            )
            assert not (tmp_path / "chunks.ptu").exists()
        writer.write([], [], [], marker_ticks=photons.marker_ticks[-1:], marker_codes=[2])
        assert writer.n_photons == len(photons)
    assert_equal(read(tmp_path / "chunks.ptu"), photons)


@settings(max_examples=30)
@given(
    steps=st.lists(st.integers(0, 5000) | st.integers(0, 10**7), min_size=1, max_size=40),
    marks=st.lists(st.integers(0, 10**8), max_size=5),
    has_delays=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_stream_survives_ptu(tmp_path_factory, steps, marks, has_delays, seed):
    rng = np.random.default_rng(seed)
    photons = Photons(
        np.cumsum(steps),
        1e-6,
        detector=rng.integers(0, 64, len(steps)).astype(np.uint8),
        delay_ticks=rng.integers(0, 32768, len(steps)).astype(np.int32) if has_delays else None,
        delay_tick_ns=0.032,
        period_ns=1000.0 if has_delays else None,
        marker_ticks=np.sort(np.array(marks, np.int64)),
        marker_codes=rng.integers(1, 16, len(marks)).astype(np.uint8),
    )
    found = read(write_photons(photons, tmp_path_factory.mktemp("any") / "a.ptu"))
    np.testing.assert_array_equal(found.time_ticks, photons.time_ticks)
    np.testing.assert_array_equal(found.detector, photons.detector)
    np.testing.assert_array_equal(found.marker_ticks, photons.marker_ticks)
    np.testing.assert_array_equal(found.marker_codes, photons.marker_codes)
    if has_delays:
        np.testing.assert_array_equal(found.delay_ticks, photons.delay_ticks)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"dot{suffix}"
    path.write_bytes(b"the old file")

    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(PhotonFileError, match="No space left") as caught:
        write_photons(recording(), path)
    assert str(path) in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"the old file"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_folder(tmp_path, suffix):
    with pytest.raises(PhotonFileError, match="cannot be written"):
        write_photons(recording(), tmp_path / "nowhere" / f"dot{suffix}")


def test_error_in_the_block_leaves_nothing_behind(tmp_path):
    writer = PtuWriter(tmp_path / "a.ptu", tick_s=1e-9)

    def fill():
        with writer:
            writer.write([1, 2])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fill()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PhotonFileError, match="closed"):
        writer.write([3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([5, 3],), "backwards"),
        (([-1],), "whole numbers from 0"),
        (([0.5],), "whole numbers"),
        ((["a"],), "list of"),
        (([1], [64]), "from 0 to 63"),
        (([1, 2], [0]), "list of 2 numbers"),
        (([1], [0], [5]), "if and only if"),
    ],
)
def test_chunks_that_do_not_fit(tmp_path, arguments, message):
    with (
        pytest.raises(PhotonFileError, match=message),
        PtuWriter(tmp_path / "a.ptu", tick_s=1e-9) as writer,
    ):
        writer.write(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_chunks_backwards_against_each_other(tmp_path):
    with PtuWriter(tmp_path / "a.ptu", tick_s=1e-9) as writer:
        writer.write([5])
        with pytest.raises(PhotonFileError, match="against the one before"):
            writer.write([4])


@pytest.mark.parametrize(
    ("changes", "name", "message"),
    [
        ({}, "a.xyz", r"cannot write \.xyz; choose one of \.ptu"),
        ({"period_ns": None}, "a.ptu", "need the laser period"),
        ({"tick_s": 1e-9, "period_ns": 400.0}, "a.ptu", "count laser periods"),
        ({"delay_ticks": np.array([1, 40_000])}, "a.ptu", "0 to 32767"),
    ],
)
def test_streams_that_do_not_fit_the_format(tmp_path, changes, name, message):
    arguments = {
        "time_ticks": np.array([1, 2]),
        "tick_s": 4e-7,
        "delay_ticks": np.array([1, 2]),
        "delay_tick_ns": 0.128,
        "period_ns": 400.0,
        **changes,
    }
    photons = Photons(**arguments)
    with pytest.raises(PhotonFileError, match=message):
        write_photons(photons, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_write(tmp_path):
    with pytest.raises(PhotonFileError, match="no photons to write"):
        write_photons(Photons(np.empty(0, np.int64), 1e-9), tmp_path / "a.ptu")
    with pytest.raises(PhotonFileError, match="tick_s"):
        PtuWriter(tmp_path / "a.ptu", tick_s=0.0)
    assert list(tmp_path.iterdir()) == []


def test_dark_end_is_in_the_records(tmp_path):
    photons = Photons(np.array([5]), 1e-6, duration_s=60.0)
    path = write_photons(photons, tmp_path / "a.ptu")
    with ptufile.PtuFile(path) as file:
        records = file.decode_records()
    assert records["time"].max() * 1e-6 == pytest.approx(60.0, abs=34.0)
    assert read(path).duration_s == 60.0
