"""The compiled library: which build is loaded, when it is refused, and what it needs."""

import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from knownmf import native_files, native_library, threads
from knownmf.versions import show_versions

LEVELS = ("baseline",) if native_library.cpu_level() == "baseline" else native_files.X86_LEVELS
SETTINGS = ("KNOWNMF_CPU_LEVEL", "KNOWNMF_NUM_THREADS", "OMP_NUM_THREADS")
on_x86 = pytest.mark.skipif(native_library.cpu_level() == "baseline", reason="there is one build for this processor")

# As /proc/cpuinfo names the features of each level: "pni" is SSE3, "abm" is LZCNT.
FLAGS = {
    "x86-64-v2": "cx16 lahf_lm pni popcnt sse4_1 sse4_2 ssse3",
    "x86-64-v3": "abm avx avx2 bmi1 bmi2 f16c fma movbe xsave",
    "x86-64-v4": "avx512bw avx512cd avx512dq avx512f avx512vl",
}


def python(code, environment=(), **options):
    """Run code in a fresh interpreter without the settings of this one."""
    clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    return subprocess.run(
        [sys.executable, "-c", code], env={**clean, **dict(environment)}, capture_output=True, text=True, **options
    )


def levels_of_the_processor():
    """The levels of which the operating system reports every feature, lowest first."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf8")
    found = set(re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)[1].split())
    levels = []
    for level, flags in FLAGS.items():
        if not found.issuperset(flags.split()):
            break
        levels.append(level)
    return levels


@pytest.fixture
def package(tmp_path):
    """A copy of what loads the library, without the rest of the package."""
    copy = tmp_path / "knownmf"
    copy.mkdir()
    (copy / "__init__.py").touch()
    for module in (native_library, native_files):
        shutil.copy(module.__file__, copy)
    shutil.copytree(native_files.FOLDER, copy / "native")
    return copy


def load(package, level=""):
    """Import the loader of a copy of the package, in a fresh interpreter."""
    settings = {"PYTHONPATH": str(package.parent), "KNOWNMF_LIBRARY_FOLDER": "", "KNOWNMF_CPU_LEVEL": level}
    return python(
        "from knownmf import native_library; print(native_library.cpu_level(), native_library.__file__)",
        settings,
        cwd=package.parent,
    )


@on_x86
@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="reads /proc/cpuinfo")
def test_the_best_build_for_the_processor_is_loaded():
    done = python("from knownmf import native_library; print(native_library.cpu_level())")
    assert done.stdout.split() == levels_of_the_processor()[-1:], done.stderr


@pytest.mark.parametrize("level", LEVELS)
def test_each_build_carries_the_hash_of_the_sources(level):
    imports = "from knownmf.native_library import cpu_level, library"
    code = f"{imports}; print(cpu_level(), library.knownmf_source_hash().decode())"
    done = python(code, {"KNOWNMF_CPU_LEVEL": level})
    if "this processor runs at most" in done.stderr:
        pytest.skip(f"this processor does not run {level}")
    assert done.stdout.split() == [level, native_files.source_hash()], done.stderr


def test_an_unknown_level_is_refused():
    done = python("import knownmf.native", {"KNOWNMF_CPU_LEVEL": "avx2"})
    assert f"ImportError: KNOWNMF_CPU_LEVEL is 'avx2', expected one of: {', '.join(LEVELS)}." in done.stderr


@on_x86
def test_a_level_that_the_processor_lacks_is_refused(monkeypatch):
    monkeypatch.setenv("KNOWNMF_CPU_LEVEL", "x86-64-v4")
    with pytest.raises(ImportError, match=r"this processor runs at most x86-64-v3: unset .* x86-64-v2, x86-64-v3\.$"):
        native_library.choose_level(native_files.X86_LEVELS, native_files.X86_LEVELS[:2])


@pytest.mark.plain_library
@pytest.mark.parametrize("change", ["edited", "added", "renamed"])
def test_a_library_of_other_sources_is_refused(package, change):
    assert str(package) in load(package).stdout
    header = package / "native" / "cpu_level.hpp"
    if change == "edited":
        header.write_text(header.read_text(encoding="utf8") + "\n", encoding="utf8")
    elif change == "added":
        header.with_name("another.hpp").touch()
    else:
        header.rename(header.with_name("cpu_levels.hpp"))
    done = load(package)
    assert done.returncode == 1
    assert re.search(r"ImportError: The compiled library .* was built from other sources: its hash is", done.stderr)
    assert "make library" in done.stderr


@pytest.mark.plain_library
@pytest.mark.parametrize("level", LEVELS)
def test_a_missing_library_is_refused(package, level):
    if level not in (LEVELS[0], native_library.cpu_level()):
        pytest.skip("this build is not used here")
    missing = package / "native" / native_files.library_name(level)
    missing.unlink()
    done = load(package)
    assert f"ImportError: The compiled library is missing, expected {package / 'native'}" in done.stderr
    assert "make library" in done.stderr


def test_a_file_that_is_no_library_is_refused(package):
    (package / "native" / native_files.library_name(LEVELS[0])).write_bytes(b"no library")
    assert re.search(r"ImportError: The compiled library .* cannot be loaded: ", load(package).stderr)


@pytest.mark.plain_library
@pytest.mark.skipif(shutil.which("readelf") is None or sys.platform != "linux", reason="needs readelf")
@pytest.mark.parametrize("level", LEVELS)
def test_the_library_needs_neither_a_cpp_runtime_nor_python(level):
    path = native_files.FOLDER / native_files.library_name(level)
    command = ["readelf", "--wide", "-d", "--dyn-syms", path]
    described = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"\(NEEDED\).*\[(.*?)\]", described))
    assert needed <= {"libm.so.6", "libc.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
    foreign = re.findall(r"UND (_Z\w+|_Py\w+|Py\w+|__cxa_(?!finalize)\w+|__gxx\w+)", described)
    assert not foreign
    exported = re.findall(r"GLOBAL +DEFAULT +\d+ (\w+)", described)
    assert "knownmf_cpu_level" in exported
    assert not [name for name in exported if not name.startswith("knownmf_")]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"KNOWNMF_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, 3),
        ({"KNOWNMF_NUM_THREADS": "", "OMP_NUM_THREADS": "5"}, 5),
        ({"OMP_NUM_THREADS": "7,2"}, 7),
    ],
    ids=str,
)
def test_the_number_of_threads_comes_from_the_environment(settings, expected):
    done = python("from knownmf import threads; print(threads.get_num_threads())", settings)
    assert done.stdout.split() == [str(expected)], done.stderr


@pytest.mark.parametrize("name", ["KNOWNMF_NUM_THREADS", "OMP_NUM_THREADS"])
@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_a_bad_number_of_threads_in_the_environment_is_named(name, value):
    done = python("from knownmf import threads; threads.get_num_threads()", {name: value})
    assert f"ValueError: The environment variable {name} is '{value}', expected a whole number" in done.stderr


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs processor affinity")
def test_without_settings_there_are_as_many_threads_as_processors_for_this_process():
    code = (
        "import os; from knownmf import threads; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "print(threads.get_num_threads())"
    )
    assert python(code).stdout.split() == ["1"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, float("inf")),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, float("inf")),
        ({}, float("inf")),
    ],
    ids=["v2", "v2-unlimited", "v1", "v1-unlimited", "none"],
)
def test_the_quota_of_a_container_is_read(tmp_path, monkeypatch, files, expected):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf8")
    assert threads.container_quota(tmp_path) == expected
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert threads.n_processors(tmp_path) == math.ceil(min(expected, 64))


def test_the_number_of_threads_can_be_set():
    before = threads.get_num_threads()
    try:
        threads.set_num_threads(before + 1)
        assert threads.get_num_threads() == before + 1
    finally:
        threads.set_num_threads(before)


@pytest.mark.parametrize("n_threads", [0, -2, 1.5, "2", True, None])
def test_a_bad_number_of_threads_is_refused(n_threads):
    with pytest.raises(ValueError, match="expected a whole number of at least 1"):
        threads.set_num_threads(n_threads)


def test_show_versions_prints_what_a_bug_report_needs(capsys):
    show_versions()
    said = dict(re.findall(r"^ *(.+?): (.*)$", capsys.readouterr().out, re.MULTILINE))
    assert said["cpu level"] == native_library.cpu_level()
    assert said["compiler"] == native_library.compiler()
    assert said["python"].startswith(sys.version.split()[0])
    assert said["threads"] == str(threads.get_num_threads())
    assert said["numpy"] == sys.modules["numpy"].__version__
    assert re.match(r"\d+\.\d+", said["knownmf"])
