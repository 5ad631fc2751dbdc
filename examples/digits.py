"""Train a small ConvNet on the 8x8 digits that ship with nnx: the example of the README, as a script."""

import numpy as np

import nnx
from nnx import nn


def main(epochs: int = 15) -> float:
    """Train for some epochs and return the accuracy on the test images."""
    nnx.manual_seed(0)
    digits = nnx.data.digits()
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 10),
    )
    optimizer = nnx.optim.Adam(model.parameters(), lr=3e-3)
    trainer = nnx.train.Trainer(model, nn.CrossEntropyLoss(), optimizer)
    trainer.fit(digits.x_train, digits.y_train, epochs=epochs, batch_size=64)
    scores = model.predict(digits.x_test)
    return float(np.mean(scores.argmax(1) == digits.y_test))


if __name__ == "__main__":
    print(f"test accuracy {main():.4f}")
