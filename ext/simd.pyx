"""The choice of an instruction-set level: which of the compiled tables of C kernels is used."""

import os

cdef extern from "table.h" nogil:
    const nnx_table nnx_tables[]
    const int nnx_table_count
    int nnx_cpu_runs(const char *level)

cdef const nnx_table *_table = NULL


cdef const nnx_table *table() noexcept nogil:
    return _table


def levels():
    """Return the names of the levels that were built, from the lowest to the highest."""
    cdef int i
    return tuple([nnx_tables[i].level.decode() for i in range(nnx_table_count)])


def supported_levels():
    """Return the names of the built levels that this CPU and operating system can run."""
    cdef int i
    return tuple(
        [nnx_tables[i].level.decode() for i in range(nnx_table_count)
         if nnx_cpu_runs(nnx_tables[i].level)]
    )


def level():
    """Return the name of the level in use."""
    return _table.level.decode()


def force_level(str name not None):
    """Use the level `name` from now on and return the name of the previous one.

    For tests; not while another thread computes. ValueError if the level was not built or this
    CPU cannot run it.
    """
    previous = level()
    _choose(name, "force_level")
    return previous


cdef int _choose(str name, str owner) except -1:
    global _table
    cdef int i
    allowed = supported_levels()
    if name not in allowed:
        if name not in ("base", "v2", "v3", "v4"):
            reason = "no such level exists"
        elif name in levels():
            reason = "this CPU or operating system cannot run it"
        else:
            reason = "it was not built"
        raise ValueError(
            f"{owner}: expected a level out of {', '.join(allowed)}, got {name!r}: {reason}"
        )
    for i in range(nnx_table_count):
        if nnx_tables[i].level.decode() == name:
            _table = &nnx_tables[i]
    return 0


def _choose_first():
    *_, highest = supported_levels()
    _choose(os.environ.get("NNX_LEVEL") or highest, "NNX_LEVEL")


_choose_first()
