"""The thread count: where it comes from, who may change it, and what a fork does to it."""

from __future__ import annotations

import os

import numpy as np
import pytest

from nnx._ext import threads

SHOW = "from nnx._ext import threads; print(threads.get_num_threads())"


@pytest.fixture(autouse=True)
def restored():
    before = threads.get_num_threads()
    yield
    threads.set_num_threads(before)


@pytest.mark.parametrize("n", [1, 2, 64, np.int64(3)])
def test_set_and_get(n):
    threads.set_num_threads(n)
    assert threads.get_num_threads() == n


@pytest.mark.parametrize("n", [0, -1, 4097, 10**30])
def test_count_out_of_range(n):
    before = threads.get_num_threads()
    message = rf"set_num_threads: expected n to be an integer in \[1, 4096\], got {n}$"
    with pytest.raises(ValueError, match=message):
        threads.set_num_threads(n)
    assert threads.get_num_threads() == before


@pytest.mark.parametrize("n", [1.0, "2", None, True])
def test_count_of_wrong_type(n):
    with pytest.raises(TypeError, match=r"set_num_threads: expected n to be an integer >= 1, got"):
        threads.set_num_threads(n)


def test_small_work_stays_on_one_thread():
    threads.set_num_threads(4)
    assert threads.threads_for(0) == 1
    assert threads.threads_for(1000) == 1
    assert threads.threads_for(1000, 1000.0) == 4
    assert threads.threads_for(1e12) == 4
    assert 1 < threads.threads_for(3 * 32768) < 4
    threads.set_num_threads(1)
    assert threads.threads_for(1e12) == 1


def test_own_variable_sets_the_default(run_python):
    assert run_python(SHOW, NNX_NUM_THREADS="1").stdout.strip() == "1"
    assert run_python(SHOW, NNX_NUM_THREADS="7").stdout.strip() == "7"
    assert run_python(SHOW, NNX_NUM_THREADS="3", OMP_NUM_THREADS="1").stdout.strip() == "3"


def test_openmp_variable_lowers_the_default(run_python):
    usual = run_python(SHOW).stdout
    assert run_python(SHOW, OMP_NUM_THREADS="1").stdout.strip() == "1"
    assert run_python(SHOW, OMP_NUM_THREADS="1,2").stdout.strip() == "1"
    assert run_python(SHOW, OMP_NUM_THREADS="4096").stdout == usual
    assert run_python(SHOW, OMP_NUM_THREADS="nonsense").stdout == usual


@pytest.mark.parametrize("value", ["0", "-2", "two", "1.5", "99999"])
def test_own_variable_out_of_range(run_python, value):
    result = run_python(SHOW, NNX_NUM_THREADS=value)
    assert result.returncode != 0
    expected = f"NNX_NUM_THREADS: expected an integer in [1, 4096], got '{value}'"
    assert expected in result.stderr


def cgroup(folder, membership, files):
    """Write a cgroup file system and return what is read from it."""
    for name, text in files.items():
        path = folder / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "membership").write_text(membership)
    return threads._cgroup_quota(str(folder / "root"), str(folder / "membership"))


def test_quota_of_cgroup_version_2(tmp_path):
    files = {"a/cpu.max": "150000 100000\n", "a/b/cpu.max": "max 100000\n"}
    assert cgroup(tmp_path, "0::/a/b\n", files) == 1.5


def test_quota_of_cgroup_version_2_inside_a_container(tmp_path):
    assert cgroup(tmp_path, "0::/../outside\n", {"cpu.max": "200000 100000\n"}) == 2.0


def test_quota_of_cgroup_version_1(tmp_path):
    files = {
        "cpu,cpuacct/job/cpu.cfs_quota_us": "300000\n",
        "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
        "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    }
    assert cgroup(tmp_path, "5:memory:/job\n4:cpu,cpuacct:/job\n", files) == 3.0


def test_no_quota(tmp_path):
    assert cgroup(tmp_path, "0::/\n", {"cpu.max": "max 100000\n"}) is None
    assert cgroup(tmp_path, "0::/\n", {"cpu.max": "broken"}) is None
    assert threads._cgroup_quota("/nowhere", "/nowhere") is None


FORK = """
import os, sys, warnings
import numpy as np
from nnx._ext import activation, threads
warnings.simplefilter("ignore")  # Python 3.12 and later warn about forking with threads
threads.set_num_threads(2)
x = np.linspace(-1, 1, 1_000_000)
y = np.empty_like(x)
activation.relu(x, y, 2)
child = os.fork()
if child == 0:
    ok = threads.get_num_threads() == 1 and threads.threads_for(1e12) == 1
    threads.set_num_threads(1)
    try:
        threads.set_num_threads(2)
        ok = False
    except RuntimeError as error:
        ok = ok and "expected n to be 1 in a forked process, got 2" in str(error)
    z = np.empty_like(x)
    activation.relu(x, z, threads.threads_for(x.size))
    os._exit(0 if ok and np.array_equal(y, z) else 1)
status = os.waitpid(child, 0)[1]
assert threads.get_num_threads() == 2
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_child_is_serial_and_does_not_hang(run_python):
    result = run_python(FORK)
    assert result.returncode == 0, result.stderr
