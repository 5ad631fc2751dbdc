"""The command line, in this process where possible and in others where it matters."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import nnx
from nnx import cli
from nnx.train import run as runs

FAST = ["--model", "mlp", "--epochs", "2", "--save-every", "5"]


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path, monkeypatch):
    """Runs go to a folder of their own; other processes find the same nnx from there."""
    root = str(runs.Path(nnx.__file__).parents[1])
    nnx.set_num_threads(1)  # small work on a machine that is busy with other tests
    monkeypatch.setenv("NNX_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))))
    monkeypatch.chdir(tmp_path)


def nnx_main(capsys, *arguments):
    """Exit code, standard output, standard error."""
    code = cli.main(list(map(str, arguments)))
    out = capsys.readouterr()
    return code, out.out, out.err


def fails(capsys, text, *arguments):
    """The command ends with code 2 and one line on standard error that matches `text`."""
    code, out, err = nnx_main(capsys, *arguments)
    assert code == 2, out + err
    assert err.count("\n") == 1 and "Traceback" not in err
    assert re.match(rf"nnx: error: .*{text}", err), err


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run on the digits."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    with contextlib.redirect_stdout(io.StringIO()):
        assert cli.main(["train", "digits", "--out", str(folder), *FAST]) == 0
    return folder


@pytest.fixture
def images(tmp_path):
    """Folders of small images: bright ones and dark ones, with a third of them split off for the test."""
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for half, count in (("train", 12), ("test", 6)):
        for label, level in (("bright", 200), ("dark", 60)):
            folder = tmp_path / "photos" / half / label
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(level - 40, level + 40, (10, 12, 3)).astype(np.uint8)
                image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "photos"


# -- train and evaluate ----------------------------------------------------------------------------


def test_train_writes_a_run_folder_and_ends_with_the_accuracy(capsys):
    code, out, err = nnx_main(capsys, "train", "digits", *FAST)
    assert code == 0 and "Traceback" not in err
    last = out.splitlines()[-1]
    assert re.fullmatch(r"test accuracy [01]\.\d{4}", last)
    assert float(last.split()[-1]) > 0.8
    folder = runs.Path("runs/digits")
    names = {p.name for p in folder.iterdir()}
    assert {"model.safetensors", "model.json", "history.json", "checkpoints"} <= names
    history = json.loads((folder / "history.json").read_text())
    assert history["test_accuracy"] == float(last.split()[-1])
    assert len(history["loss"]) == len(history["val_accuracy"]) == 2
    assert round(history["val_accuracy"][-1], 4) == history["test_accuracy"]
    record = json.loads((folder / "model.json").read_text())
    assert record["model"] == "mlp" and record["classes"] == list("0123456789")
    model = nnx.models.build(record["model"], **record["arguments"])
    model.load_state_dict(nnx.load(folder / "model.safetensors"))
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        assert err.count("\n") == 1 and 'curves.png needs matplotlib: pip install "nnx-core[plot]"' in err
    else:
        assert (folder / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert "epoch 1/2  loss" in out  # no terminal here: lines instead of a bar


def test_without_matplotlib_there_is_a_hint(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, out, err = nnx_main(capsys, "train", "digits", "--model", "mlp", "--epochs", 1)
    assert code == 0 and out.splitlines()[-1].startswith("test accuracy ")
    assert err == 'nnx: curves.png needs matplotlib: pip install "nnx-core[plot]"\n'


def test_evaluate_says_what_train_said(capsys, finished):
    history = json.loads((finished / "history.json").read_text())
    for arguments in ([finished], [finished, "digits"], [finished, "--threads", 1]):
        code, out, err = nnx_main(capsys, "evaluate", *arguments)
        assert (code, err) == (0, "")
        assert out.splitlines()[-1] == f"test accuracy {history['test_accuracy']:.4f}"


def test_the_same_seed_gives_the_same_bits(capsys):
    weights = []
    for name, seed, threads in (("a", 3, 1), ("b", 3, 2), ("c", 4, 2)):
        arguments = ["--out", name, "--seed", seed, "--threads", threads, "--epochs", 1]
        assert nnx_main(capsys, "train", "digits", *arguments)[0] == 0
        weights.append(runs.Path(name, "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_training_anew_replaces_a_run(capsys):
    first = nnx_main(capsys, "train", "digits", *FAST)
    again = nnx_main(capsys, "train", "digits", *FAST)
    assert first[0] == again[0] == 0
    assert first[1].splitlines()[-1] == again[1].splitlines()[-1]


def test_results_of_an_earlier_run_do_not_pass_for_this_one(capsys, monkeypatch):
    assert nnx_main(capsys, "train", "digits", *FAST)[0] == 0

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(nnx.train.Trainer, "fit", interrupted)
    assert nnx_main(capsys, "train", "digits", *FAST, "--seed", 1)[0] == 130
    assert {p.name for p in runs.Path("runs/digits").iterdir()} == {"model.json", "checkpoints"}
    assert list(runs.Path("runs/digits/checkpoints").iterdir()) == []
    fails(capsys, "expected a finished run", "evaluate", "runs/digits")


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_closed_pipe_is_no_traceback(finished):
    command = f"{sys.executable} -m nnx info {finished} | head -n 1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert result.stdout.startswith("data ") and result.stderr == ""


def test_options_reach_the_training(capsys):
    arguments = [
        "--optimizer", "sgd", "--schedule", "cosine", "--augment", "flip, noise", "--lr", "0.02",
        "--batch-size", "100", "--epochs", "1", "--model", "lenet", "--seed", "8",
    ]  # fmt: skip
    fails(capsys, r"LeNet5: expected image_size to be one of 28, 32, got 8", "train", "digits", *arguments)
    assert not runs.Path("runs").exists()  # nothing is written for a model that does not fit
    arguments[arguments.index("lenet")] = "resnet20"
    code, out, _ = nnx_main(capsys, "train", "digits", *arguments)
    assert code == 0
    record = json.loads(runs.Path("runs/digits/model.json").read_text())
    assert record["training"] == {
        "model": "resnet20", "epochs": 1, "batch_size": 100, "optimizer": "sgd", "lr": 0.02, "schedule": "cosine",
        "augment": ["flip", "noise"], "seed": 8,
    }  # fmt: skip
    assert record["arguments"] == {"num_classes": 10, "in_channels": 1}
    assert "1 epochs of 15 batches; augmentation: flip, noise" in out


def test_an_optimizer_brings_its_learning_rate():
    parse = cli._parser().parse_args
    settings = cli._with_options(runs.RECIPES["cifar10"], parse(["train", "x", "--optimizer", "sgd"]))
    assert settings.lr == runs.OPTIMIZERS["sgd"][1]
    settings = cli._with_options(runs.RECIPES["cifar10"], parse(["train", "x", "--optimizer", "adam"]))
    assert settings.lr == runs.RECIPES["cifar10"].lr
    settings = cli._with_options(runs.RECIPES["digits"], parse(["train", "x", "--augment", "none"]))
    assert settings.augment == ()


@pytest.mark.parametrize("name", runs.OPTIMIZERS)
def test_every_optimizer_takes_a_step(name):
    settings = runs.Settings(optimizer=name).checked()
    model = nnx.nn.Linear(2, 2)
    optimizer, _ = runs.make_optimizer(settings, model, 10)
    model(np.ones((1, 2), np.float32)).sum().backward()
    before = model.weight.data.copy()
    optimizer.step()
    assert (model.weight.data != before).all()


def test_every_recipe_is_sound():
    for recipe in (*runs.RECIPES.values(), runs.FOLDER_RECIPE):
        assert recipe.checked().lr > 0
    for shape in ((1, 8, 8), (3, 32, 32), (3, 5, 4)):
        batch = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
        for step in runs.augmentation(runs.AUGMENTATIONS, shape):
            assert step(batch, np.random.default_rng(0)).shape == batch.shape


# -- resume ----------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from nnx import cli
from nnx.train import Checkpoint
real = Checkpoint.on_step_end
def on_step_end(self, trainer):
    real(self, trainer)
    if trainer.step == 30:
        os.kill(os.getpid(), signal.{signal})
Checkpoint.on_step_end = on_step_end
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is a POSIX matter")
def test_kill_9_then_resume_gives_the_same_bits(capsys):
    """2 epochs of 23 steps, killed after step 30; the newest checkpoint is of step 28."""
    arguments = ["train", "digits", "--epochs", "2", "--save-every", "7"]
    assert nnx_main(capsys, *arguments, "--out", "whole")[0] == 0

    program = KILLED.format(signal="SIGKILL")
    killed = subprocess.run([sys.executable, "-c", program, *arguments, "--out", "killed"], check=False)
    assert killed.returncode == -9
    assert not runs.Path("killed/model.safetensors").exists()
    fails(capsys, r"expected a finished run .* Go on with: nnx train ... --resume", "evaluate", "killed")

    resumed = nnx_main(capsys, *arguments, "--out", "killed", "--resume")
    assert resumed[0] == 0
    assert "epoch 1/2" not in resumed[1] and "epoch 2/2" in resumed[1]
    for name in ("model.safetensors", "model.json"):
        assert runs.Path("killed", name).read_bytes() == runs.Path("whole", name).read_bytes()
    histories = [json.loads(runs.Path(d, "history.json").read_text()) for d in ("killed", "whole")]
    for history in histories:
        del history["seconds"]
    assert histories[0] == histories[1]


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_says_how_to_go_on(capsys):
    arguments = ["train", "digits", *FAST[:4]]
    program = KILLED.format(signal="SIGINT")
    stopped = subprocess.run([sys.executable, "-c", program, *arguments], check=False, capture_output=True, text=True)
    assert stopped.returncode == 130
    assert stopped.stderr == ("nnx: stopped after step 30. Go on with: nnx train digits --out runs/digits --resume\n")
    resumed = nnx_main(capsys, "train", "digits", "--resume")  # the settings come from the run
    assert resumed[0] == 0
    assert nnx_main(capsys, *arguments, "--out", "whole")[0] == 0
    weights = [runs.Path(d, "model.safetensors").read_bytes() for d in ("runs/digits", "whole")]
    assert weights[0] == weights[1]


def test_resume_where_there_is_nothing_starts(capsys):
    code, out, _ = nnx_main(capsys, "train", "digits", "--resume", *FAST)
    assert code == 0 and "epoch 1/2" in out


def test_resuming_a_finished_run_changes_nothing(capsys):
    first = nnx_main(capsys, "train", "digits", *FAST)
    before = runs.Path("runs/digits/model.safetensors").read_bytes()
    again = nnx_main(capsys, "train", "digits", "--resume")
    assert again[0] == 0 and again[1].splitlines()[-1] == first[1].splitlines()[-1]
    assert runs.Path("runs/digits/model.safetensors").read_bytes() == before


def test_resume_refuses_other_settings(capsys, images):
    assert nnx_main(capsys, "train", "digits", *FAST)[0] == 0
    for option, value, shown in (
        ("--lr", "0.5", "--lr 0.003"),
        ("--epochs", "9", "--epochs 2"),
        ("--model", "convnet", "--model mlp"),
        ("--augment", "none", "--augment rotate,scale"),
    ):
        text = rf"expected {shown} as in 'runs/digits', got {value}. Leave it out to resume, or train anew"
        fails(capsys, text, "train", "digits", "--resume", option, value)
    text = r"expected the data set of 'runs/digits' \(digits\), got photos"
    fails(capsys, text, "train", images, "--out", "runs/digits", "--resume")


# -- folders of images -----------------------------------------------------------------------------


def test_a_folder_of_images(capsys, images):
    code, out, err = nnx_main(capsys, "train", images, "--epochs", 4, "--out", "run", "--augment", "flip")
    assert code == 0, err
    assert out.startswith("photos: 24 training and 12 test images of shape (3, 10, 12), 2 classes")
    assert out.splitlines()[-1] == "test accuracy 1.0000"
    assert nnx_main(capsys, "evaluate", "run")[1].splitlines()[-1] == "test accuracy 1.0000"
    # another folder, without a split: all of it is measured
    code, out, err = nnx_main(capsys, "evaluate", "run", images / "train")
    assert code == 0, err
    assert "on 24 test images" in out and out.splitlines()[-1] == "test accuracy 1.0000"

    files = [images / "test" / "dark" / "0.png", images / "test" / "bright" / "1.png"]
    code, out, err = nnx_main(capsys, "predict", "run", *files)
    assert (code, err) == (0, "")
    lines = [line.split("\t") for line in out.splitlines()]
    assert [line[0] for line in lines] == [str(f) for f in files]
    assert [line[1].split()[0] for line in lines] == ["dark", "bright"]
    out = nnx_main(capsys, "predict", "run", "--top", 5, "--invert", files[0])[1]
    parts = out.strip().split("\t")[1:]
    assert [p.split()[0] for p in parts] == ["bright", "dark"]
    assert sum(float(p.split()[1]) for p in parts) == pytest.approx(1, abs=1e-3)

    fails(capsys, r"read_images: expected image files, got 'no.png'", "predict", "run", "no.png")
    (images / "train" / "grey").mkdir()
    (images / "train" / "grey" / "0.png").write_bytes(files[0].read_bytes())
    text = r"expected classes of the run \(bright, dark\), got also grey"
    fails(capsys, text, "evaluate", "run", images / "train")


def test_image_size_is_kept_for_later(capsys, images):
    arguments = ["--image-size", "8", "--epochs", "1", "--out", "run", "--model", "mlp"]
    assert nnx_main(capsys, "train", images, *arguments)[0] == 0
    assert nnx_main(capsys, "train", images, "--resume", "--image-size", "8", "--out", "run")[0] == 0
    fails(capsys, "expected the data set of 'run'", "train", images, "--resume", "--out", "run")
    assert nnx_main(capsys, "evaluate", "run", images / "test")[0] == 0
    fails(
        capsys, r"expected images of shape \(3, 8, 8\) as in 'run', got \(3, 9, 7\)",
        "evaluate", "run", images / "test", "--image-size", 9, 7,
    )  # fmt: skip


def test_the_images_of_a_resumed_run_must_be_the_same(capsys, images):
    assert nnx_main(capsys, "train", images, "--epochs", 1, "--out", "run", "--model", "mlp")[0] == 0
    next((images / "train" / "dark").iterdir()).unlink()
    text = r"expected the images that 'run' was trained on, got other ones"
    fails(capsys, text, "train", images, "--out", "run", "--resume")


def test_digits_predicts_from_files(capsys, finished):
    image = pytest.importorskip("PIL.Image")
    data = nnx.data.digits()
    for i in range(20):
        image.fromarray((data.x_test[i, 0] * 255).astype(np.uint8)).save(f"{i}.png")
    out = nnx_main(capsys, "predict", finished, *(f"{i}.png" for i in range(20)))[1]
    guesses = [int(line.split("\t")[1].split()[0]) for line in out.splitlines()]
    assert (np.array(guesses) == data.y_test[:20]).mean() >= 0.7


def test_predict_without_pillow(capsys, finished, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    runs.Path("a.png").touch()
    fails(capsys, r"expected the package Pillow .* pip install \"nnx-core\[images\]\"", "predict", finished, "a.png")


# -- info ------------------------------------------------------------------------------------------


def test_info(capsys, finished):
    code, out, _ = nnx_main(capsys, "info")
    assert code == 0
    for word in ("nnx", "level", "BLAS", "digits", "resnet20"):
        assert word in out
    code, out, _ = nnx_main(capsys, "info", finished)
    assert code == 0
    assert "mlp(sizes=[64, 512, 512, 10])" in out and "test accuracy" in out and "Linear" in out
    (runs.Path("x")).mkdir()
    (runs.Path("x") / "model.json").write_text((finished / "model.json").read_text())
    assert "not finished; go on with --resume" in nnx_main(capsys, "info", "x")[1]


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["digit"], r"expected a data set \(digits, mnist, .*\) or a folder .* got 'digit', which is neither"),
        (["digits", "--model", "lenet6"], r"train: expected --model to be one of .*'lenet5'.* got 'lenet6'"),
        (["digits", "--model", "resnet18"], r"expected images with 3 channels for the model 'resnet18', got 1"),
        (["digits", "--epochs", "0"], r"train: expected --epochs to be an integer >= 1, got 0"),
        (["digits", "--batch-size", "-3"], r"train: expected --batch-size to be an integer >= 1, got -3"),
        (["digits", "--lr", "0"], r"train: expected --lr to be a number in \(0, inf\), got 0.0"),
        (["digits", "--lr", "nan"], r"train: expected --lr to be a number in \(0, inf\), got nan"),
        (["digits", "--seed", "-1"], r"train: expected --seed to be an integer >= 0, got -1"),
        (["digits", "--optimizer", "adagra"], r"train: expected --optimizer to be one of 'adam', .* got 'adagra'"),
        (["digits", "--schedule", "x"], r"train: expected --schedule to be one of 'onecycle', .* got 'x'"),
        (["digits", "--augment", "flip,x"], r"train: expected --augment to be one of 'crop', .* got 'x'"),
        (["digits", "--threads", "0"], r"set_num_threads: expected n to be an integer in \[1, 4096\], got 0"),
        (["digits", "--image-size", "9"], r"expected --image-size only for folders of images, got it for 'digits'"),
        (["digits", "--data", "."], r"expected no --data for digits, which come with nnx, got it"),
        (["digits", "--save-every", "0"], r"Checkpoint: expected every_steps to be an integer >= 1, got 0"),
        (["mnist", "--data", "nowhere"], r"mnist: expected .*nowhere"),
        (["cifar10", "--data", "."], r"cifar10: expected .*data_batch_1.bin"),
        ([".", "--data", "x"], r"expected --data only beside the name of a data set"),
        (["."], r"image_folder: expected one subfolder per class in .*, got none"),
    ],
)
def test_errors_of_train(capsys, arguments, text):
    fails(capsys, text, "train", *arguments)
    assert not runs.Path("runs/digits/model.safetensors").exists()


def test_errors_of_run_folders(capsys, finished, tmp_path):
    fails(capsys, r"expected the folder of a run with model.json, got 'nowhere'", "evaluate", "nowhere")
    fails(capsys, r"expected the folder of a run with model.json", "predict", tmp_path, "x.png")
    (tmp_path / "model.json").write_text("{")
    fails(capsys, r"read_json: expected '.*model.json' to be JSON", "info", tmp_path)
    (tmp_path / "model.json").write_text('{"version": 1}')
    fails(capsys, r"expected '.*model.json' to describe a run, got KeyError: 'input'", "info", tmp_path)
    record = json.loads((finished / "model.json").read_text())
    record["version"] = 9
    (tmp_path / "model.json").write_text(json.dumps(record))
    fails(capsys, r"to describe a run, got ValueError: version 9 of another nnx", "info", tmp_path)
    record["version"], record["model"] = 1, "os.system"
    (tmp_path / "model.json").write_text(json.dumps(record))
    (tmp_path / "model.safetensors").write_bytes((finished / "model.safetensors").read_bytes())
    fails(capsys, r"build: expected name to be one of .* got 'os.system'", "evaluate", tmp_path)
    record["model"] = "mlp"
    (tmp_path / "model.json").write_text(json.dumps(record))
    (tmp_path / "model.safetensors").write_bytes(b"junk")
    fails(capsys, r"load: expected '.*model.safetensors' to be a safetensors file", "evaluate", tmp_path)
    fails(capsys, r"predict: expected --top to be an integer >= 1, got 0", "predict", finished, "x", "--top", 0)
    (tmp_path / "file").touch()
    fails(capsys, "", "train", "digits", "--out", tmp_path / "file", *FAST)


def test_divergence_is_code_1(capsys):
    code, _, err = nnx_main(
        capsys, "train", "digits", "--optimizer", "sgd", "--lr", "1e30", "--schedule", "constant", "--epochs", 1
    )
    assert code == 1
    assert re.search(r"nnx: error: StopOnNaN: .* step \d+ \(epoch 1, batch \d+ of 23\).* smaller --lr", err)
    assert "Traceback" not in err


def test_debug_shows_the_traceback(capsys):
    with pytest.raises(FileNotFoundError):
        cli.main(["train", "nowhere", "--debug"])


@pytest.mark.parametrize("arguments", [[], ["fly"], ["train"], ["train", "digits", "--lr", "x"], ["predict", "x"]])
def test_usage_errors_are_code_2(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: nnx" in capsys.readouterr().err


# -- course ----------------------------------------------------------------------------------------


def test_course_lists_its_topics(capsys):
    code, out, _ = nnx_main(capsys, "course")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == nnx.course.names()
    assert re.search(r"^history +History: who found what .* \(F012\)$", out, re.MULTILINE)


def test_course_runs_a_topic_and_says_where_its_pictures_are(capsys, tmp_path):
    code, out, _ = nnx_main(capsys, "course", "history", "--small", "--out", tmp_path / "pictures")
    assert code == 0
    assert "1958  Frank Rosenblatt" in out
    if nnx.viz.available():
        assert out.splitlines()[-1].endswith("pictures: history-disguises.png, history-timeline.png")
        assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == [
            "history-disguises.png",
            "history-timeline.png",
        ]
        nnx_main(capsys, "course", "history", "--small")
        assert os.path.exists("runs/course/history-timeline.png")


def test_course_all_runs_every_topic_and_sums_the_times(capsys, monkeypatch):
    monkeypatch.setattr(nnx.course, "names", lambda: ["decision_regions", "history"])
    code, out, _ = nnx_main(capsys, "course", "all", "--small", "--seed", "3")
    assert code == 0
    assert re.findall(r"^== (\w+): ", out, re.MULTILINE) == ["decision_regions", "history"]
    assert len(re.findall(r"^-- [\d.]+ s$", out, re.MULTILINE)) == 2
    assert re.fullmatch(r"2 topics in [\d.]+ s", out.splitlines()[-1])


def test_course_refuses_what_is_no_topic(capsys):
    fails(capsys, r"course: expected one of the topics .*history.*, got 'histroy'", "course", "histroy")
    assert not os.path.exists("runs/course")


def test_python_m_nnx():
    result = subprocess.run([sys.executable, "-m", "nnx", "--version"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, f"nnx {nnx.__version__}\n")
    result = subprocess.run(
        [sys.executable, "-m", "nnx", "evaluate", "nowhere"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2 and result.stderr.startswith("nnx: error: expected the folder of a run")
