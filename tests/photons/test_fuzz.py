"""Damaged files of every format give a clear error or a valid result: no other exception, no hang.

The bytes that steer a reader are at the start, so half of the flips go there.
"""

from __future__ import annotations

import tracemalloc
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import recordings as rec
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pncbayes.errors import PhotonFileError
from pncbayes.photons.formats import read
from pncbayes.photons.stream import Photons
from pncbayes.photons.writers import write_photons

MEMORY_BYTES = 64e6
# Options that let intact files of a format be read.
OPTIONS: dict[str, dict[str, object]] = {
    "camera.traces": {
        "frame_s": 0.1,
        "trace": 0,
        "gain": 1.0,
        "offset": 0.0,
        "read_noise": 0.0,
        "excess_factor": 1.0,
    },
    "counts.csv": {"width_s": 0.01},
}


@cache
def intact() -> dict[str, bytes]:
    """A small file of every format."""
    t3 = rec.stream(1024)
    t2 = rec.stream(33554432)
    tags_t3 = rec.hydraharp_records(t3, 1024, True, True)
    tags_t2 = rec.hydraharp_records(t2, 33554432, False, True)
    lines = "".join(f"{t},{d},{y}\n" for t, d, y in zip(*t3[:3], strict=True))
    return {
        "t3.ptu": rec.ptu(0x01010304, tags_t3),
        "t2.ptu": rec.ptu(0x00010207, tags_t2),
        "v1.ht3": rec.hydraharp(1, True, rec.hydraharp_records(t3, 1024, True, False)),
        "v2.ht2": rec.hydraharp(2, False, tags_t2),
        "a.pt3": rec.picoharp(True, rec.picoharp_records(rec.stream(65536), True)),
        "a.pt2": rec.picoharp(False, rec.picoharp_records(rec.stream(210698240), False)),
        "a.t3r": rec.timeharp(rec.timeharp_records(rec.stream(65536))),
        "a.spc": rec.becker_hickl("SPC-130", rec.stream(4096)),
        "tags.csv": b"time_ns,detector,delay_ns\n" + lines.encode(),
        "counts.csv": b"counts\n3\n4\n0\n7\n",
        "camera.traces": b"\x14\0\0\0\x02\0" + np.arange(40, dtype="<i2").tobytes(),
    }


@pytest.fixture(scope="module")
def containers(tmp_path_factory) -> Path:
    """Folder of small files of the formats whose containers a library reads."""
    folder = tmp_path_factory.mktemp("containers")
    stream = rec.stream(1024)
    photons = Photons(
        np.array(stream.times),
        4e-7,
        detector=np.array(stream.detectors),
        delay_ticks=np.array(stream.delays),
        delay_tick_ns=0.128,
        period_ns=400.0,
    )
    for suffix in (".h5", ".parquet"):
        write_photons(photons, folder / f"a{suffix}")
    np.savez(folder / "a.npz", time_ns=np.array(stream.times), delay_ns=np.array(stream.delays))
    np.savez_compressed(folder / "b.npz", time_ns=np.array(stream.times))
    return folder


def read_damaged(folder: Path, name: str, content: bytes, *, salvage: bool) -> None:
    """Read and judge: only `PhotonFileError` or a consistent result, in little memory."""
    path = rec.write(folder, name, content)
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = read(path, salvage=salvage, **OPTIONS.get(name, {}))
    except PhotonFileError as error:
        message = str(error)
    else:
        message = f"{name} was read"
        if isinstance(result, Photons):
            assert len(result) > 0
            assert np.all(np.diff(result.time_ticks) >= 0)
            assert np.isfinite(result.duration_s)
        else:
            assert isinstance(result, xr.Dataset)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MEMORY_BYTES
    assert name in message or "`" in message
    assert len(message) < 600 + len(str(path))


flips = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.booleans(), st.integers(0, 255)),
    min_size=1,
    max_size=6,
)


def damaged(content: bytes, changes: list[tuple[float, bool, int]], keep: float) -> bytes:
    """Overwrite bytes, half of them near the start, and cut the end off."""
    changed = bytearray(content)
    for where, is_near_start, value in changes:
        reach = min(len(changed), 1000) if is_near_start else len(changed)
        changed[int(where * reach)] = value
    return bytes(changed[: max(1, int(keep * len(changed)))])


@pytest.mark.parametrize("name", sorted(intact()))
def test_intact_files_are_read(tmp_path, name):
    path = rec.write(tmp_path, name, intact()[name])
    result = read(path, **OPTIONS.get(name, {}))
    assert isinstance(result, Photons | xr.Dataset)


@pytest.mark.parametrize("name", sorted(intact()))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=flips, keep=st.just(1.0) | st.floats(0, 1), salvage=st.booleans())
def test_damaged_files(tmp_path, name, changes, keep, salvage):
    read_damaged(tmp_path, name, damaged(intact()[name], changes, keep), salvage=salvage)


@pytest.mark.parametrize("name", ["a.h5", "a.parquet", "a.npz", "b.npz"])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=flips, keep=st.just(1.0) | st.floats(0, 1), salvage=st.booleans())
def test_damaged_containers(tmp_path, containers, name, changes, keep, salvage):
    content = (containers / name).read_bytes()
    read_damaged(tmp_path, name, damaged(content, changes, keep), salvage=salvage)


MAGIC = [b"", b"PQTTTR\0\x001.0.00\0\0", b"HydraHarp\0", b"PicoHarp 300", b"TimeHarp 200"]
MAGIC += [b"\x89HDF\r\n\x1a\n", b"PAR1", b"PK\x03\x04"]


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    magic=st.sampled_from(MAGIC),
    content=st.binary(max_size=300) | st.binary(min_size=800, max_size=1200),
    suffix=st.sampled_from([".ptu", ".ht3", ".pt3", ".t3r", ".spc", ".h5", ".csv", ".traces", ""]),
)
def test_random_bytes(tmp_path, magic, content, suffix):
    read_damaged(tmp_path, f"a{suffix}", magic + content, salvage=True)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=200) | st.text("0123456789.,;-e\n\t# nainf", max_size=200))
def test_random_text(tmp_path, text):
    read_damaged(tmp_path, "tags.csv", text.encode(), salvage=False)
