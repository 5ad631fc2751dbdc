"""Autoencoders: a network that reproduces its input through a narrow code, linear and nonlinear.

A linear autoencoder with the squared error finds what principal component analysis computes: the plane that is nearest
to the data. Nonlinear layers bend that plane and leave less of the images out with a code of the same length.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import nnx
import nnx.functional as F
from nnx import nn, viz
from nnx.course import picture

ROWS = ("F175",)


def principal_components(x: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first `count` principal axes of centred rows `x`, as columns, and the variances along all axes."""
    _, scales, axes = np.linalg.svd(np.asarray(x), full_matrices=False)
    return axes[:count].T, scales**2 / len(x)


def subspace_angle(a: Any, b: Any) -> float:
    """The largest angle, in degrees, between the planes that the columns of `a` and of `b` span.

    It is exact for small angles too, where the cosine says nothing: sin(angle) = ||(I - A A^T) B||, for orthonormal
    columns.

    >>> round(subspace_angle([[1.0, 0], [0, 1], [0, 0]], [[2.0, 1], [1, 1], [0, 1]]), 3)
    65.905
    """
    a, b = np.linalg.qr(np.asarray(a))[0], np.linalg.qr(np.asarray(b))[0]
    sine = float(np.linalg.norm(b - a @ (a.T @ b), 2))
    return float(np.degrees(np.arcsin(min(sine, 1.0))))


def linear_autoencoder(x: np.ndarray, code: int, iterations: int = 2000) -> tuple[nn.Sequential, float]:
    """Fit ``x -> W2 W1 x`` to centred rows by L-BFGS in double precision; return it and its mean squared error."""
    features = x.shape[1]
    model = nn.Sequential(nn.Linear(features, code, bias=False), nn.Linear(code, features, bias=False)).double()

    def closure() -> nnx.Tensor:
        loss = F.mse_loss(model(x), x)
        loss.backward()
        return loss

    options = {"maxiter": iterations, "maxfun": 2 * iterations, "ftol": 0.0, "gtol": 1e-9, "maxcor": 30}
    result = nnx.optim.minimize(model, closure, options=options)
    return model, float(result.fun)


def nonlinear_autoencoder(code: int, width: int = 128) -> nn.Module:
    """Digits ``(N, 64)`` in 0..1 to themselves, through `code` numbers between "encode" and "decode"."""
    encode = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, code))
    decode = nn.Sequential(
        nn.Linear(code, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 64), nn.Sigmoid()
    )
    return nn.Sequential({"encode": encode, "decode": decode})


def run(out: Path | None = None, small: bool = False, seed: int = 0) -> dict[str, Any]:
    """Compare a linear autoencoder with PCA, and a nonlinear one with both, on the digits."""
    nnx.manual_seed(seed)
    digits = nnx.data.digits("float64")
    train, test = digits.x_train.reshape(-1, 64), digits.x_test.reshape(-1, 64)
    mean = train.mean(axis=0)
    code = 2 if small else 8

    axes, variances = principal_components(train - mean, code)
    pca_mse = float(variances[code:].sum() / 64)
    linear, linear_mse = linear_autoencoder(train - mean, code, 300 if small else 2000)
    angle = subspace_angle(axes, linear[1].weight.data)
    print(f"code of {code} numbers; mean squared error on the training digits")
    print(f"  PCA, from the variances it leaves out: {pca_mse:.8f}")
    print(f"  linear autoencoder:                    {linear_mse:.8f}")
    print(f"largest angle between the planes of the two: {angle:.2e} degrees")

    model = nonlinear_autoencoder(code)
    epochs = 3 if small else 60
    optimizer = nnx.optim.Adam(model.parameters(), lr=2e-3)
    schedule = nnx.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    trainer = nnx.train.Trainer(model, nn.MSELoss(), optimizer, scheduler=schedule, metrics=())
    pixels = train.astype(np.float32)
    trainer.fit(pixels, pixels, epochs=epochs, batch_size=32, seed=seed)
    by_pca = mean + (test - mean) @ axes @ axes.T
    by_network = model.predict(test.astype(np.float32))
    pca_test, network_test = (float(np.mean((y - test) ** 2)) for y in (by_pca, by_network))
    print(f"on the test digits: PCA {pca_test:.5f}, nonlinear autoencoder {network_test:.5f}")
    if path := picture(out, "autoencoder-digits"):
        rows = np.concatenate([test[:10], by_pca[:10], by_network[:10]]).reshape(-1, 8, 8)
        viz.images(np.clip(rows, 0, 1), columns=10, path=path)
    if path := picture(out, "autoencoder-axes"):
        viz.images(axes.T.reshape(-1, 8, 8), columns=code, path=path)
    return {
        "pca_mse": pca_mse,
        "linear_mse": linear_mse,
        "angle": angle,
        "pca_test_mse": pca_test,
        "network_test_mse": network_test,
    }
