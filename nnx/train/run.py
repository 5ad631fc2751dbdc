"""A training run from names alone: data set, model, recipe, and the folder in which the results lie.

The command line is a thin layer over this module. A run folder holds ``model.safetensors`` (weights), ``model.json``
(the `nnx.models` builder, its arguments, class names, preprocessing, settings), ``history.json``, ``checkpoints/`` and,
where matplotlib is installed, ``curves.png``.
"""

from __future__ import annotations

import inspect
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnx import _check
from nnx.io import read_json, write_atomic, write_json

_VERSION = 1

OPTIMIZERS: dict[str, tuple[str, float, dict[str, Any]]] = {
    # command-line name: class, learning rate at the top of the schedule, further arguments
    "adam": ("Adam", 0.003, {}),
    "adamw": ("AdamW", 0.003, {"weight_decay": 0.05}),
    "sgd": ("SGD", 0.1, {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}),
    "rmsprop": ("RMSprop", 0.001, {}),
    "adagrad": ("Adagrad", 0.01, {}),
    "adadelta": ("Adadelta", 1.0, {}),
}
AUGMENTATIONS = ("crop", "flip", "rotate", "scale", "noise")
SCHEDULES = ("onecycle", "cosine", "constant")
DATASETS = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100")
_ALIASES = {"lenet": "lenet5", "fashion-mnist": "fashion_mnist"}


@dataclass(frozen=True)
class Settings:
    """How a run trains; together with the data it decides every bit of the result."""

    model: str = "convnet"
    epochs: int = 10
    batch_size: int = 128
    optimizer: str = "adam"
    lr: float = 0.0  # 0: the optimizer's own
    schedule: str = "onecycle"
    augment: tuple[str, ...] = ()
    seed: int = 0

    def checked(self) -> Settings:
        """The same with every name and number checked, and the optimizer's own learning rate where none is given."""
        from nnx.models import names

        owner = "train"
        _check.choice(owner, "--optimizer", self.optimizer, tuple(OPTIMIZERS))
        _check.choice(owner, "--schedule", self.schedule, SCHEDULES)
        model = _ALIASES.get(self.model, self.model)
        _check.choice(owner, "--model", model, names())
        for name in self.augment:
            _check.choice(owner, "--augment", name, AUGMENTATIONS)
        lr = OPTIMIZERS[self.optimizer][1] if self.lr == 0.0 else self.lr
        return replace(
            self,
            model=model,
            epochs=_check.integer(owner, "--epochs", self.epochs, 1),
            batch_size=_check.integer(owner, "--batch-size", self.batch_size, 1),
            lr=_check.real(owner, "--lr", lr, 0, open_low=True),
            seed=_check.integer(owner, "--seed", self.seed, 0),
        )


RECIPES: dict[str, Settings] = {
    "digits": Settings(epochs=20, batch_size=64, augment=("rotate", "scale")),
    "mnist": Settings(epochs=5),
    "fashion_mnist": Settings(epochs=5, augment=("flip",)),
    "cifar10": Settings(epochs=5, lr=0.01, augment=("crop", "flip")),
    "cifar100": Settings(epochs=10, lr=0.01, augment=("crop", "flip")),
}
FOLDER_RECIPE = Settings(epochs=20, batch_size=32, augment=("crop", "flip"))


# -- data ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """Where images come from: the name of a data set or a folder with a subfolder per class."""

    name: str
    folder: str | None = None
    image_size: tuple[int, int] | None = None
    download: bool = False

    @classmethod
    def named(cls, name: str, folder: str | None, image_size: Any = None, download: bool = False) -> Source:
        """`name` is a data set's, or a path; FileNotFoundError if it is neither."""
        name = _ALIASES.get(name, name)
        size = None if image_size is None else _check.ntuple("train", "--image-size", image_size, 2, 1)
        pair = None if size is None else (size[0], size[1])
        if name in DATASETS:
            if folder is not None:
                folder = os.path.abspath(os.path.expanduser(folder))
            return cls(name, folder, pair, download)
        path = os.path.expanduser(name)
        if not os.path.isdir(path):
            raise FileNotFoundError(
                f"expected a data set ({', '.join(DATASETS)}) or a folder with a subfolder per class, "
                f"got {name!r}, which is neither"
            )
        if folder is not None:
            raise ValueError(f"expected --data only beside the name of a data set, got it beside the folder {name!r}")
        return cls("folder", os.path.abspath(path), pair)

    @property
    def title(self) -> str:
        return os.path.basename(self.folder) if self.name == "folder" and self.folder else self.name

    def load(self, test: float = 0.2, mode: str | None = None) -> Any:
        """The images as `nnx.data.ImageData`, bytes as they are stored; digits as floats in 0..1."""
        from nnx import data

        if self.folder is not None and (self.name == "folder" or _has_class_folders(self.folder)):
            return data.image_folder(self.folder, size=self.image_size, mode=mode, dtype="uint8", test=test)
        if self.image_size is not None:
            raise ValueError(f"expected --image-size only for folders of images, got it for {self.name!r}")
        if self.name == "digits":
            if self.folder is not None:
                raise ValueError("expected no --data for digits, which come with nnx, got it")
            return data.digits()
        return getattr(data, self.name)(self.folder, download=self.download, dtype="uint8")


