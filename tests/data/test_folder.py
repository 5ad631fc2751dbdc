"""Folders of images."""

import builtins
import sys

import numpy as np
import pytest

from nnx.data import image_folder, read_images

Image = pytest.importorskip("PIL.Image")


def save(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)


def grey(seed, h=6, w=5):
    return np.random.default_rng(seed).integers(0, 256, (h, w), dtype=np.uint8)


def colour(seed, h=6, w=5):
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


def make(root, counts, picture=colour):
    """Write counts[name] images to each class folder; return them by class."""
    return {
        name: [(save(root / name / f"{i:03}.png", image := picture(i + 100 * k)), image)[1] for i in range(n)]
        for k, (name, n) in enumerate(sorted(counts.items()))
    }


def test_train_and_test_folders(tmp_path):
    train = make(tmp_path / "train", {"dog": 3, "cat": 2, "eel": 1})
    test = make(tmp_path / "test", {"dog": 2, "eel": 1})
    data = image_folder(tmp_path, dtype="uint8")
    assert data.classes == ("cat", "dog", "eel")
    assert data.y_train.tolist() == [0, 0, 1, 1, 1, 2] and data.y_test.tolist() == [1, 1, 2]
    expected = np.stack([*train["cat"], *train["dog"], *train["eel"]]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(data.x_train, expected)
    np.testing.assert_array_equal(data.x_test[2], test["eel"][0].transpose(2, 0, 1))
    scaled = image_folder(str(tmp_path))
    assert scaled.x_train.dtype == np.float32 and scaled.y_train.dtype == np.int64
    np.testing.assert_array_equal(scaled.x_train, expected / np.float32(255))


def test_split_of_a_plain_folder_is_stratified_and_fixed(tmp_path):
    make(tmp_path, {"a": 10, "b": 20}, grey)
    data = image_folder(tmp_path)
    assert np.bincount(data.y_train).tolist() == [8, 16]
    assert np.bincount(data.y_test).tolist() == [2, 4]
    again = image_folder(tmp_path, workers=1)
    for one, two in zip(data, again, strict=True):
        np.testing.assert_array_equal(one, two)
    other = image_folder(tmp_path, seed=1)
    assert not np.array_equal(other.x_test, data.x_test)
    everything = image_folder(tmp_path, test=0)
    assert everything.x_train.shape == (30, 1, 6, 5) and everything.x_test.shape == (0, 1, 6, 5)


def test_files_in_depth_hidden_and_foreign_ones(tmp_path):
    save(tmp_path / "a" / "deep" / "er" / "1.PNG", grey(0))
    save(tmp_path / "a" / ".hidden" / "2.png", grey(1))
    save(tmp_path / "a" / ".3.png", grey(2))
    (tmp_path / "a" / "notes.txt").write_text("no image")
    save(tmp_path / ".git" / "4.png", grey(3))
    data = image_folder(tmp_path, test=0, dtype="uint8")
    assert data.classes == ("a",) and len(data.x_train) == 1
    np.testing.assert_array_equal(data.x_train[0, 0], grey(0))


def test_mode(tmp_path):
    save(tmp_path / "a" / "0.png", grey(0))
    assert image_folder(tmp_path, test=0).x_train.shape[1] == 1
    assert image_folder(tmp_path, test=0, mode="RGB").x_train.shape[1] == 3
    with pytest.raises(ValueError, match=r"enough images to split off the part 0\.2 as test, got 1"):
        image_folder(tmp_path)
    save(tmp_path / "a" / "1.png", colour(1))
    mixed = image_folder(tmp_path, test=0, dtype="uint8")
    assert mixed.x_train.shape[1] == 3
    np.testing.assert_array_equal(mixed.x_train[0], np.stack([grey(0)] * 3))
    assert image_folder(tmp_path, test=0, mode="L").x_train.shape[1] == 1
    with pytest.raises(ValueError, match=r"image_folder: expected mode to be one of None, 'L'"):
        image_folder(tmp_path, mode="CMYK")


def test_transparency_and_palettes(tmp_path):
    rgba = np.dstack([colour(0), grey(1)])
    save(tmp_path / "a" / "0.png", rgba)
    Image.fromarray(colour(2)).quantize(16).save(tmp_path / "a" / "1.png")
    x = image_folder(tmp_path, test=0, dtype="uint8").x_train
    np.testing.assert_array_equal(x[0], colour(0).transpose(2, 0, 1))


def test_sizes(tmp_path):
    save(tmp_path / "a" / "0.png", grey(0))
    save(tmp_path / "a" / "1.png", grey(1, 7, 5))
    with pytest.raises(ValueError, match=r"one size, got \(6, 5\) .* '.*0\.png' and \(7, 5\) in '.*1\.png'. size="):
        image_folder(tmp_path, test=0)
    x = image_folder(tmp_path, test=0, size=(6, 5), dtype="uint8").x_train
    assert x.shape == (2, 1, 6, 5)
    np.testing.assert_array_equal(x[0, 0], grey(0))
    assert image_folder(tmp_path, test=0, size=4).x_train.shape == (2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"image_folder: expected size to be an integer >= 1"):
        image_folder(tmp_path, size=0)


@pytest.mark.parametrize("content", [b"", b"no image at all", None])
def test_corrupt_file_is_named(tmp_path, content):
    make(tmp_path, {"a": 40}, grey)
    bad = tmp_path / "a" / "017.png"
    bad.write_bytes(bad.read_bytes()[:50] if content is None else content)
    with pytest.raises(ValueError, match=r"image_folder: expected an image .* got '.*017\.png': "):
        image_folder(tmp_path)


def test_truncated_jpeg_is_named(tmp_path):
    save(tmp_path / "a" / "0.jpg", colour(0, 64, 64), quality=95)
    path = tmp_path / "a" / "0.jpg"
    path.write_bytes(path.read_bytes()[:-800])
    with pytest.raises(ValueError, match=r"got '.*0\.jpg': OSError: .*truncated"):
        image_folder(tmp_path, test=0)


def test_deep_images_are_refused(tmp_path):
    path = tmp_path / "a" / "0.png"
    path.parent.mkdir()
    Image.fromarray(grey(0).astype(np.uint16) * 256).save(path)
    with pytest.raises(ValueError, match=r"expected 8 bits per channel, got mode 'I;16' in '.*0.p"):
        image_folder(tmp_path, test=0)


def test_folder_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"image_folder: .* got '.*none', which is no fold"):
        image_folder(tmp_path / "none")
    with pytest.raises(ValueError, match=r"expected one subfolder per class in '.*', got none"):
        image_folder(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"expected images \(\.bmp .*\) in '.*empty', got none"):
        image_folder(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match=r"both train and test or neither in .* got only 'train'"):
        image_folder(tmp_path)


