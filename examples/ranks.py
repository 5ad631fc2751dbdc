"""A training loop of one's own on several processes: ``mpiexec -n 2 python -m mpi4py examples/ranks.py``.

Started without mpiexec it is an ordinary loop on one process, with the same result up to rounding.
"""

import numpy as np

import nnx
import nnx.functional as F
from nnx import nn
from nnx.data import DataLoader
from nnx.distributed import DataParallel, world


def main(epochs: int = 12) -> float:
    """Train on the digits and return the accuracy on the test images."""
    ranks = world()
    nnx.manual_seed(0)
    digits = nnx.data.digits()
    model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10))
    parallel = DataParallel(model, ranks)  # every rank has the weights of rank 0 from here on
    optimizer = nnx.optim.Adam(model.parameters(), lr=3e-3)
    batches = DataLoader((digits.x_train, digits.y_train), 64, shuffle=True, seed=0).shard(ranks.rank, ranks.size)
    for epoch in range(epochs):
        for x, y in batches:  # this rank's part of each batch of 64
            optimizer.zero_grad()
            loss = F.cross_entropy(parallel(x), y)
            loss.backward()  # the gradients are now those of the whole batch, on every rank
            optimizer.step()
        if ranks.rank == 0:
            print(f"epoch {epoch + 1}: loss of rank 0's last samples {loss.item():.4f}", flush=True)
    scores = model.predict(digits.x_test)
    return float(np.mean(scores.argmax(1) == digits.y_test))


if __name__ == "__main__":
    accuracy = main()
    if world().rank == 0:
        print(f"test accuracy {accuracy:.4f}")
