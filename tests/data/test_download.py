"""Downloads: only when asked for, into the cache, checked. No test leaves this machine."""

import gzip
import hashlib
import http.server
import io
import sys
import tarfile
import threading
import types
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from nnx.data import _download, cache_dir, cifar, cifar10, idx, mnist


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NNX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pooch(monkeypatch):
    """A stand-in for pooch that keeps what it is asked for in `calls` and serves `files`."""
    module = types.ModuleType("pooch")
    module.calls, module.files = [], {}

    def retrieve(url, known_hash, fname, path):
        module.calls.append((url, known_hash))
        path.mkdir(parents=True, exist_ok=True)
        (path / fname).write_bytes(module.files[fname])
        return str(path / fname)

    module.retrieve = retrieve
    monkeypatch.setitem(sys.modules, "pooch", module)
    return module


def mnist_files():
    files = {}
    for part, n in (("train", 4), ("t10k", 2)):
        images = b"\0\0\x08\3" + b"".join(k.to_bytes(4, "big") for k in (n, 2, 2)) + bytes(4 * n)
        labels = b"\0\0\x08\1" + n.to_bytes(4, "big") + bytes(n)
        files[f"{part}-images-idx3-ubyte.gz"] = gzip.compress(images)
        files[f"{part}-labels-idx1-ubyte.gz"] = gzip.compress(labels)
    return files


def cifar10_archive():
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name in (*cifar._TRAIN10, "test_batch.bin"):
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = 3073
            tar.addfile(info, io.BytesIO(bytes(3073)))
    return content.getvalue()


def test_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("NNX_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("NNX_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "nnx"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "nnx"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_dir() == Path.home() / "Library" / "Caches" / "nnx"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_dir() == tmp_path / "local" / "nnx"


def test_nothing_is_downloaded_unasked(cache, pooch):
    with pytest.raises(FileNotFoundError, match=r"mnist: expected a folder with .*download=True"):
        mnist()
    assert not pooch.calls and not cache.exists()


def test_download_goes_to_the_cache_with_a_checksum_once(cache, pooch, tmp_path):
    pooch.files = mnist_files()
    data = mnist(tmp_path / "absent", download=True)
    assert data.x_train.shape == (4, 1, 2, 2)
    assert sorted(p.name for p in (cache / "mnist").iterdir()) == sorted(pooch.files)
    assert {sum_ for _, sum_ in pooch.calls} == {f"sha256:{s}" for s in idx._MNIST[1].values()}
    mnist()
    mnist(download=True)
    assert len(pooch.calls) == 4


def test_interrupted_download_is_completed(cache, pooch):
    pooch.files = mnist_files()
    mnist(download=True)
    (cache / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"without t10k-labels-idx1-ubyte\[\.gz\]"):
        mnist()
    assert len(mnist(download=True).y_test) == 2


def test_folder_of_the_user_is_never_filled(cache, pooch, tmp_path):
    pooch.files = mnist_files()
    own = tmp_path / "own"
    own.mkdir()
    with pytest.raises(FileNotFoundError, match=r"without train-images"):
        mnist(own, download=True)
    assert not pooch.calls and not list(own.iterdir())


def test_cifar_archive_is_unpacked_and_removed(cache, pooch):
    pooch.files = {"cifar-10-binary.tar.gz": cifar10_archive()}
    data = cifar10(download=True)
    assert data.x_train.shape == (5, 3, 32, 32) and data.x_test.shape == (1, 3, 32, 32)
    names = sorted(p.name for p in (cache / "cifar10").iterdir())
    assert names == sorted((*cifar._TRAIN10, "test_batch.bin"))
    assert pooch.calls == [(cifar._CIFAR10.url, f"sha256:{cifar._CIFAR10.sha256}")]


def test_checksums_are_sha256():
    remotes = [cifar._CIFAR10.sha256, cifar._CIFAR100.sha256]
    remotes += [*idx._MNIST[1].values(), *idx._FASHION_MNIST[1].values()]
    assert len(set(remotes)) == 10 and all(len(bytes.fromhex(s)) == 32 for s in remotes)


def test_without_pooch_the_error_names_the_extra(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r'mnist: .* Run: pip install "nnx-core\[download\]"'):
        mnist(download=True)


def test_the_real_pooch_checks_the_sum(tmp_path):
    """Over a server in this process: a right file arrives, a wrong one is refused."""
    pytest.importorskip("pooch")
    content = np.arange(1000, dtype=np.uint8).tobytes()
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "file.bin").write_bytes(content)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = partial(Quiet, directory=tmp_path / "served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/file.bin"
            good = _download.Remote(url, hashlib.sha256(content).hexdigest())
            path = _download.retrieve("test", good, tmp_path / "good")
            assert path.read_bytes() == content
            with pytest.raises(ValueError, match="hash"):
                _download.retrieve("test", _download.Remote(url, "0" * 64), tmp_path / "bad")
            assert not (tmp_path / "bad" / "file.bin").exists()
        finally:
            server.shutdown()
            thread.join()
