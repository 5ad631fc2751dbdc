"""The command line: ``nnx train|evaluate|predict|info|course``, also ``python -m nnx ...``.

`train` and `evaluate` end standard output with one line such as ``test accuracy 0.9872``. Exit codes: 0, 1 for training
that diverged, 2 for what the user can put right (one line on standard error), 130 after Ctrl-C, 143 after SIGTERM.

Under ``mpiexec``, `train` and `evaluate` use all ranks; rank 0 prints and writes, and the first error ends all ranks.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnx.train.run import Run, Settings, Source

_TRAIN_EXAMPLES = """\
examples:
  nnx train digits                                     the data set that comes with nnx, under a minute
  nnx train mnist --data ~/mnist --model lenet --epochs 5
  nnx train ~/photos --image-size 64 --out runs/photos one folder per class; needs Pillow
  nnx train digits --resume                            go on after Ctrl-C, a crash or a power cut
  mpiexec -n 4 python -m mpi4py -m nnx train mnist     on four processes, also of several machines (docs/scaling.md)

The same arguments and the same --seed give the same bits, with any number of threads, interrupted or not.
"""

_COURSE_EXAMPLES = """\
examples:
  nnx course                            what there is
  nnx course perceptron                 run one topic; its pictures go to runs/course
  nnx course all --small --out pictures run all of them in small form

