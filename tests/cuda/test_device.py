"""Moving models, arrays and state between devices; what is refused. On the stand-in for CuPy."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import nnx
from nnx import nn, optim
from nnx.train import Checkpoint, Trainer


def small_model(seed=0):
    nnx.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    )


def batch(seed=0, n=5):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 1, 6, 6)).astype(np.float32), rng.integers(0, 3, n)


def trained(model, x, y, steps=3, make=lambda p: optim.SGD(p, lr=0.1, momentum=0.9)):
    optimizer, loss_function = make(model.parameters()), nn.CrossEntropyLoss()
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_function(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.item()))
    return losses, optimizer


def close(a, b, tolerance=1e-5):
    nnx.testing.assert_close(a, b, tolerance, tolerance)


# -- what is missing -------------------------------------------------------------------------------


def test_without_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ImportError, match=r'Linear.to: expected CuPy for CUDA.*pip install "nnx-core\[cuda13\]"'):
        nn.Linear(2, 2).to("cuda")
    assert not nnx.cuda.is_available()


def test_with_a_broken_cupy(tmp_path):
    (tmp_path / "cupy.py").write_text("raise OSError('libcudart.so: cannot open shared object file')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import nnx; nnx.nn.Linear(2, 2, device='cuda')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: Linear: expected a working CuPy for CUDA, its import fails: libcudart.so" in result.stderr


def test_without_a_driver(cuda):
    from standin import Machine

    Machine.error = ("cudaErrorInsufficientDriver", "CUDA driver version is insufficient for CUDA runtime version")
    with pytest.raises(
        RuntimeError, match="Tensor.to: expected a working NVIDIA driver for CUDA, CuPy reports: cudaErrorI"
    ):
        nnx.tensor([1.0]).to("cuda")
    assert not nnx.cuda.is_available()


def test_without_a_device(cuda):
    from standin import Machine

    Machine.error = ("cudaErrorNoDevice", "no CUDA-capable device is detected")
    with pytest.raises(RuntimeError, match="Linear.to: expected a CUDA device, got a driver that shows none"):
        nn.Linear(2, 2).to("cuda")


def test_device_numbers(cuda):
    with pytest.raises(
        ValueError, match=r"Linear.to: expected device below cuda:1 \(CuPy sees 1 of them\), got 'cuda:3'"
    ):
        nn.Linear(2, 2).to("cuda:3")
    assert nn.Linear(2, 2).to("cuda").weight.device == "cuda:0"


# -- models ----------------------------------------------------------------------------------------


def test_a_model_moves_there_and_back(cuda):
    model, (x, y) = small_model(), batch()
    expected = model.eval()(x).numpy()
    weight = model[0].weight
    assert model.to("cuda") is model
    assert model[0].weight is weight, "optimizers hold the parameter"
    assert {p.device for p in model.parameters()} == {"cuda:0"}
    assert type(model[1].running_mean) is cuda.ndarray
    y = model(cuda.asarray(x))
    assert y.device == "cuda:0"
    close(y, expected)
    model.to("cpu")
    assert type(model[1].running_mean) is np.ndarray and {p.device for p in model.parameters()} == {"cpu"}
    np.testing.assert_array_equal(model(x).numpy(), expected)


def test_gradients_move_along(cuda):
    model, (x, y) = small_model(), batch()
    nn.CrossEntropyLoss()(model(x), y).backward()
    before = [p.grad.copy() for p in model.parameters()]
    model.cuda()
    assert all(type(p.grad) is cuda.ndarray for p in model.parameters())
    for p, g in zip(model.cpu().parameters(), before, strict=True):
        np.testing.assert_array_equal(p.grad, g)


def test_type_and_device_at_once(cuda):
    model = small_model().to("cuda", np.float64)
    assert model[0].weight.dtype == np.float64 and model[0].weight.device == "cuda:0"


def test_a_move_that_fails_changes_nothing(cuda, monkeypatch):
    model = small_model()
    calls = []

    def full(array, *args, **kwargs):
        calls.append(array)
        if len(calls) == 3:
            raise MemoryError("out of memory")
        return original(array, *args, **kwargs)

    original = cuda.array
    monkeypatch.setattr(cuda, "array", full)
    with pytest.raises(MemoryError):
        model.to("cuda")
    assert {p.device for p in model.parameters()} == {"cpu"}


def test_layers_are_made_on_a_device(cuda):
    nnx.manual_seed(3)
    there = nn.Linear(4, 3, device="cuda")
    nnx.manual_seed(3)
    here = nn.Linear(4, 3)
    np.testing.assert_array_equal(there.weight.numpy(), here.weight.data)
    for layer in (nn.Conv2d(1, 2, 3, device="cuda"), nn.BatchNorm1d(3, device="cuda"), nn.LSTM(2, 3, device="cuda")):
        assert {p.device for p in layer.parameters()} == {"cuda:0"}


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: optim.Adam(p, lr=0.01),
        lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
        lambda p: optim.Adagrad(p, lr=0.1),
        lambda p: optim.Adadelta(p),
    ],
    ids=("sgd", "adam", "rmsprop", "adagrad", "adadelta"),
)
def test_training_there_is_training_here(cuda, make):
    x, y = batch()
    expected, _ = trained(small_model(), x, y, make=make)
    actual, _ = trained(small_model().to("cuda"), cuda.asarray(x), cuda.asarray(y), make=make)
    np.testing.assert_allclose(actual, expected, rtol=1e-4)
    assert actual[-1] != actual[0]


def test_lbfgs(cuda):
    x, y = batch()
    results = []
    for there in (False, True):
        model = small_model().to("cuda") if there else small_model()
        optimizer = optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
        a, b = (cuda.asarray(x), cuda.asarray(y)) if there else (x, y)

        def closure(model=model, optimizer=optimizer, a=a, b=b):
            optimizer.zero_grad()
            loss = nn.CrossEntropyLoss()(model(a), b)
            loss.backward()
            return loss

        results.append([optimizer.step(closure).item() for _ in range(2)])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-4)


def test_an_optimizer_follows_its_model(cuda):
    x, y = batch()
    expected, _ = trained(small_model(), x, y, steps=4)
    model = small_model()
    optimizer, loss_function = optim.SGD(model.parameters(), lr=0.1, momentum=0.9), nn.CrossEntropyLoss()
    losses = []
    for step in range(4):
        there = step in (1, 2)
        model.to("cuda" if there else "cpu")
        a, b = (cuda.asarray(x), cuda.asarray(y)) if there else (x, y)
        optimizer.zero_grad()
        loss = loss_function(model(a), b)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.item()))
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_clipping_there_is_clipping_here(cuda):
    x, y = batch()
    norms = []
    for model, a, b in ((small_model(), x, y), (small_model().to("cuda"), cuda.asarray(x), cuda.asarray(y))):
        nn.CrossEntropyLoss()(model(a), b).backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 0.1).item()))
        nn.utils.clip_grad_value_(model.parameters(), 0.01)
    np.testing.assert_allclose(norms[1], norms[0], rtol=1e-5)


# -- mixed devices ---------------------------------------------------------------------------------


def test_mixed_devices_are_named(cuda):
    x, _ = batch()
    there = cuda.asarray(x)
    conv = nn.Conv2d(1, 2, 3)
    message = r'Conv2d: expected input on cpu like weight, got it on cuda:0. Move one: .to\("cpu"\)'
    with pytest.raises(ValueError, match=message):
        conv(there)
    with pytest.raises(ValueError, match="Conv2d: expected input on cuda:0 like weight, got it on cpu"):
        conv.to("cuda")(x)
    with pytest.raises(ValueError, match="Linear: expected input on cuda:0 like weight, got it on cpu"):
        nn.Linear(6, 2, device="cuda")(x)
    with pytest.raises(ValueError, match="BatchNorm2d: expected input on cpu like weight, got it on cuda:0"):
        nn.BatchNorm2d(1)(there)
    with pytest.raises(ValueError, match="PReLU: expected input on cpu like weight, got it on cuda:0"):
        nn.PReLU()(there)
    with pytest.raises(ValueError, match="arithmetic: expected other on cpu like input, got it on cuda:0"):
        nnx.tensor(x) + nnx.tensor(there)
    with pytest.raises(ValueError, match="arithmetic: expected other on cuda:0 like the Tensor, got it on cpu"):
        nnx.tensor(there) * x
    with pytest.raises(ValueError, match="Tensor.backward: expected gradient on cuda:0 like the Tensor, got it on cpu"):
        (nnx.Tensor(there, requires_grad=True) * 2).backward(x)
    with pytest.raises(TypeError, match=r"numpy.asarray: expected a Tensor on cpu, got one on cuda:0. Use .numpy\(\)"):
        np.asarray(nnx.tensor(there))


def test_a_failed_step_changes_nothing(cuda):
    layer = nn.Linear(3, 2)
    optimizer = optim.SGD(layer.parameters(), lr=0.1)
    before = layer.weight.data.copy()
    layer.weight.grad = cuda.ones((2, 3), np.float32)
    layer.bias.grad = np.ones(2, np.float32)
    with pytest.raises(ValueError, match="SGD.step: expected its .grad on cpu like parameter 0, got it on cuda:0"):
        optimizer.step()
    np.testing.assert_array_equal(layer.weight.data, before)


def test_numbers_of_the_host_go_along(cuda):
    x = nnx.tensor(cuda.asarray([1.0, 2.0]))
    assert (x * 2 + np.float64(1) - np.asarray(0.5)).tolist() == [2.5, 4.5]


def test_two_devices(cuda):
    from standin import Machine

    Machine.devices = 2
    assert nnx.cuda.device_count() == 2
    x = np.ones((2, 3), np.float32)
    with nnx.cuda.device(1):
        layer = nn.Linear(3, 2).to("cuda")
        assert layer.weight.device == "cuda:1"
        y = layer(nnx.tensor(x).to("cuda:1"))
        assert y.device == "cuda:1"
    other = nnx.tensor(x).to("cuda:0")
    with pytest.raises(ValueError, match="Linear: expected input on cuda:1 like weight, got it on cuda:0"):
        layer(other)
    assert other.to("cuda:1").device == "cuda:1"


# -- arrays ----------------------------------------------------------------------------------------


def test_tensors_move_and_gradients_come_back(cuda):
    x = nnx.Tensor(np.array([1.0, 2.0, 3.0]), requires_grad=True)
    y = x.to("cuda")
    assert y.device == "cuda:0" and x.to("cpu") is x and y.cuda() is y
    assert repr(y.detach()) == "tensor([1., 2., 3.], dtype=float64, device='cuda:0')"
    (y * y).sum().backward()
    assert type(x.grad) is np.ndarray
    assert x.grad.tolist() == [2.0, 4.0, 6.0]
    assert y.cpu().numpy().tolist() == y.numpy().tolist() == [1.0, 2.0, 3.0]


def test_a_move_keeps_the_layout(cuda):
    x = np.zeros((2, 3, 4, 5), np.float32).transpose(0, 3, 1, 2)
    there = nnx.tensor(x).to("cuda").data
    assert there.strides == x.strides
    assert nnx.tensor(there).to("cpu").data.strides == x.strides


def test_dlpack_both_ways(cuda):
    there = cuda.asarray(np.arange(3.0))
    assert nnx.from_dlpack(there).device == "cuda:0"
    assert nnx.tensor(there).__dlpack_device__() == there.__dlpack_device__()
    here = np.arange(3.0)
    y = nnx.from_dlpack(here)
    assert y.device == "cpu" and np.shares_memory(y.data, here)
    with pytest.raises(TypeError, match="from_dlpack: expected an object with __dlpack__, got list"):
        nnx.from_dlpack([1.0])

    class Elsewhere:
        def __dlpack__(self, **kwargs):
            raise AssertionError

        def __dlpack_device__(self):
            return 7, 0

    with pytest.raises(
        ValueError, match="from_dlpack: expected memory of the CPU or of a CUDA device, got DLPack device type 7"
    ):
        nnx.from_dlpack(Elsewhere())


def test_predict_takes_arrays_from_anywhere(cuda):
    model, (x, _) = small_model().eval(), batch(n=7)
    expected = model.predict(x)
    model.to("cuda")
    here, there = model.predict(x, batch_size=3), model.predict(cuda.asarray(x), batch_size=3)
    assert type(here) is np.ndarray and type(there) is cuda.ndarray
    close(here, expected)
    close(there, expected)
    assert "parameters: 159" in model.summary((1, 6, 6))


# -- files -----------------------------------------------------------------------------------------


def test_files_know_no_device(cuda, tmp_path):
    model = small_model().to("cuda")
    nnx.save(model, tmp_path / "w.safetensors")
    nnx.save({"x": nnx.tensor(cuda.ones(2)), "y": cuda.zeros(2)}, tmp_path / "xy.safetensors")
    assert nnx.load(tmp_path / "xy.safetensors")["x"].tolist() == [1.0, 1.0]
    other = small_model(seed=1)
    other.load_state_dict(nnx.load(tmp_path / "w.safetensors"))
    np.testing.assert_array_equal(other[0].weight.data, model[0].weight.numpy())
    model.load_state_dict(small_model(seed=1).state_dict())
    assert model[0].weight.device == "cuda:0"
    other.load_state_dict(model.state_dict())
    assert other[0].weight.device == "cpu"


def test_optimizer_state_loads_on_the_other_device(cuda):
    x, y = batch()
    model = small_model().to("cuda")
    _, there = trained(model, cuda.asarray(x), cuda.asarray(y))
    here = optim.SGD(small_model().parameters(), lr=0.1, momentum=0.9)
    here.load_state_dict(there.state_dict())
    for p, q in zip(here.param_groups[0]["params"], model.parameters(), strict=True):
        assert type(here.state[p]["momentum_buffer"]) is np.ndarray
        np.testing.assert_array_equal(here.state[p]["momentum_buffer"], there.state[q]["momentum_buffer"].get())


def test_a_run_is_resumed_on_the_other_device(cuda, tmp_path):
    x, y = batch(n=12)

    def fit(epochs, device, resume=None):
        model = small_model()
        trainer = Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=0.01), device=device)
        saving = Checkpoint(tmp_path / f"{device}-{epochs}")
        history = trainer.fit(
            x, y, epochs=epochs, batch_size=4, seed=5, verbose=False, resume=resume, callbacks=[saving]
        )
        return history, trainer

    expected, _ = fit(4, "cpu")
    fit(2, "cuda")
    resumed, _ = fit(4, "cpu", tmp_path / "cuda-2")
    np.testing.assert_allclose(resumed.loss, expected.loss, rtol=1e-4)
    again, trainer = fit(4, "cuda", tmp_path / "cuda-2")
    np.testing.assert_allclose(again.loss, expected.loss, rtol=1e-4)
    assert trainer.model[0].weight.device == "cuda:0"
    assert 0 <= trainer.evaluate(x, y)["accuracy"] <= 1


def test_the_command_line_takes_a_device(cuda, tmp_path, capsys):
    from nnx.cli import main

    arguments = ["train", "digits", "--model", "lenet5", "--epochs", "1", "--device", "cuda:9", "--out", str(tmp_path)]
    assert main(arguments) == 2
    assert "--device: expected device below cuda:1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# -- the room --------------------------------------------------------------------------------------


def test_the_room(cuda):
    assert nnx.cuda.is_available() and nnx.cuda.device_count() == 1
    assert nnx.cuda.describe() == "14.2.0, 1 device"
    nnx.cuda.synchronize()
    nnx.cuda.empty_cache()
    with nnx.cuda.set_float32_matmul_precision("high"):
        assert nnx.cuda.get_float32_matmul_precision() == "high"
    assert nnx.cuda.get_float32_matmul_precision() == "highest"
    with pytest.raises(ValueError, match="set_float32_matmul_precision: expected precision to be one of"):
        nnx.cuda.set_float32_matmul_precision("low")


def test_nothing_of_it_is_imported_before_it_is_asked_for():
    code = (
        "import sys, numpy as np, nnx; nnx.nn.Linear(2, 2)(np.ones((1, 2))).sum().backward(); "
        "assert not [m for m in sys.modules if m.startswith(('cupy', 'nnx.cuda', 'nnx.backends.cuda'))]"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