def _has_class_folders(folder: str) -> bool:
    train = os.path.join(folder, "train")
    return os.path.isdir(train) and any(entry.is_dir() for entry in os.scandir(train))


class Prepare:
    """Scale a batch to 0..1 and normalise it when it is asked for, so that bytes stay bytes in memory."""

    def __init__(self, mean: Any, std: Any) -> None:
        from nnx.data import Normalize

        self._normalize = Normalize(mean, std)

    def __call__(self, x: np.ndarray, rng: object = None) -> np.ndarray:
        from nnx.data import to_float

        return self._normalize(to_float(x))


def statistics(x: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, for images scaled to 0..1; an empty channel gets 1."""
    from nnx.data import channel_stats

    scale = 255.0 if x.dtype == np.uint8 else 1.0
    mean, std = channel_stats(x)
    return [float(m / scale) for m in mean], [float(s / scale) or 1.0 for s in std]


def augmentation(names: tuple[str, ...], shape: tuple[int, ...]) -> list[Any]:
    """The transforms for images of `shape` (C, H, W), with strengths that suit small images."""
    from nnx import data

    channels, height, width = shape
    padding = max(1, min(height, width) // 8)
    # what is drawn in grey lies on black; a photograph goes on beyond its edge
    mode = "constant" if channels == 1 or min(height, width) <= padding else "reflect"
    known: dict[str, Any] = {
        "crop": lambda: data.RandomCrop((height, width), padding=padding, padding_mode=mode),
        "flip": lambda: data.RandomHorizontalFlip(),
        "rotate": lambda: data.RandomRotation(10),
        "scale": lambda: data.RandomScale((0.9, 1.1)),
        "noise": lambda: data.GaussianNoise(0.02),
    }
    return [known[name]() for name in AUGMENTATIONS if name in names]


# -- model -----------------------------------------------------------------------------------------


def arguments_for(model: str, shape: tuple[int, ...], classes: int) -> dict[str, Any]:
    """What the builder called `model` needs for images of `shape` (C, H, W)."""
    from nnx import models

    channels, height, width = shape
    known = inspect.signature(getattr(models, model)).parameters
    size = height if height == width else [height, width]
    if model == "mlp":
        return {"sizes": [channels * height * width, 512, 512, classes]}
    arguments: dict[str, Any] = {"num_classes": classes}
    if "in_channels" in known:
        arguments["in_channels"] = channels
    elif channels != 3:
        raise ValueError(
            f"expected images with 3 channels for the model {model!r}, got {channels}. "
            "Choose a model that takes any, such as convnet, lenet5, resnet20 or mlp"
        )
    if "image_size" in known:
        arguments["image_size"] = size
    if "small_images" in known:
        arguments["small_images"] = min(height, width) < 64
    if model == "convnet":
        shorter = min(height, width)
        stages = 1 if shorter < 4 else 2 if shorter < 16 else 3 if shorter < 64 else 4
        arguments["widths"] = [32 * 2**i for i in range(stages)]
    return arguments


def make_optimizer(settings: Settings, model: Any, steps: int) -> tuple[Any, Any]:
    """The optimizer and its schedule, one learning rate per step."""
    from nnx import optim
    from nnx.train.callbacks import LRSchedule

    kind, _, extra = OPTIMIZERS[settings.optimizer]
    optimizer = getattr(optim, kind)(model.parameters(), lr=settings.lr, **extra)
    schedule: Any
    if settings.schedule == "onecycle":
        schedule = optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total_steps=steps, cycle_momentum=False)
    elif settings.schedule == "cosine":
        schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    else:
        return optimizer, None
    return optimizer, LRSchedule(schedule, every="step")


# -- the run folder --------------------------------------------------------------------------------


@dataclass
class Run:
    """What ``model.json`` says, and the folder that it lies in."""

    folder: Path
    builder: str
    arguments: dict[str, Any]
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    mean: list[float]
    std: list[float]
    source: Source
    settings: Settings

    @property
    def weights(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def build(self) -> Any:
        """The model with fresh weights."""
        from nnx import models

        return models.build(self.builder, **self.arguments)

    def trained_model(self) -> Any:
        """The model with the weights of the finished training."""
        from nnx.io import load

        if not self.weights.exists():
            raise FileNotFoundError(
                f"expected a finished run with {self.weights.name} in {str(self.folder)!r}, got none. "
                "Go on with: nnx train ... --resume"
            )
        model = self.build()
        model.load_state_dict(load(self.weights))
        return model.eval()

    def prepare(self, x: np.ndarray) -> np.ndarray:
        """Images as the model takes them, from bytes or from floats in 0..1."""
        if x.shape[1:] != self.shape:
            raise ValueError(f"expected images of shape {self.shape} as in {str(self.folder)!r}, got {x.shape[1:]}")
        return Prepare(self.mean, self.std)(x)

    def training_batches(self, x: np.ndarray, y: np.ndarray) -> Any:
        """A loader that shuffles, augments and prepares; its order and its draws follow from the run's seed."""
        from nnx.data import Compose, DataLoader

        steps = [*augmentation(self.settings.augment, self.shape), Prepare(self.mean, self.std)]
        return DataLoader(
            (x, y), self.settings.batch_size, shuffle=True, seed=self.settings.seed, transform=Compose(steps)
        )

    def test_batches(self, x: np.ndarray, y: np.ndarray) -> Any:
        """A loader in the order of the arrays, for `Trainer.evaluate`."""
        from nnx.data import DataLoader

        self.prepare(x[:1])
        return DataLoader((x, y), 256, seed=0, transform=Prepare(self.mean, self.std))

    def clear(self) -> None:
        """Delete what an earlier run has left in the folder, or its weights would pass for this run's."""
        from nnx.train.checkpoint import checkpoints

        for name in (self.weights.name, "history.json", "curves.png"):
            (self.folder / name).unlink(missing_ok=True)
        for path in checkpoints(self.checkpoints):
            path.unlink()

    def save(self) -> None:
        """Write ``model.json``."""
        from nnx import __version__

        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(
            self.folder / "model.json",
            {
                "version": _VERSION,
                "nnx": __version__,
                "model": self.builder,
                "arguments": self.arguments,
                "classes": list(self.classes),
                "input": {"shape": list(self.shape), "mean": self.mean, "std": self.std},
                "data": asdict(self.source),
                "training": asdict(self.settings),
            },
        )

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Run:
        """Read ``model.json``; FileNotFoundError if `folder` is no run, ValueError if the file is damaged."""
        path = Path(folder).expanduser() / "model.json"
        if not path.is_file():
            raise FileNotFoundError(f"expected the folder of a run with model.json, got {str(folder)!r}")
        record = read_json(path)
        try:
            if record["version"] != _VERSION:
                raise ValueError(f"version {record['version']} of another nnx")
            channels, height, width = record["input"]["shape"]
            data = dict(record["data"])
            if data["image_size"] is not None:
                data["image_size"] = tuple(data["image_size"])
            training = dict(record["training"])
            training["augment"] = tuple(training["augment"])
            return cls(
                folder=path.parent,
                builder=record["model"],
                arguments=dict(record["arguments"]),
                classes=tuple(record["classes"]),
                shape=(channels, height, width),
                mean=list(record["input"]["mean"]),
                std=list(record["input"]["std"]),
                source=Source(**data),
                settings=Settings(**training).checked(),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"expected {str(path)!r} to describe a run, got {type(error).__name__}: {error}") from None


def draw_curves(history: dict[str, list[Any]], path: Path) -> bool:
    """Draw loss and accuracy over the epochs; False, and nothing written, without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    import io

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for key, label in ((quantity, "training"), (f"val_{quantity}", "test")):
            if key in history:
                axes.plot(range(1, len(history[key]) + 1), history[key], marker=".", label=label)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylabel(quantity)
        axes.grid(alpha=0.3)
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomic(path, buffer.getvalue())
    return True
