"""What data gradients add and are cut by as they are stored: all kernels refuse wrong arrays in the same words."""

from __future__ import annotations

import numpy as np
import pytest

from cases._layouts import empty_last, last
from nnx._ext import direct_data, winograd, winograd_images

F = np.float32
GY, W, GX = last(np.ones((2, 6, 5, 5), F)), np.ones((6, 4, 3, 3), F), empty_last((2, 4, 5, 5), F)
KERNELS = {
    "direct.data_grad": lambda **joined: direct_data.data_grad(GY, W, None, GX, (1, 1), (1, 1), (1, 1), 1, 1, **joined),
    "winograd.data_grad": lambda **joined: winograd.data_grad(GY, W, GX, (1, 1), 1, **joined),
    "winograd_images.backward": lambda **joined: winograd_images.backward(
        GY, None, GX, None, W, GX.copy(order="K"), W.copy(), (1, 1), 1, **joined
    ),
}


@pytest.mark.parametrize("name", ["added", "positive"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_errors(kernel, name):
    for other, error, message in (
        (last(np.ones((2, 4, 5, 6), F)), ValueError, r"of the result's shape \(2, 4, 5, 5\), got \(2, 4, 5, 6\)"),
        (np.ones((2, 4, 5, 5), F), ValueError, "to be channels-last in memory"),
        (last(np.ones((2, 4, 5, 5))), TypeError, "arrays of one dtype, got"),
    ):
        with pytest.raises(error, match=f"{kernel}: expected .*{message}"):
            KERNELS[kernel](**{name: other})
    KERNELS[kernel](**{name: last(np.ones((2, 4, 5, 5), F))})
