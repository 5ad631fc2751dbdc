"""Files: round trips, hostile files, and writing that a crash cannot tear."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnx
from nnx import io


def test_round_trip_of_all_types(tmp_path):
    arrays = {
        name: np.array([0, 1, 1]).astype(name)
        for name in ("bool", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8")
    }
    arrays |= {"zero-d": np.array(3.5), "empty": np.zeros((0, 3), np.float32)}
    nnx.save(arrays, tmp_path / "a.safetensors")
    loaded = nnx.load(tmp_path / "a.safetensors")
    assert sorted(loaded) == sorted(arrays)
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        assert loaded[name].shape == array.shape
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].flags.writeable


def test_strides_and_byte_order_do_not_matter(tmp_path):
    x = np.arange(24.0).reshape(2, 3, 4)
    arrays = {
        "transposed": x.transpose(2, 0, 1),
        "stepped": x[:, ::2, ::-1],
        "channels last": np.ascontiguousarray(x.transpose(0, 2, 1)).transpose(0, 2, 1),
        "big": x.astype(">f8"),
        "fortran": np.asfortranarray(x),
    }
    nnx.save(arrays, tmp_path / "a")
    for name, array in nnx.load(tmp_path / "a").items():
        np.testing.assert_array_equal(array, arrays[name])
        assert array.flags.c_contiguous and array.dtype.isnative


def test_saves_a_model_tensors_and_numbers(tmp_path):
    model = nnx.nn.Linear(3, 2)
    nnx.save(model, tmp_path / "m")
    other = nnx.nn.Linear(3, 2)
    other.load_state_dict(nnx.load(tmp_path / "m"))
    np.testing.assert_array_equal(model.weight.data, other.weight.data)
    nnx.save({"t": nnx.tensor([1.0, 2.0]), "n": 7, "f": 0.5}, str(tmp_path / "t"))
    loaded = nnx.load(str(tmp_path / "t"))
    assert loaded["t"].dtype == np.float32 and loaded["n"] == 7 and loaded["f"] == 0.5


def test_reads_what_the_package_writes_and_the_other_way(tmp_path):
    from safetensors.numpy import load_file, save_file

    x = {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}
    save_file(x, tmp_path / "theirs")
    np.testing.assert_array_equal(nnx.load(tmp_path / "theirs")["w"], x["w"])
    nnx.save(x, tmp_path / "ours", {"made by": "a test"})
    np.testing.assert_array_equal(load_file(tmp_path / "ours")["w"], x["w"])
    assert io.load_with_metadata(tmp_path / "ours")[1] == {"made by": "a test"}


def test_saving_over_the_file_that_was_loaded(tmp_path):
    path = tmp_path / "w"
    x = np.random.default_rng(0).standard_normal((100, 100))
    nnx.save({"x": x}, path)
    for _ in range(3):
        nnx.save(nnx.load(path), path)
    np.testing.assert_array_equal(nnx.load(path)["x"], x)


def test_the_input_is_not_changed(tmp_path):
    x = np.arange(6.0).reshape(2, 3).T
    x.flags.writeable = False
    before = x.copy()
    nnx.save({"x": x}, tmp_path / "x")
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ([1, 2], r"save: expected a Module or a dict of arrays, got list"),
        ({1: np.zeros(2)}, r"save: expected the names of a state dict to be strings .* got 1"),
        ({"__metadata__": np.zeros(2)}, r"strings other than '__metadata__'"),
        ({"a": np.zeros(2, complex)}, r"save: expected 'a' to be an array of bool, .* complex128"),
        ({"a": np.array(["x"])}, r"save: expected 'a' to be an array .* got ndarray of dtype <U1"),
        ({"a": object()}, r"save: expected 'a' to be an array .* got object of dtype object"),
    ],
)
def test_errors_of_save_leave_no_file(tmp_path, state, text):
    with pytest.raises(TypeError, match=text):
        nnx.save(state, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_metadata_must_be_strings(tmp_path):
    with pytest.raises(TypeError, match=r"save: expected metadata to map strings to strings, got 'a': 1"):
        nnx.save({}, tmp_path / "x", {"a": 1})


def _file(header, data=b""):
    header = header if isinstance(header, bytes) else header.encode()
    return struct.pack("<Q", len(header)) + header + data


def _entry(shape="[1]", dtype="F32", offsets="[0,4]"):
    return f'{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}'


HOSTILE = {
    "empty": b"",
    "short": b"1234567",
    "header longer than the file": struct.pack("<Q", 1000) + b"{}",
    "huge header": b"\xff" * 8 + b"{}",
    "no JSON": _file("hello"),
    "no object": _file("[1]"),
    "bad utf-8": _file(b'{"\xff":1}'),
    "deep nesting": _file('{"a":' + "[" * 100_000 + "]" * 100_000 + "}"),
    "name twice": _file(f'{{"a":{_entry()},"a":{_entry()}}}', b"0000"),
    "overlap": _file(f'{{"a":{_entry()},"b":{_entry()}}}', b"0000"),
    "hole": _file(f'{{"a":{_entry(offsets="[4,8]")}}}', b"00000000"),
    "bytes left over": _file(f'{{"a":{_entry()}}}', b"00000000"),
    "offsets beyond the end": _file(f'{{"a":{_entry("[2]", offsets="[0,8]")}}}', b"0000"),
    "shape and offsets disagree": _file(f'{{"a":{_entry("[2]")}}}', b"0000"),
    "shape overflows": _file(f'{{"a":{_entry("[4611686018427387904,4]", offsets="[0,0]")}}}'),
    "negative": _file(f'{{"a":{_entry("[-1]")}}}', b"0000"),
    "metadata of numbers": _file('{"__metadata__":{"a":1}}'),
    "pickle": b"\x80\x04\x95abcdefghijklmnop",
    "zip": b"PK\x03\x04abcdefghijklmnop",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_value_errors_that_name_the_file(tmp_path, name):
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(ValueError, match=r"load: expected '.*hostile.safetensors' to be a safetensors"):
        nnx.load(path)


@pytest.mark.parametrize("name", ["pickle", "zip"])
def test_pickles_get_a_hint(tmp_path, name):
    path = tmp_path / "x.pt"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(ValueError, match=r"a zip archive or a pickle .* convert with safetensors.torch"):
        nnx.load(path)


def test_types_that_numpy_lacks(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(_file(f'{{"a":{_entry("[4]", "F8_E4M3")}}}', b"0000"))
    with pytest.raises(ValueError, match=r"load: expected types among .* got F8_E4M3 for 'a'"):
        nnx.load(path)
    bits = np.array([1.0, -2.5, np.inf, 1e30], np.float32).view(np.uint32) >> 16
    path.write_bytes(_file(f'{{"a":{_entry("[4]", "BF16", "[0,8]")}}}', bits.astype("<u2").tobytes()))
    a = nnx.load(path)["a"]
    assert a.dtype == np.float32
    np.testing.assert_array_equal(a, (bits.astype(np.uint32) << 16).view(np.float32))


def test_a_byte_that_is_no_bool_is_true(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(_file(f'{{"a":{_entry("[4]", "BOOL")}}}', b"\x00\x01\x02\xff"))
    assert nnx.load(path)["a"].view(np.uint8).tolist() == [0, 1, 1, 1]


def test_missing_file():
    with pytest.raises(FileNotFoundError, match=r"nowhere.safetensors"):
        nnx.load("nowhere.safetensors")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.binary(max_size=12), st.booleans())
def test_a_damaged_file_loads_or_is_a_value_error(tmp_path_factory, place, junk, cut):
    path = tmp_path_factory.mktemp("fuzz") / "x"
    nnx.save({"a": np.arange(12.0), "b": np.ones((2, 3), np.float32), "c": np.array(True)}, path)
    data = bytearray(path.read_bytes())
    place %= len(data)
    data[place : place + len(junk)] = junk
    path.write_bytes(bytes(data[:place] if cut else data))
    try:
        loaded = nnx.load(path)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert all(isinstance(a, np.ndarray) for a in loaded.values())


# -- writing in one step ---------------------------------------------------------------------------


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, failing):
    path = tmp_path / "w"
    nnx.save({"x": np.ones(3)}, path)

    def fail(*args):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="the disk is full"):
        nnx.save({"x": np.zeros(3)}, path)
    monkeypatch.undo()
    assert nnx.load(path)["x"].tolist() == [1, 1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["w"]


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is a POSIX matter")
@pytest.mark.parametrize("moment", ["fsync", "replace", "chmod"])
def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path, moment):
    path = tmp_path / "w"
    nnx.save({"x": np.ones(3)}, path)
    program = f"""
