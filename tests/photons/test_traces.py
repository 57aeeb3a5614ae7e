"""Files of traces: counts binned by others, and camera brightness, as text and binary."""

from __future__ import annotations

import json

import numpy as np
import pytest
import recordings as rec
import xarray as xr

from pncbayes.errors import PhotonFileError
from pncbayes.photons.formats import read

CAMERA = {"gain": 1.0, "offset": 0.0, "read_noise": 0.0, "excess_factor": 1.0}


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
    with pytest.raises(PhotonFileError, match=r"step by 0\.01 s, but `width_s` is 0\.02"):
        read(path, width_s=0.02)
    with pytest.raises(PhotonFileError, match="give its `width_s`"):
        read(path)
    plain = rec.write(tmp_path, "b.csv", b"counts\n3\n0\n5\n")
    assert trace.attrs["digest"] != read(plain, width_s=0.02).attrs["digest"]
    assert "ends within a line" not in read(plain, width_s=0.02).attrs.get("warnings", "")
    cut = rec.write(tmp_path, "c.csv", b"counts\n30\n10\n5")
    assert "ends within a line" in read(cut, width_s=0.02).attrs["warnings"]


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
