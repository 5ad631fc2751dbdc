"""A differentiable operation of your own: forward and gradient in plain NumPy, checked, then trained with."""

import numpy as np

import nnx
from nnx import nn
from nnx.autograd import as_tensor, record
from nnx.testing import gradcheck


def soft_threshold(x, width=0.5):
    """Pull every value towards 0 by at most `width`: y = sign(x) max(|x| - width, 0)."""
    x = as_tensor(x)
    y = np.sign(x.data) * np.maximum(np.abs(x.data) - width, 0)
    return record(y, _soft_threshold_grad, (x,), y)


def _soft_threshold_grad(needs, gy, y):
    """One gradient per input; gy and what was saved are only read."""
    return (gy * (y != 0),)


class SoftThreshold(nn.Module):
    """`soft_threshold` as a layer, with a learned gain for each feature."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.gain = nnx.Parameter(np.ones(features, np.float32))

    def forward(self, x):
        return soft_threshold(x) * self.gain


def main(epochs: int = 30) -> float:
    """Check the gradient, train a small network with the new layer, return its accuracy on the test images."""
    gradcheck(soft_threshold, np.linspace(-2, 2, 12))
    nnx.manual_seed(0)
    digits = nnx.data.digits()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), SoftThreshold(128), nn.Linear(128, 10))
    trainer = nnx.train.Trainer(model, nn.CrossEntropyLoss(), nnx.optim.Adam(model.parameters(), lr=3e-3))
    trainer.fit(digits.x_train, digits.y_train, epochs=epochs, batch_size=64)
    scores = model.predict(digits.x_test)
    return float(np.mean(scores.argmax(1) == digits.y_test))


if __name__ == "__main__":
    print(f"test accuracy {main():.4f}")