import os, signal, numpy as np, nnx
os.{moment} = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
nnx.save({{"x": np.zeros(3)}}, {str(path)!r})
"""
    result = subprocess.run([sys.executable, "-c", program], check=False)
    assert result.returncode == -9
    assert nnx.load(path)["x"].tolist() == [1, 1, 1]
    assert len(list(tmp_path.iterdir())) == 2  # what was begun lies under another name
    (tmp_path / ".keep.tmp").touch()
    io.remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".keep.tmp", "w"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_permissions(tmp_path):
    old = os.umask(0o027)
    try:
        io.write_atomic(tmp_path / "new", b"1")
        assert os.stat(tmp_path / "new").st_mode & 0o777 == 0o640
        os.chmod(tmp_path / "new", 0o604)
        io.write_atomic(tmp_path / "new", b"2")
        assert os.stat(tmp_path / "new").st_mode & 0o777 == 0o604
    finally:
        os.umask(old)
    assert (tmp_path / "new").read_bytes() == b"2"


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need rights on Windows")
def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "file")
    io.write_atomic(tmp_path / "link", b"1")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "file").read_bytes() == b"1"


def test_errors_of_paths(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"The folder of the file does not exist: .*nowhere.w"):
        nnx.save({}, tmp_path / "nowhere" / "w")
    with pytest.raises(IsADirectoryError, match=r"There is a folder of this name"):
        nnx.save({}, tmp_path)


def test_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nnx.save({"a": np.ones(1)}, "w")
    assert nnx.load("w")["a"] == 1


# -- JSON ------------------------------------------------------------------------------------------


def test_json_round_trip(tmp_path):
    value = {"a": [1, 2.5, None, True], "ü": {"x": "y"}, "t": (1, 2), "nan": [float("nan"), 1e999]}
    io.write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {
        "a": [1, 2.5, None, True], "ü": {"x": "y"}, "t": [1, 2], "nan": [None, None]
    }  # fmt: skip
    assert io.read_json(tmp_path / "a.json")["a"] == [1, 2.5, None, True]


def test_broken_json(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"read_json: expected '.*a.json' to be JSON"):
        io.read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"read_json: expected '.*a.json' to be JSON"):
        io.read_json(tmp_path / "a.json")
    with pytest.raises(TypeError):
        io.write_json(tmp_path / "b.json", {"a": object()})
    assert not (tmp_path / "b.json").exists()