def test_class_that_only_the_test_has(tmp_path):
    make(tmp_path / "train", {"a": 1})
    make(tmp_path / "test", {"a": 1, "b": 1})
    with pytest.raises(ValueError, match=r"expected the classes of '.*train' in '.*test', got al"):
        image_folder(tmp_path)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"test": 1}, r"test to be a number in \[0, 1\), got 1"),
        ({"test": -0.1}, r"test to be a number in \[0, 1\)"),
        ({"seed": -1}, "seed to be an integer >= 0, got -1"),
        ({"workers": 0}, "workers to be an integer >= 1, got 0"),
        ({"dtype": "int8"}, "dtype to be float32, float64 or uint8, got 'int8'"),
    ],
)
def test_argument_errors(tmp_path, options, text):
    make(tmp_path, {"a": 5})
    with pytest.raises((TypeError, ValueError), match=f"image_folder: expected {text}"):
        image_folder(tmp_path, **options)


def test_read_images(tmp_path):
    save(tmp_path / "one.png", colour(0))
    save(tmp_path / "two.png", colour(1))
    x = read_images([tmp_path / "two.png", str(tmp_path / "one.png")], dtype="uint8")
    np.testing.assert_array_equal(x[0], colour(1).transpose(2, 0, 1))
    np.testing.assert_array_equal(x[1], colour(0).transpose(2, 0, 1))
    with pytest.raises(TypeError, match="read_images: expected a list of paths, got one path"):
        read_images(str(tmp_path / "one.png"))
    with pytest.raises(ValueError, match="read_images: expected at least one path, got none"):
        read_images([])
    with pytest.raises(FileNotFoundError, match=r"read_images: .* got '.*three\.png'"):
        read_images([tmp_path / "three.png"])


def test_without_pillow_the_error_names_the_extra(tmp_path, monkeypatch):
    make(tmp_path, {"a": 2})
    for name in [name for name in sys.modules if name.split(".")[0] == "PIL"]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == "PIL":
            raise ImportError("no PIL")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r'Pillow .* Run: pip install "nnx-core\[images\]"'):
        image_folder(tmp_path)
