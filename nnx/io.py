"""Files: state dicts as safetensors, plain data as JSON. Nothing here reads or writes pickle.

A file appears under its name whole or not at all: it is written under a temporary name in the same folder, flushed to
the disk and renamed.
"""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from nnx._device import is_device_array, to_host

# The types of safetensors that NumPy has. BF16 is read too, as the float32 numbers that it stands for.
_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.uint8),
    "U8": np.dtype("<u1"),
    "I8": np.dtype("<i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
_WRITABLE = {np.dtype(bool), *(d for name, d in _DTYPES.items() if name not in ("BOOL", "BF16"))}
_RESERVED = "__metadata__"


# -- state dicts -----------------------------------------------------------------------------------


def save(obj: Any, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Write a model's weights, or any dict of arrays, to a safetensors file.

    obj:       a Module (its ``state_dict()`` is written) or a mapping of names to arrays, Tensors or numbers
    path:      replaced in one step: after a crash the old file or the new one is there, never a part
    metadata:  names to strings, kept in the file's header

    TypeError for what is no state dict or has a type the format lacks. Format:
    https://huggingface.co/docs/safetensors

    >>> import tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "w.safetensors")
    >>> save({"weight": np.ones((2, 2), np.float32)}, path)
    >>> load(path)["weight"].shape
    (2, 2)
    """
    from safetensors.numpy import save as to_bytes

    state = obj.state_dict() if hasattr(obj, "state_dict") else obj
    if not isinstance(state, Mapping):
        raise TypeError(f"save: expected a Module or a dict of arrays, got {type(obj).__name__}")
    arrays = {name: _storable(name, value) for name, value in state.items()}
    for key, text in (metadata or {}).items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"save: expected metadata to map strings to strings, got {key!r}: {text!r}")
    write_atomic(path, to_bytes(arrays, dict(metadata) if metadata else None))


def _storable(name: Any, value: Any) -> np.ndarray:
    """`value` as an array that the format can hold: dense in C order, in the machine's byte order."""
    if not isinstance(name, str) or name == _RESERVED:
        raise TypeError(
            f"save: expected the names of a state dict to be strings other than {_RESERVED!r}, got {name!r}"
        )
    if is_device_array(getattr(value, "data", None)):
        value = value.data  # a Tensor on a CUDA device
    array = to_host(value)
    array = array.astype(array.dtype.newbyteorder("="), order="C", copy=False)
    if array.dtype not in _WRITABLE:
        raise TypeError(
            f"save: expected {name!r} to be an array of bool, integers, float16, float32 or float64, "
            f"got {type(value).__name__} of dtype {array.dtype}"
        )
    return array


def load(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read a safetensors file into a dict of names to arrays.

    The arrays are the caller's own, not views of the file, so that the file may be saved over. BF16 becomes float32,
    without loss. ValueError, naming the file, for everything that is no sound safetensors file; FileNotFoundError and
    its kin as from `open`.

    >>> load("weights.pt")
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: 'weights.pt'
    """
    return load_with_metadata(path)[0]


def load_with_metadata(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Like `load`, with the metadata of the file's header beside the arrays."""
    from safetensors import SafetensorError, deserialize

    name = os.fspath(path)
    with open(path, "rb") as file:
        data = file.read()
    try:
        entries = deserialize(data)
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length], object_pairs_hook=_without_duplicates)
    except (SafetensorError, ValueError, RecursionError) as error:
        raise ValueError(
            f"load: expected {name!r} to be a safetensors file, got {_content(data)} ({error}).{_hint(data)}"
        ) from None
    arrays: dict[str, np.ndarray] = {}
    entry: dict[str, Any]
    for key, entry in entries:
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise ValueError(
                f"load: expected types among {', '.join(_DTYPES)} in {name!r}, "
                f"got {entry['dtype']} for {key!r}. Convert it to F32 first"
            )
        array = np.frombuffer(entry["data"], dtype).reshape(entry["shape"])
        if entry["dtype"] == "BOOL":
            array = np.asarray(array != 0)  # a byte of 2 is no bool, and NumPy would believe it
        elif entry["dtype"] == "BF16":
            array = np.asarray(array.astype(np.uint32) << 16).view(np.float32)
        elif not array.flags.writeable:
            array = array.copy()
        arrays[key] = array
    # the order of the header is the order in which the names were saved only by chance: make it a rule
    return dict(sorted(arrays.items())), header.get(_RESERVED, {})


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name appears twice in the header")
    return table


def _content(data: bytes) -> str:
    if data[:4] == b"PK\x03\x04" or data[:2] in (b"\x80\x02", b"\x80\x04", b"\x80\x05"):
        return "a zip archive or a pickle"
    return f"{len(data)} bytes that are none"


def _hint(data: bytes) -> str:
    if _content(data).startswith("a zip"):
        return (
            " nnx reads no pickle, which can run code. Where PyTorch is installed, convert with "
            "safetensors.torch.save_file(model.state_dict(), path)"
        )
    return ""


# -- JSON ------------------------------------------------------------------------------------------


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write plain data as JSON, in one step. NaN and infinities, which JSON lacks, become null."""
    text = json.dumps(_finite(value), indent=1, allow_nan=False, ensure_ascii=False)
    write_atomic(path, (text + "\n").encode())


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file; ValueError, naming the file, if it holds something else."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"read_json: expected {os.fspath(path)!r} to be JSON, got {error}") from None


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# -- writing in one step ---------------------------------------------------------------------------


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Put `data` under the name `path`, whole or not at all, and on the disk when this returns.

    The temporary file lies in the same folder, since a rename is atomic only within a file system. An existing file
    gives its permissions to the new one; a symbolic link stays one, and its target is replaced.
    """
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "The folder of the file does not exist", target)
    if os.path.isdir(target):
        raise IsADirectoryError(errno.EISDIR, "There is a folder of this name", target)
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(6)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(temporary, flags, 0o666), "wb")
    try:
        with file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if os.path.exists(target):
            os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    """Make a rename in `folder` survive a power cut, where the system knows how."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError:
        pass  # some network file systems refuse; the rename itself has happened
    finally:
        os.close(handle)


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Delete the temporary files that a killed process left in `folder`."""
    for name in os.listdir(folder):
        if name.startswith(".") and name.endswith(".tmp") and len(name.split(".")[-2]) == 12:
            os.unlink(os.path.join(folder, name))
