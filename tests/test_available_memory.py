"""Test how much memory the process may still take, according to the files of the system."""

import math

import pytest

from knownmf.memory import available_memory, check_memory

GIB = 2**30


def write_files(folder, **contents):
    """Write files into a folder, by their names."""
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.fixture
def system(tmp_path):
    """Return the folders of the processes and of the control groups of a machine with 8 GiB available."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    write_files(proc, **{"meminfo": f"MemTotal: 99999999 kB\nMemAvailable: {8 * 2**20} kB\nHugePages_Total: 0\n"})
    return proc, groups


def test_what_the_machine_has_available(system):
    assert available_memory(*system) == 8 * GIB
    write_files(system[0], meminfo=f"MemAvailable: {8 * 2**20} kB\nSwapFree: {2**20} kB\n")
    assert available_memory(*system) == 9 * GIB


@pytest.mark.parametrize("group", ["/", "/job/step"])
@pytest.mark.parametrize("place", ["", "job"])
def test_a_control_group_of_version_2(system, group, place):
    """In a container, the files of its own group are in the root; elsewhere, the limits of all parents count."""
    write_files(system[0], **{"self/cgroup": f"0::{group}\n"})
    limits = {"memory.max": f"{3 * GIB}\n", "memory.current": f"{2 * GIB}\n", "memory.stat": f"inactive_file {GIB}\n"}
    write_files(system[1] / place, **limits)
    seen = place == "" or group == "/job/step"
    assert available_memory(*system) == (2 if seen else 8) * GIB
    write_files(system[1] / place, **{"memory.max": "max\n"})
    assert available_memory(*system) == 8 * GIB


def test_a_control_group_of_version_1(system):
    write_files(system[0], **{"self/cgroup": "5:cpu,cpuacct:/a\n4:memory:/job\n"})
    limits = {
        "memory.limit_in_bytes": f"{3 * GIB}\n",
        "memory.usage_in_bytes": f"{2 * GIB}\n",
        "memory.stat": f"cache 1\ntotal_inactive_file {GIB // 2}\n",
    }
    write_files(system[1] / "memory/job", **limits)
    assert available_memory(*system) == 1.5 * GIB
    write_files(system[1] / "memory/job", **{"memory.limit_in_bytes": "9223372036854771712\n"})
    assert available_memory(*system) == 8 * GIB


def test_a_system_that_says_nothing_refuses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: (_ for _ in ()).throw(ValueError("unrecognized configuration name")))
    assert available_memory(tmp_path, tmp_path) == math.inf


def test_too_much_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr("knownmf.memory.available_memory", lambda: 2 * GIB)
    check_memory(2 * GIB, "this", "wait")
    with pytest.raises(
        MemoryError, match=r"^this needs about 3\.0 GiB of memory, but only 2\.0 GiB are available: wait"
    ):
        check_memory(3 * GIB, "this", "wait")