Each topic has a page docs/course/TOPIC.md. Nothing is downloaded.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        code = arguments.command(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("nnx: interrupted", file=sys.stderr)
        return 130
    except FloatingPointError as error:
        if arguments.debug:
            raise
        return _fail(f"{error}. Try a smaller --lr", 1)
    except BrokenPipeError:  # `| head` has closed standard output: what is still in its buffer goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError, ImportError) as error:
        if arguments.debug:
            raise
        return _fail(_one_line(error), 2)


def _fail(text: str, code: int) -> int:
    """Print one line. If there are other ranks, end them too: they may wait for this one."""
    module = sys.modules.get("nnx.distributed._world")
    comm = None if module is None else module._world
    if comm is not None and comm.size > 1:
        if comm.rank:
            time.sleep(1.0)  # what all ranks find wrong, rank 0 says
        comm.abort(f"error: {text}")
    print(f"nnx: error: {text}", file=sys.stderr)
    return code


def _join_ranks() -> Any:
    """The communicator of this job. Only rank 0 keeps its standard output."""
    from nnx.distributed import world

    comm = world()
    if comm.rank:
        sys.stdout = open(os.devnull, "w")
    return comm


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _parser() -> argparse.ArgumentParser:
    import nnx

    parser = argparse.ArgumentParser(
        prog="nnx", description="Train, evaluate and use image classifiers from the command line; run the course."
    )
    parser.add_argument("--version", action="version", version=f"nnx {nnx.__version__}")
    commands = parser.add_subparsers(required=True, metavar="train|evaluate|predict|info|course")

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--threads", type=int, metavar="N", help="threads to use (default: all cores)")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")

    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--device", metavar="NAME", help="cpu, cuda or cuda:N (default: cpu)")

    source = argparse.ArgumentParser(add_help=False)
    source.add_argument("--data", metavar="DIR", help="folder with the files of the data set")
    source.add_argument("--download", action="store_true", help="fetch the data set into the cache if it is missing")
    source.add_argument(
        "--image-size", type=int, nargs="+", metavar="N",
        help="resize images of a folder to N x N, or to HEIGHT WIDTH",
    )  # fmt: skip

    train = commands.add_parser(
        "train",
        parents=[source, place, common],
        help="train a model and write a run folder",
        epilog=_TRAIN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument(
        "dataset",
        metavar="digits|mnist|fashion_mnist|cifar10|cifar100|FOLDER",
        help="a data set, or a folder with a subfolder of images per class",
    )
    train.add_argument("--model", metavar="NAME", help="a builder of nnx.models (default: convnet)")
    train.add_argument("--epochs", type=int, metavar="N")
    train.add_argument("--batch-size", type=int, metavar="N")
    train.add_argument("--lr", type=float, metavar="X", help="learning rate at the schedule's top")
    train.add_argument("--optimizer", metavar="NAME", help="adam, adamw, sgd, rmsprop, ...")
    train.add_argument("--schedule", metavar="NAME", help="onecycle, cosine or constant")
    train.add_argument(
        "--augment", metavar="LIST",
        help="none, or some of crop,flip,rotate,scale,noise (default: what suits the data set)",
    )  # fmt: skip
    train.add_argument("--seed", type=int, metavar="N", help="default: 0")
    train.add_argument("--out", metavar="DIR", help="run folder (default: runs/NAME)")
    train.add_argument("--resume", action="store_true", help="go on from the run folder's newest checkpoint, if any")
    train.add_argument(
        "--save-every", type=int, default=200, metavar="STEPS",
        help="steps between checkpoints, which are also written after each epoch (default: 200)",
    )  # fmt: skip
    train.set_defaults(command=_train)

    evaluate = commands.add_parser(
        "evaluate", parents=[source, place, common], help="measure a trained model on test images"
    )
    evaluate.add_argument("run", metavar="RUN", help="folder that `train` has written")
    evaluate.add_argument("dataset", nargs="?", help="default: the data set of the training")
    evaluate.set_defaults(command=_evaluate)

    predict = commands.add_parser("predict", parents=[place, common], help="classify image files")
    predict.add_argument("run", metavar="RUN", help="folder that `train` has written")
    predict.add_argument("images", nargs="+", metavar="IMAGE")
    predict.add_argument("--top", type=int, default=1, metavar="N", help="classes to show")
    predict.add_argument("--invert", action="store_true", help="swap black and white, for dark ink on white paper")
    predict.set_defaults(command=_predict)

    info = commands.add_parser("info", parents=[common], help="what nnx runs on, or what a run holds")
    info.add_argument("run", nargs="?", metavar="RUN")
    info.set_defaults(command=_info)

    course = commands.add_parser(
        "course",
        parents=[common],
        help="list the lecture topics, or run one",
        epilog=_COURSE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    course.add_argument("topic", nargs="?", metavar="TOPIC|all", help="default: list the topics")
    course.add_argument("--out", default="runs/course", metavar="DIR", help="for pictures (default: runs/course)")
    course.add_argument("--small", action="store_true", help="less data and fewer steps: a few seconds at most")
    course.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    course.set_defaults(command=_course)
    return parser


def _set_threads(arguments: argparse.Namespace) -> None:
    if arguments.threads is not None:
        import nnx

        nnx.set_num_threads(arguments.threads)


def _device(arguments: argparse.Namespace) -> str:
    """The device to compute on; ValueError if this machine has none of that name."""
    from nnx import _device

    try:
        return _device.parse("--device", arguments.device)
    except RuntimeError as error:
        raise ValueError(str(error)) from None


# -- train -----------------------------------------------------------------------------------------


def _train(arguments: argparse.Namespace) -> int:
    import nnx
    from nnx.train import Checkpoint, StopOnNaN, Trainer
    from nnx.train.run import make_optimizer

    comm = _join_ranks()
    _set_threads(arguments)
    device = _device(arguments)
    if comm.rank and arguments.download:
        _wait_for_rank_0(comm)
    run, data, resume = _prepare(arguments)
    if comm.rank == 0 and arguments.download:
        comm.barrier()
    comm.barrier()  # before rank 0 writes what decides whether there is something to resume
    settings = run.settings
    print(
        f"{run.source.title}: {len(data.x_train):,} training and {len(data.x_test):,} test images of shape "
        f"{run.shape}, {len(run.classes)} classes"
    )
    nnx.manual_seed(settings.seed)
    model = run.build().to(device)
    model.predict(run.prepare(data.x_train[:1]))  # a model that does not fit fails here, before anything is written
    loader = run.training_batches(data.x_train, data.y_train)
    test = run.test_batches(data.x_test, data.y_test)
    optimizer, schedule = make_optimizer(settings, model, settings.epochs * len(loader))
    trainer = Trainer(model, nnx.nn.CrossEntropyLoss(), optimizer, scheduler=schedule)
    print(
        f"{run.builder}: {sum(p.size for p in model.parameters()):,} parameters; {settings.optimizer}, "
        f"{settings.schedule}, lr {settings.lr:g}; {settings.epochs} epochs of {len(loader)} batches; "
        f"augmentation: {', '.join(settings.augment) or 'none'}" + (f"; {comm.size} ranks" if comm.size > 1 else ""),
        flush=True,
    )
    saving = Checkpoint(run.checkpoints, every_steps=arguments.save_every)
    if not resume and comm.rank == 0:
        run.clear()
        run.save()
    try:
        history = trainer.fit(
            loader,
            epochs=settings.epochs,
            validation=test,
            callbacks=[_EpochLines(), StopOnNaN(), saving],
            resume=resume,
        )
    except (KeyboardInterrupt, SystemExit) as stop:
        if comm.rank == 0:
            print(
                f"nnx: stopped after step {trainer.step}. Go on with: nnx train "
                f"{arguments.dataset} --out {run.folder} --resume",
                file=sys.stderr,
            )
        return int(stop.code or 0) if isinstance(stop, SystemExit) else 130
    result = trainer.evaluate(test)
    if comm.rank == 0:
        _finish(run, model, history, result)
    return 0


def _wait_for_rank_0(comm: Any) -> None:
    """However long it takes: it may be downloading."""
    patience, comm.timeout = comm.timeout, 0
    comm.barrier()
    comm.timeout = patience


def _prepare(arguments: argparse.Namespace) -> tuple[Run, Any, bool]:
    """The run with all settings, the images, and whether there is something to resume."""
    from nnx.train.run import FOLDER_RECIPE, RECIPES, Run, Source, arguments_for, statistics

    source = Source.named(arguments.dataset, arguments.data, _size(arguments), arguments.download)
    folder = Path(arguments.out or Path("runs", source.title)).expanduser()
    settings = RECIPES.get(source.name, FOLDER_RECIPE)
    resume = arguments.resume and (folder / "model.json").exists()
    if resume:
        saved = Run.load(folder)
        settings = saved.settings
    wanted = _with_options(settings, arguments)
    if resume:
        _refuse_changes(folder, settings, wanted, saved.source, source, arguments)
        source = saved.source
    data = source.load()
    if len(data.x_train) == 0 or len(data.x_test) == 0:
        raise ValueError(f"expected training and test images in {source.title!r}, got none")
    shape = data.x_train.shape[1:]
    mean, std = statistics(data.x_train)
    run = Run(
        folder=folder,
        builder=wanted.model,
        arguments=arguments_for(wanted.model, shape, len(data.classes)),
        classes=data.classes,
        shape=shape,
        mean=mean,
        std=std,
        source=source,
        settings=wanted,
    )
    if resume and (run.shape, run.classes, run.mean, run.std) != (
        saved.shape, saved.classes, saved.mean, saved.std,
    ):  # fmt: skip
        raise ValueError(f"expected the images that {str(folder)!r} was trained on, got other ones")
    return run, data, resume


def _size(arguments: argparse.Namespace) -> Any:
    size = arguments.image_size
    return size[0] if size is not None and len(size) == 1 else size


def _with_options(settings: Settings, arguments: argparse.Namespace) -> Settings:
    """The recipe with what was given on the command line in its place."""
    from nnx import _check
    from nnx.train.run import OPTIMIZERS

    given = {
        field.name: getattr(arguments, field.name)
        for field in fields(settings)
        if getattr(arguments, field.name) is not None
    }
    if "augment" in given:
        names = [name.strip() for name in given["augment"].split(",")]
        given["augment"] = () if names == ["none"] else tuple(names)
    if "lr" in given:
        _check.real("train", "--lr", given["lr"], 0, open_low=True)
    changed = given.get("optimizer", settings.optimizer) != settings.optimizer
    if changed and "lr" not in given and given["optimizer"] in OPTIMIZERS:
        given["lr"] = OPTIMIZERS[given["optimizer"]][1]
    return replace(settings, **given).checked()


def _refuse_changes(
    folder: Path, saved: Settings, wanted: Settings, saved_source: Source, source: Source, arguments: argparse.Namespace
) -> None:
    """A resumed run must be the run that was interrupted."""
    for field in fields(saved):
        old, new = getattr(saved, field.name), getattr(wanted, field.name)
        if old != new:
            option = "--" + field.name.replace("_", "-")
            raise ValueError(
                f"expected {option} {_shown(old)} as in {str(folder)!r}, got {_shown(new)}. "
                "Leave it out to resume, or train anew without --resume"
            )
    moved = arguments.data is not None and source.folder != saved_source.folder
    if source.name != saved_source.name or moved or (source.name == "folder" and source != saved_source):
        raise ValueError(
            f"expected the data set of {str(folder)!r} ({saved_source.title}), got {source.title}. "
            "Train anew without --resume, or choose another --out"
        )


def _shown(value: Any) -> str:
    return (",".join(value) or "none") if isinstance(value, tuple) else str(value)


def _finish(run: Run, model: Any, history: Any, result: dict[str, float]) -> None:
    import nnx
    from nnx.io import write_json
    from nnx.train.run import draw_curves

    nnx.save(model, run.weights)
    accuracy = round(result["accuracy"], 4)
    write_json(
        run.folder / "history.json",
        {**history, "test_loss": result["loss"], "test_accuracy": accuracy},
    )
    written = ["model.safetensors", "model.json", "history.json"]
    if draw_curves(history, run.folder / "curves.png"):
        written.append("curves.png")
    else:
        print('nnx: curves.png needs matplotlib: pip install "nnx-core[plot]"', file=sys.stderr)
    print(f"wrote {', '.join(written)} in {run.folder}")
    print(f"test accuracy {accuracy:.4f}")


def _EpochLines() -> Any:
    """A callback that prints one line per epoch where no progress bar is drawn."""
    from nnx.train import Callback

    class EpochLines(Callback):
        def on_epoch_end(self, trainer: Any) -> None:
            if sys.stderr.isatty():
                return
            logs = trainer.logs
            print(
                f"epoch {trainer.epoch:>{len(str(trainer.epochs))}}/{trainer.epochs}  "
                f"loss {logs['loss']:.4f}  accuracy {logs['accuracy']:.4f}  "
                f"test loss {logs['val_loss']:.4f}  test accuracy {logs['val_accuracy']:.4f}  "
                f"{logs['seconds']:.1f} s",
                flush=True,
            )

    return EpochLines()


# -- evaluate, predict, info -----------------------------------------------------------------------


def _evaluate(arguments: argparse.Namespace) -> int:
    import nnx
    from nnx.train import Trainer
    from nnx.train.run import Run

    _join_ranks()
    _set_threads(arguments)
    device = _device(arguments)
    run = Run.load(arguments.run)
    model = run.trained_model().to(device)
    x, y = _test_images(run, arguments)
    trainer = Trainer(model, nnx.nn.CrossEntropyLoss(), metrics=("accuracy",))
    result = trainer.evaluate(run.test_batches(x, y))
    print(f"{run.builder} on {len(y):,} test images, loss {result['loss']:.4f}")
    print(f"test accuracy {round(result['accuracy'], 4):.4f}")
    return 0


def _test_images(run: Run, arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The test images of the named data set, with labels that count the run's classes."""
    import numpy as np

    from nnx.train.run import Source

    mode = "L" if run.shape[0] == 1 else "RGB"
    source = run.source
    if arguments.dataset is not None or arguments.data is not None:
        name = arguments.dataset or run.source.name
        size = _size(arguments) or (run.shape[1:] if _is_folder(name) else None)
        source = Source.named(name, arguments.data, size, arguments.download)
    if (source.name, source.folder) == (run.source.name, run.source.folder):
        data = run.source.load()
        x, y = data.x_test, data.y_test
    else:
        data = source.load(test=0.0, mode=mode)
        # a folder without a train/test split is all test images
        x, y = (data.x_test, data.y_test) if len(data.y_test) else (data.x_train, data.y_train)
    unknown = [name for name in data.classes if name not in run.classes]
    if unknown:
        raise ValueError(
            f"expected classes of the run ({', '.join(run.classes[:10])}), got also {', '.join(unknown[:5])}"
        )
    number = np.array([run.classes.index(name) for name in data.classes])
    return x, number[y]


def _is_folder(name: str) -> bool:
    from nnx.train.run import DATASETS

    return name not in DATASETS


def _predict(arguments: argparse.Namespace) -> int:
    import numpy as np

    import nnx
    from nnx import _check
    from nnx.train.run import Run

    _set_threads(arguments)
    device = _device(arguments)
    run = Run.load(arguments.run)
    top = min(_check.integer("predict", "--top", arguments.top, 1), len(run.classes))
    model = run.trained_model().to(device)
    mode = "L" if run.shape[0] == 1 else "RGB"
    x = nnx.data.read_images(arguments.images, size=run.shape[1:], mode=mode, dtype="uint8")
    if arguments.invert:
        x = 255 - x
    probabilities = nnx.softmax(model.predict(run.prepare(x)), dim=1).numpy()
    for path, row in zip(arguments.images, probabilities, strict=True):
        best = np.argsort(-row, kind="stable")[:top]
        print(f"{path}\t" + "\t".join(f"{run.classes[i]} {row[i]:.4f}" for i in best))
    return 0


def _info(arguments: argparse.Namespace) -> int:
    import nnx
    from nnx.io import read_json
    from nnx.train.run import DATASETS, Run

    _set_threads(arguments)
    if arguments.run is None:
        nnx.show_config()
        print(f"data sets    {', '.join(DATASETS)}, or a folder of images")
        print(f"models       {', '.join(nnx.models.names())}")
        return 0
    run = Run.load(arguments.run)
    settings = run.settings
    print(f"data         {run.source.title}, {len(run.classes)} classes: {', '.join(run.classes[:10])}")
    print(f"model        {run.builder}({', '.join(f'{k}={v!r}' for k, v in run.arguments.items())})")
    print(
        f"training     {settings.epochs} epochs, batches of {settings.batch_size}, {settings.optimizer}, "
        f"{settings.schedule}, lr {settings.lr:g}, seed {settings.seed}, "
        f"augmentation {_shown(settings.augment)}"
    )
    path = run.folder / "history.json"
    if path.exists():
        history = read_json(path)
        print(f"result       test accuracy {history['test_accuracy']:.4f}, loss {history['test_loss']:.4f}")
    else:
        print("result       not finished; go on with --resume")
    print(run.build().summary(run.shape))
    return 0


# -- course ----------------------------------------------------------------------------------------


def _course(arguments: argparse.Namespace) -> int:
    from nnx import course

    _set_threads(arguments)
    if arguments.topic is None:
        width = max(map(len, course.names()))
        for topic in course.names():
            print(f"{topic:<{width}}  {course.title(topic)} ({', '.join(course.load(topic).ROWS)})")
        return 0
    if arguments.topic != "all":
        _run_topic(arguments, arguments.topic)
        return 0
    seconds = {}
    for topic in course.names():
        print(f"== {topic}: {course.title(topic)}", flush=True)
        seconds[topic] = _run_topic(arguments, topic)
        print(f"-- {seconds[topic]:.1f} s\n", flush=True)
    print(f"{len(seconds)} topics in {sum(seconds.values()):.1f} s")
    return 0


def _run_topic(arguments: argparse.Namespace, topic: str) -> float:
    """Run one topic of the course, say where its pictures are, and return the seconds that it took."""
    import time

    from nnx import course

    start = time.perf_counter()
    course.run(topic, out=arguments.out, small=arguments.small, seed=arguments.seed)
    seconds = time.perf_counter() - start
    pictures = sorted(path.name for path in Path(arguments.out).expanduser().glob(f"{topic}-*.png"))
    if pictures:
        print(f"pictures in {arguments.out}: {', '.join(pictures)}")
    return seconds
