"""IDX files: what is read, and how damaged and hostile files are refused."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnx.data import fashion_mnist, mnist, read_idx

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array):
    array = np.asarray(array)
    code = CODES[array.dtype.str[1:]]
    head = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_mnist(folder, train=7, test=3, zipped=True, side=5):
    rng = np.random.default_rng(0)
    written = {}
    for part, n in (("train", train), ("t10k", test)):
        x = rng.integers(0, 256, (n, side, side + 1), dtype=np.uint8)
        y = rng.integers(0, 10, n, dtype=np.uint8)
        written[part] = x, y
        for kind, values in (("images-idx3", x), ("labels-idx1", y)):
            path = folder / f"{part}-{kind}-ubyte"
            if zipped:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(idx_bytes(values)))
            else:
                path.write_bytes(idx_bytes(values))
    return written


# ---------------------------------------------------------------------------------- whole files


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("load", [mnist, fashion_mnist])
def test_reads_what_was_written(tmp_path, zipped, load):
    written = write_mnist(tmp_path, zipped=zipped)
    data = load(tmp_path, dtype="uint8")
    for x, y, (image, label) in (
        (data.x_train, data.y_train, written["train"]),
        (data.x_test, data.y_test, written["t10k"]),
    ):
        np.testing.assert_array_equal(x[:, 0], image)
        np.testing.assert_array_equal(y, label)
        assert x.dtype == np.uint8 and y.dtype == np.int64 and x.shape[1] == 1
    assert len(data.classes) == 10
    scaled = load(str(tmp_path)).x_train
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, data.x_train / np.float32(255))


def test_names_with_a_dot_and_the_folder_tree_of_torchvision(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    written = write_mnist(raw, zipped=False)
    for path in list(raw.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    np.testing.assert_array_equal(mnist(tmp_path).y_train, written["train"][1])


def test_empty_test_set(tmp_path):
    write_mnist(tmp_path, test=0)
    data = mnist(tmp_path)
    assert data.x_test.shape == (0, 1, 5, 6) and data.y_test.shape == (0,)


@pytest.mark.parametrize("code", CODES)
def test_read_idx_of_every_type(tmp_path, code):
    values = (np.arange(24).reshape(2, 3, 4) - 3).astype(code)
    path = tmp_path / "values"
    path.write_bytes(idx_bytes(values))
    got = read_idx(path)
    assert got.dtype == np.dtype(code) and got.dtype.isnative
    np.testing.assert_array_equal(got, values)


# ------------------------------------------------------------------------- damaged and hostile


def test_missing_folder_names_the_files_and_the_way(tmp_path):
    with pytest.raises(FileNotFoundError) as info:
        mnist(tmp_path / "none")
    text = str(info.value)
    assert "mnist: expected a folder with train-images-idx3-ubyte[.gz], " in text
    assert "which is no folder" in text
    assert "mnist(download=True)" in text and "https://" in text


def test_missing_file_is_named(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"without t10k-labels-idx1-ubyte\[\.gz\]\."):
        mnist(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0", b"\1\0\x08\1\0\0\0\0", b"\0\0\x07\1\0\0\0\0", b"\0\0\x08\0", b"\x89PNG\r\n"],
)
def test_wrong_magic(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"read_idx: expected an IDX file .* got '.*file' with"):
        read_idx(path)


def test_end_in_the_header(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"\0\0\x08\3\0\0\0\1")
    with pytest.raises(ValueError, match=r"expected 3 dimensions .* got the end of '.*file'"):
        read_idx(path)


@pytest.mark.parametrize("change", [-1, 1])
def test_truncated_and_trailing(tmp_path, change):
    good = idx_bytes(np.zeros((4, 3), np.uint8))
    bad = good[:-1] if change < 0 else good + b"x"
    path = tmp_path / "file"
    path.write_bytes(bad)
    with pytest.raises(ValueError, match=rf"expected 24 bytes .* got {24 + change} bytes in '.*fi"):
        read_idx(path)
    path.write_bytes(gzip.compress(bad))
    expected = "got 11 in" if change < 0 else "expected the end of"
    with pytest.raises(ValueError, match=rf"read_idx: .*{expected} .*file"):
        read_idx(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_huge_counts_take_no_memory(tmp_path, zipped):
    # 2^96 bytes: must be refused from the header alone, without overflow.
    head = b"\0\0\x08\3" + b"\xff" * 12
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(head) if zipped else head)
    with pytest.raises(ValueError, match=r"expected 79,228,162,\d.* bytes for shape .*file"):
        read_idx(path)


def test_small_gzip_with_a_large_claim_is_refused_unread(tmp_path):
    # 1 GB claimed in a file of some 30 bytes: more than deflate can hold.
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(b"\0\0\x08\1" + struct.pack(">I", 1 << 30)))
    with pytest.raises(ValueError, match=r"got room for [\d,]+ bytes at most in '.*file'"):
        read_idx(path)


@pytest.mark.parametrize("dims", [(1,) * 200, (0, *(0xFFFFFFFF,) * 5)])
def test_shapes_that_no_array_can_have(tmp_path, dims):
    path = tmp_path / "file"
    values = b"" if 0 in dims else b"x"
    path.write_bytes(bytes([0, 0, 8, len(dims)]) + struct.pack(f">{len(dims)}I", *dims) + values)
    with pytest.raises(ValueError, match=r"read_idx: expected a shape that an array can have, .*file"):
        read_idx(path)


@pytest.mark.parametrize("cut", [1, 8, 12])
def test_broken_gzip(tmp_path, cut):
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(idx_bytes(np.arange(200, dtype=np.uint8)))[:-cut])
    with pytest.raises(ValueError, match=r"read_idx: expected a whole gzip file, got '.*file'"):
        read_idx(path)


def test_flipped_bit_in_gzip(tmp_path):
    content = bytearray(gzip.compress(idx_bytes(np.arange(200, dtype=np.uint8))))
    content[60] ^= 0x10
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="read_idx: expected"):
        read_idx(path)


def test_label_out_of_range(tmp_path):
    write_mnist(tmp_path, zipped=False)
    path = tmp_path / "train-labels-idx1-ubyte"
    path.write_bytes(idx_bytes(np.array([0, 1, 10, 3, 4, 5, 11], np.uint8)))
    with pytest.raises(
        ValueError,
        match=r"mnist: expected labels in \[0, 10\) in '.*train-labels.*got 10 in record 2",
    ):
        mnist(tmp_path)


def test_labels_of_another_count(tmp_path):
    write_mnist(tmp_path, zipped=False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(6, np.uint8)))
    with pytest.raises(ValueError, match=r"as many labels as images, got 7 images in .* 6 labels"):
        mnist(tmp_path)


def test_images_and_labels_swapped(tmp_path):
    write_mnist(tmp_path, zipped=False)
    images, labels = (tmp_path / f"train-{k}-ubyte" for k in ("images-idx3", "labels-idx1"))
    images.write_bytes(labels.read_bytes())
    with pytest.raises(ValueError, match=r"expected unsigned bytes in 3 dimensions in '.*images"):
        mnist(tmp_path)


def test_other_type_images_without_pixels_and_two_sizes(tmp_path):
    write_mnist(tmp_path, zipped=False)
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(idx_bytes(np.zeros((3, 5, 6), np.float32)))
    with pytest.raises(ValueError, match=r"expected unsigned bytes .* got float32 of shape"):
        mnist(tmp_path)
    path.write_bytes(idx_bytes(np.zeros((3, 0, 6), np.uint8)))
    with pytest.raises(ValueError, match=r"expected images with pixels .* got shape \(3, 0, 6\)"):
        mnist(tmp_path)
    path.write_bytes(idx_bytes(np.zeros((3, 6, 6), np.uint8)))
    with pytest.raises(ValueError, match=r"images of one size, got \(5, 6\) and \(6, 6\) in"):
        mnist(tmp_path)


def test_dtype(tmp_path):
    with pytest.raises(TypeError, match=r"mnist: expected dtype to be float32, float64 or uint8"):
        mnist(tmp_path, dtype="int64")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_mutated_files_raise_value_errors_only(tmp_path_factory, data):
    good = idx_bytes(np.arange(30, dtype=np.uint8).reshape(5, 3, 2))
    zipped = data.draw(st.booleans())
    content = bytearray(gzip.compress(good) if zipped else good)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(1, len(content))) :]
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(content)
    try:
        assert read_idx(path).nbytes <= 1032 * len(content)
    except ValueError as error:
        assert "file" in str(error)
