"""How many threads a kernel may use.

Kernels are told through their argument `num_threads`; OpenMP's own setting is never touched.
"""

import math
import os

cdef extern from *:
    """
    #ifdef _OPENMP
    #define NNX_HAS_OPENMP 1
    #else
    #define NNX_HAS_OPENMP 0
    #endif
    """
    const bint NNX_HAS_OPENMP

# Work, in simple operations on one element, that is worth a thread of its own: 5 to 20 us.
cdef double _GRAIN = 32768.0
cdef int _LIMIT = 4096

cdef int _count = 1
cdef bint _forked = False


cdef int num_threads() noexcept nogil:
    return _count


def has_openmp():
    """Return whether the kernels were built with OpenMP; without it everything is serial."""
    return bool(NNX_HAS_OPENMP)


def get_num_threads():
    """Return the number of threads that kernels use at most."""
    return _count


def set_num_threads(n):
    """Let kernels use `n` threads at most; more than there are cores is allowed.

    TypeError if `n` is no integer; ValueError if it is below 1 or above 4096; RuntimeError for more
    than one in a forked process, where OpenMP would wait for ever for threads of the parent.
    """
    global _count
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(
            f"set_num_threads: expected n to be an integer >= 1, got {n!r} ({type(n).__name__})"
        )
    value = n.__index__()
    if not 1 <= value <= _LIMIT:
        raise ValueError(
            f"set_num_threads: expected n to be an integer in [1, {_LIMIT}], got {value}"
        )
    if _forked and value > 1:
        raise RuntimeError(
            f"set_num_threads: expected n to be 1 in a forked process, got {value}. "
            "Start workers with multiprocessing's 'spawn' or 'forkserver' to use threads in them."
        )
    _count = value


def threads_for(double elements, double cost=1.0):
    """Return the number of threads for an operation: 1 if it is small, at most get_num_threads().

    `cost` is the work per element in units of one simple operation (a comparison, an addition).
    """
    cdef double useful = elements * cost / _GRAIN
    if _count == 1 or useful < 2.0:
        return 1
    return _count if useful >= _count else <int> useful


def default_num_threads():
    """Return what a fresh process starts with.

    NNX_NUM_THREADS if it is set; else the smallest of the CPUs the process may run on, its
    cgroup's CPU quota and OMP_NUM_THREADS. ValueError if NNX_NUM_THREADS is no positive integer.
    """
    own = os.environ.get("NNX_NUM_THREADS", "").strip()
    if own:
        if not own.isdecimal() or not 1 <= int(own) <= _LIMIT:
            raise ValueError(
                f"NNX_NUM_THREADS: expected an integer in [1, {_LIMIT}], got {own!r}"
            )
        return int(own)
    count = _cpus()
    quota = _cgroup_quota()
    if quota is not None:
        count = min(count, max(1, math.ceil(quota)))
    # May be a list with one entry per nesting level; a value that means nothing is ignored.
    general = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if general.isdecimal() and int(general) >= 1:
        count = min(count, int(general))
    return min(count, _LIMIT)


def _cpus():
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cgroup_quota(root="/sys/fs/cgroup", membership="/proc/self/cgroup"):
    """Return how many CPUs the cgroup (version 1 or 2) and its ancestors allow; None: no limit."""
    quotas = []
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        parts = [part for part in path.split("/") if part and part != ".."]
        if controllers == "":
            places = [root, f"{root}/unified"]
        elif "cpu" in controllers.split(","):
            places = [f"{root}/{controllers}", f"{root}/cpu"]
        else:
            continue
        # Inside a container the path may be the host's: what is not there reads as "".
        for place in places:
            for depth in range(len(parts) + 1):
                folder = "/".join([place, *parts[:depth]])
                if controllers == "":
                    limit, _, period = _read(f"{folder}/cpu.max").strip().partition(" ")
                else:
                    limit = _read(f"{folder}/cpu.cfs_quota_us").strip()
                    period = _read(f"{folder}/cpu.cfs_period_us").strip()
                if limit.isdecimal() and period.isdecimal() and int(limit) > 0 and int(period) > 0:
                    quotas.append(int(limit) / int(period))
    return min(quotas, default=None)


def _read(path):
    try:
        with open(path) as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return ""


def _after_fork():
    global _count, _forked
    _count = 1
    _forked = True


_count = default_num_threads()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
