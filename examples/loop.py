"""The training loop written out: what Trainer does, for those who want it in their own hands."""

import numpy as np

import nnx
import nnx.functional as F
from nnx import nn


class Residual(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: nnx.Tensor) -> nnx.Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(y)))


def main(epochs: int = 6) -> float:
    """Train a small residual network on the digits and return its accuracy on the test images."""
    nnx.manual_seed(0)
    rng = np.random.default_rng(0)
    digits = nnx.data.digits()
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        Residual(16),
        nn.MaxPool2d(2),
        Residual(16),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    optimizer = nnx.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    steps = epochs * -(-len(digits.x_train) // 64)
    schedule = nnx.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    for _ in range(epochs):
        order = rng.permutation(len(digits.x_train))
        for start in range(0, len(order), 64):
            batch = order[start : start + 64]
            optimizer.zero_grad()
            loss = F.cross_entropy(model(digits.x_train[batch]), digits.y_train[batch])
            loss.backward()
            optimizer.step()
            schedule.step()
    scores = model.predict(digits.x_test)
    return float(np.mean(scores.argmax(1) == digits.y_test))


if __name__ == "__main__":
    print(f"test accuracy {main():.4f}")
