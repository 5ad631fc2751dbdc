"""CIFAR in the binary version; the pickled version is recognised and never opened."""

import io
import tarfile

import numpy as np
import pytest

from nnx.data import _download, cifar, cifar10, cifar100

NAMES10 = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]


def records(n, label_limits, seed):
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.integers(0, k, n) for k in label_limits], axis=1).astype(np.uint8)
    return np.hstack([labels, rng.integers(0, 256, (n, 3072), dtype=np.uint8)])


def write_cifar10(folder):
    folder.mkdir(exist_ok=True)
    written = {name: records(2 + i, (10,), i) for i, name in enumerate(NAMES10)}
    for name, values in written.items():
        (folder / name).write_bytes(values.tobytes())
    return written


def write_cifar100(folder):
    folder.mkdir(exist_ok=True)
    written = {"train.bin": records(6, (20, 100), 0), "test.bin": records(3, (20, 100), 1)}
    for name, values in written.items():
        (folder / name).write_bytes(values.tobytes())
    return written


@pytest.mark.parametrize("below", ["", "cifar-10-batches-bin"])
def test_cifar10_reads_what_was_written(tmp_path, below):
    written = write_cifar10(tmp_path / below)
    data = cifar10(tmp_path, dtype="uint8")
    train = np.concatenate([written[name] for name in NAMES10[:5]])
    np.testing.assert_array_equal(data.y_train, train[:, 0])
    np.testing.assert_array_equal(data.x_train, train[:, 1:].reshape(-1, 3, 32, 32))
    np.testing.assert_array_equal(data.y_test, written["test_batch.bin"][:, 0])
    assert data.x_train.dtype == np.uint8 and data.y_train.dtype == np.int64
    assert data.classes[0] == "airplane" and len(data.classes) == 10
    scaled = cifar10(tmp_path)
    assert scaled.x_train.dtype == np.float32
    np.testing.assert_array_equal(scaled.x_train, data.x_train / np.float32(255))


def test_cifar100_labels_and_names(tmp_path):
    written = write_cifar100(tmp_path)
    data = cifar100(tmp_path)
    np.testing.assert_array_equal(data.y_train, written["train.bin"][:, 1])
    assert data.classes == tuple(map(str, range(100)))
    coarse = cifar100(tmp_path, labels="coarse")
    np.testing.assert_array_equal(coarse.y_test, written["test.bin"][:, 0])
    np.testing.assert_array_equal(coarse.x_test, data.x_test)
    names = [f"name_{i}" for i in range(20)]
    (tmp_path / "coarse_label_names.txt").write_text("\n".join(names) + "\n\n")
    assert cifar100(tmp_path, labels="coarse").classes == tuple(names)
    (tmp_path / "fine_label_names.txt").write_text("one\ntwo\n")
    with pytest.raises(ValueError, match=r"cifar100: expected 100 names in '.*fine_.*', got 2"):
        cifar100(tmp_path)
    with pytest.raises(ValueError, match=r"cifar100: expected labels to be one of 'fine', 'coarse'"):
        cifar100(tmp_path, labels="both")


def test_python_version_is_named_and_not_opened(tmp_path, monkeypatch):
    (tmp_path / "data_batch_1").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")

    def refuse(*args, **kwargs):
        raise AssertionError("the file was opened")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(FileNotFoundError, match=r"got the python version in .* It is pickle"):
        cifar10(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"cifar100: expected the binary version"):
        cifar100(tmp_path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"with data_batch_1\.bin, .* which is no folder"):
        cifar10(tmp_path / "none")
    write_cifar10(tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"without data_batch_3\.bin\. Get them from http"):
        cifar10(tmp_path)


@pytest.mark.parametrize("content", [b"", b"x", bytes(3073 * 2 - 1), bytes(3073 + 5)])
def test_wrong_sizes(tmp_path, content):
    write_cifar10(tmp_path)
    (tmp_path / "data_batch_2.bin").write_bytes(content)
    with pytest.raises(ValueError, match=r"records of 3,073 bytes in '.*data_batch_2\.bin', got"):
        cifar10(tmp_path)


def test_label_out_of_range(tmp_path):
    written = write_cifar10(tmp_path)
    bad = written["test_batch.bin"].copy()
    bad[4, 0] = 10
    (tmp_path / "test_batch.bin").write_bytes(bad.tobytes())
    with pytest.raises(ValueError, match=r"\[0, 10\) in '.*test_batch.bin', got 10 in record 4"):
        cifar10(tmp_path)
    written = write_cifar100(tmp_path)
    bad = written["train.bin"].copy()
    bad[1, 0] = 20  # the coarse label is checked, asked for or not
    (tmp_path / "train.bin").write_bytes(bad.tobytes())
    with pytest.raises(ValueError, match=r"\[0, 20\) in '.*train.bin', got 20 in record 1"):
        cifar100(tmp_path)


def test_unpack_takes_only_the_named_files(tmp_path):
    archive = tmp_path / "archive.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in (
            "cifar-100-binary/train.bin",
            "../../escape.bin",
            "/etc/test.bin",
            "readme.html",
        ):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("cifar-100-binary/fine_label_names.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    root = tmp_path / "root"
    root.mkdir()
    cifar._unpack(archive, root, ("train.bin", "test.bin"), ("fine_label_names.txt",))
    assert sorted(p.name for p in root.iterdir()) == ["test.bin", "train.bin"]
    assert not list(tmp_path.rglob("escape.bin"))


def test_write_atomic_leaves_nothing_behind_when_it_fails(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()  # a folder cannot be replaced by a file
    with pytest.raises(OSError):
        _download.write_atomic(target, b"abc")
    assert list(tmp_path.iterdir()) == [target]
