"""How the families of the CUDA backend fit together."""

from __future__ import annotations


def test_no_two_families_define_the_same_name(cuda):
    """A method of one family would hide the other's without a word."""
    from nnx.backends.cuda import CUDABackend

    owners: dict[str, str] = {}
    for family in CUDABackend.__bases__:
        if family.__module__.startswith("nnx.backends.cuda."):
            for name, thing in vars(family).items():
                if callable(thing) or isinstance(thing, (staticmethod, classmethod, property)):
                    assert owners.setdefault(name, family.__name__) == family.__name__, name


def test_overrides_have_the_arguments_of_the_base(cuda):
    import inspect

    from nnx.backends.base import Backend
    from nnx.backends.cuda import CUDABackend

    for family in CUDABackend.__bases__[:-1]:
        for name, method in vars(family).items():
            if not name.startswith("_") and inspect.isfunction(method):
                expected = inspect.signature(getattr(Backend, name)).parameters
                got = inspect.signature(method).parameters
                assert [(p.name, p.default) for p in got.values()] == [
                    (p.name, p.default) for p in expected.values()
                ], f"{family.__name__}.{name}"
