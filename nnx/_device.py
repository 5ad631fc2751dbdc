"""Where arrays live: on the CPU (NumPy) or on a CUDA device (CuPy). CuPy is loaded when a CUDA device is asked for.

A device is a string: "cpu", or "cuda:0" with the number of the GPU; "cuda" alone means the current one.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

CPU = "cpu"
_INSTALL = 'Install it for your CUDA: pip install "nnx-core[cuda13]" or "nnx-core[cuda12]"'
_NO_DEVICE = 100  # cudaErrorNoDevice


def is_device_array(value: Any) -> bool:
    """Whether `value` is an array on a CUDA device."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(value, cupy.ndarray)


def is_array(value: Any) -> bool:
    """Whether `value` is an array, wherever it lives."""
    return isinstance(value, np.ndarray) or is_device_array(value)


def device_of(array: Any) -> str:
    """The device that an array is on."""
    return f"cuda:{array.device.id}" if is_device_array(array) else CPU


def as_array(value: Any) -> Any:
    """What a caller gave, as an array where it is: arrays as they are, everything else by way of NumPy."""
    return value if type(value) is np.ndarray or is_device_array(value) else np.asarray(value)


def is_writeable(array: Any) -> bool:
    """Whether the array's numbers can be changed; on a CUDA device they always can."""
    return getattr(array.flags, "writeable", True)


def empty_like(array: Any) -> Any:
    """An uninitialised array in the memory layout of `array` and where it is; never of a subclass of NumPy's."""
    return np.empty_like(array, subok=False) if isinstance(array, np.ndarray) else np.empty_like(array)


def to_host(value: Any) -> np.ndarray:
    """The array in the CPU's memory: itself, or a copy of what a device holds."""
    return move(value, CPU) if is_device_array(value) else np.asarray(value)


def same_device(owner: str, **arrays: Any) -> None:
    """Refuse arrays that are not all where the first of them is; None is passed over.

    arrays:  by the names of the arguments: ``same_device("conv2d", weight=w, input=x, bias=b)``
    """
    if "cupy" not in sys.modules:
        return
    known = iter((name, array) for name, array in arrays.items() if array is not None)
    first, reference = next(known)
    for name, array in known:
        if type(array) is not type(reference) or is_device_array(array):
            here, there = device_of(array), device_of(reference)
            if here != there:
                raise ValueError(
                    f'{owner}: expected {name} on {there} like {first}, got it on {here}. Move one: .to("{there}")'
                )


def names_device(value: Any) -> bool:
    """Whether an argument of `to` is a device and not a dtype."""
    return isinstance(value, str) and (value == CPU or value.partition(":")[0] == "cuda")


def parse(owner: str, device: Any) -> str:
    """A device as the caller wrote it, checked and with its number: None and "cpu" are "cpu", "cuda" may be "cuda:0".

    ValueError for other names and numbers without a device; for CUDA, ImportError without CuPy and RuntimeError
    without a driver or a device, each with its own text.
    """
    if device is None:
        return CPU
    name = str(device)
    if name == CPU:
        return CPU
    kind, colon, number = name.partition(":")
    if kind != "cuda" or (colon and not number.isdecimal()):
        raise ValueError(f'{owner}: expected device to be "cpu", "cuda" or "cuda:0", got {device!r}')
    cupy = load_cupy(owner)
    count = _count(owner, cupy)
    index = int(number) if colon else cupy.cuda.runtime.getDevice()
    if index >= count:
        raise ValueError(f"{owner}: expected device below cuda:{count} (CuPy sees {count} of them), got {name!r}")
    return f"cuda:{index}"


def move(array: Any, device: str) -> Any:
    """The array on `device`, a result of `parse`: itself if it is there, else a copy in the same memory layout."""
    if device == device_of(array):
        return array
    # CuPy copies to C order: turn the axes into the order that they have in memory, and back behind the copy
    order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    back = sorted(range(array.ndim), key=order.__getitem__)
    array = array.transpose(order)
    if device == CPU:
        return array.get().transpose(back)
    cupy = load_cupy("to")
    index = int(device.partition(":")[2])
    with cupy.cuda.Device(index):
        copy = array.copy() if is_device_array(array) else cupy.array(array)
        return copy.transpose(back)


def load_cupy(owner: str) -> Any:
    """The module cupy; ImportError with what to do where it is missing or broken."""
    try:
        import cupy
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise ImportError(f"{owner}: expected a working CuPy for CUDA, its import fails: {error}") from error
        raise ImportError(f"{owner}: expected CuPy for CUDA, got none. {_INSTALL}") from None
    except Exception as error:  # CuPy's compiled parts raise various types when libraries of CUDA are missing
        raise ImportError(f"{owner}: expected a working CuPy for CUDA, its import fails: {error}") from error
    return cupy


def _count(owner: str, cupy: Any) -> int:
    """The number of devices, at least one."""
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if getattr(error, "status", None) != _NO_DEVICE:
            raise RuntimeError(
                f"{owner}: expected a working NVIDIA driver for CUDA, CuPy reports: {error}. "
                "Install or update the driver"
            ) from None
        count = 0
    if count == 0:
        raise RuntimeError(
            f"{owner}: expected a CUDA device, got a driver that shows none. Is CUDA_VISIBLE_DEVICES set?"
        )
    return count
