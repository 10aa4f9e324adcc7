"""Compile the native library: hatchling's build hook, and a script for `make`, which needs no hatchling.

    python hatch_build.py                     compile next to the sources, if a source has changed
    python hatch_build.py --requires          print the package that has to be installed first, if any
    python hatch_build.py --has-compiler      exit with 0 if there is a C++ compiler other than Zig's, else with 1
    python hatch_build.py --sanitize FOLDER   compile into a folder, with address and undefined-behavior sanitizers

The compiler is $CXX, if it is set; else the C++ compiler of the system; else that of Zig, from the package `ziglang`.
For a wheel, KNOWNMF_TARGET names another platform (one of TARGETS), for which Zig always compiles.
"""

import argparse
import importlib.util
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a script
    BuildHookInterface = object

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT / "src" / "knownmf"

_spec = importlib.util.spec_from_file_location("native_files", PACKAGE / "native_files.py")
native_files: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(native_files)

FOLDER = PACKAGE / "native"
SOURCE = FOLDER / "knownmf.cpp"

# The oldest version of Zig that was tested.
ZIG_REQUIREMENT = "ziglang>=0.17"
TARGET_VARIABLE = "KNOWNMF_TARGET"

COMPILE_FLAGS = [
    "-std=c++17",
    "-fPIC",
    "-fvisibility=hidden",
    # The library must not need the C++ runtime, so that one wheel serves every system: no exceptions, no type
    # information, no locks around static variables.
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-threadsafe-statics",
    # These allow vectorization. Unlike -ffast-math, they keep infinities and NaN correct.
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    # Vectorize loops that are marked with "omp simd", even if this changes the order of sums. This needs no OpenMP
    # library.
    "-fopenmp-simd",
    "-Wall",
    "-Wextra",
]
OPTIMIZE_FLAGS = ["-O3"]
SANITIZE_FLAGS = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

# Without this flag, clang uses registers of 256 bits on processors that have registers of 512 bits.
LEVEL_FLAGS = {"x86-64-v4": ["-mprefer-vector-width=512"]}

# Link with the C library only. If a symbol of the C++ runtime is needed, linking then fails here, instead of loading
# the library on a system without that runtime.
LIBRARIES = {
    "linux": ["-nodefaultlibs", "-lm", "-lc", "-lgcc", "-Wl,-z,defs", "-s"],
    "darwin": ["-nodefaultlibs", "-lSystem"],
    "win32": ["-static", "-s"],
}
MACOS = "11.0"  # the first version for arm64

# Compiling one level takes up to 200 MB and 10 s (gcc 12): two at a time are fast enough and fit on small machines.
MAX_PROCESSES = 2


class Target(NamedTuple):
    """A platform that Zig compiles for.

    Attributes
    ----------
    system, machine : str
        As `sys.platform` and `platform.machine` name them.
    wheel : str
        The platform in the name of a wheel.
    """

    system: str
    machine: str
    wheel: str


# By Zig's name for the target. On Linux, that includes the oldest version of glibc that the library runs with.
TARGETS = {
    "x86_64-linux-gnu.2.17": Target("linux", "x86_64", "manylinux_2_17_x86_64.manylinux2014_x86_64"),
    "aarch64-linux-gnu.2.17": Target("linux", "aarch64", "manylinux_2_17_aarch64.manylinux2014_aarch64"),
    f"aarch64-macos.{MACOS}": Target("darwin", "arm64", "macosx_11_0_arm64"),
    f"x86_64-macos.{MACOS}": Target("darwin", "x86_64", "macosx_11_0_x86_64"),
    "x86_64-windows-gnu": Target("win32", "AMD64", "win_amd64"),
}


class Toolchain(NamedTuple):
    """The commands that compile and link the library for a platform.

    Attributes
    ----------
    compile, link : list of str
        The commands, with all flags but those of the CPU level.
    libraries : list of str
        The flags for the libraries to link with. They must come after the file that uses the libraries.
    level_flags : dict
        The flags for each CPU level to compile for.
    target : Target
        The platform.
    version : str
        Name and version of the compiler.
    """

    compile: list[str]
    link: list[str]
    libraries: list[str]
    level_flags: dict[str, list[str]]
    target: Target
    version: str


def this_platform() -> Target:
    """Return the platform of this machine. Its wheel is for systems with the same C library."""
    machine = platform.machine()
    if sys.platform == "darwin":
        wheel = f"macosx_{MACOS.replace('.', '_')}_{machine}"
    else:
        wheel = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return Target(sys.platform, machine, wheel)


def target_name_here() -> str | None:
    """Return Zig's name for this platform, or None if it is not in TARGETS (such as Linux without glibc)."""
    if "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or ""):
        return None
    here = this_platform()
    return next((name for name, target in TARGETS.items() if target[:2] == here[:2]), None)


def cpu_levels(target: Target) -> tuple[str, ...]:
    """Return the CPU levels to compile for on a platform."""
    return native_files.X86_LEVELS if target.machine in ("x86_64", "AMD64") else (native_files.BASELINE,)


def compiler_works(command: list[str]) -> bool:
    """Return whether a compiler supports C++17 and the highest CPU level, and has the C++ headers."""
    level = cpu_levels(this_platform())[-1]
    flags = [] if level == native_files.BASELINE else [f"-march={level}"]
    check = [*command, "-std=c++17", *flags, "-fsyntax-only", "-x", "c++", "-"]
    try:
        return subprocess.run(check, input=b"#include <cmath>\n", capture_output=True).returncode == 0
    except OSError:
        return False


def system_compiler() -> list[str] | None:
    """Return the command in $CXX, else a C++ compiler on the path, else None."""
    if os.environ.get("CXX"):
        return shlex.split(os.environ["CXX"], posix=os.name == "posix")
    return next(([name] for name in ("c++", "g++", "clang++") if shutil.which(name) and compiler_works([name])), None)


def requirements(target_name: str | None = None) -> list[str]:
    """Return the packages that compiling needs: Zig, if a target is named or there is no other compiler."""
    return [ZIG_REQUIREMENT] if target_name or system_compiler() is None else []


def first_line(command: list[str]) -> str:
    """Return the first line that a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def system_toolchain(command: list[str], sanitize: bool = False) -> Toolchain:
    """Return the commands and flags of the system's compiler."""
    target = this_platform()
    driver = [*command, f"-mmacosx-version-min={MACOS}"] if target.system == "darwin" else command
    flags = SANITIZE_FLAGS if sanitize else OPTIMIZE_FLAGS
    return Toolchain(
        compile=[*driver, *COMPILE_FLAGS, *flags],
        link=[*driver, "-shared", *flags],
        # The sanitizers need libraries that LIBRARIES would exclude.
        libraries=[] if sanitize else LIBRARIES.get(target.system, []),
        level_flags={
            level: [] if level == native_files.BASELINE else [f"-march={level}", *LEVEL_FLAGS.get(level, [])]
            for level in cpu_levels(target)
        },
        target=target,
        version=first_line([*command, "--version"]),
    )


def zig_toolchain(target_name: str | None) -> Toolchain:
    """Return the commands and flags of Zig, for a target or for this platform."""
    zig = [sys.executable, "-m", "ziglang"]
    target_name = target_name or target_name_here()
    target = TARGETS[target_name] if target_name else this_platform()
    option = ["-target", target_name] if target_name else []
    return Toolchain(
        compile=[*zig, "c++", *option, *COMPILE_FLAGS, *OPTIMIZE_FLAGS],
        # Linked as C, because "zig c++" compiles the C++ runtime and adds it.
        link=[*zig, "cc", *option, "-shared", "-s"],
        libraries=["-lm"],
        # Without -mcpu and without a target, Zig would compile for the processor of this machine.
        level_flags={
            level: [f"-mcpu={level.replace('-', '_')}", *LEVEL_FLAGS.get(level, [])] for level in cpu_levels(target)
        },
        target=target,
        version=f"Zig {first_line([*zig, 'version'])}, {first_line([*zig, 'c++', '--version'])}",
    )


def find_toolchain(target_name: str | None = None, sanitize: bool = False) -> Toolchain:
    """Return the toolchain: Zig for a named target, else the system's compiler, else Zig."""
    command = None if target_name else system_compiler()
    if command is not None:
        return system_toolchain(command, sanitize)
    if sanitize:
        raise SystemExit("The sanitizers need gcc: there is no C++ compiler on the path, and $CXX is not set.")
    if importlib.util.find_spec("ziglang") is None:
        raise SystemExit(f"There is no C++ compiler: install one, set $CXX, or run: pip install '{ZIG_REQUIREMENT}'")
    return zig_toolchain(target_name)


def compile_level(tools: Toolchain, level: str, library: Path) -> None:
    """Compile and link the library for one CPU level. The file is renamed to its final name when it is complete."""
    defines = {"KNOWNMF_SOURCE_HASH": native_files.source_hash(), "KNOWNMF_COMPILER": tools.version}
    define_flags = [f"-D{name}={json.dumps(value)}" for name, value in defines.items()]
    with tempfile.TemporaryDirectory(prefix=".compiling-", dir=library.parent) as folder:
        compiled, linked = str(Path(folder, "knownmf.o")), str(Path(folder, library.name))
        subprocess.run(
            [*tools.compile, *tools.level_flags[level], *define_flags, "-c", "-o", compiled, str(SOURCE)], check=True
        )
        # Without this flag, a library for macOS contains the path of the folder in which it was compiled.
        name = [f"-Wl,-install_name,@rpath/{library.name}"] if tools.target.system == "darwin" else []
        subprocess.run([*tools.link, *name, "-o", linked, compiled, *tools.libraries], check=True)
        os.replace(linked, library)


def is_current(library: Path) -> bool:
    """Return whether a library is up to date: it has the hash of the sources, and is newer than this file."""
    return (
        library.exists()
        and native_files.source_hash().encode() in library.read_bytes()
        and library.stat().st_mtime >= Path(__file__).stat().st_mtime
    )


def libraries(folder: Path, target: Target) -> dict[str, Path]:
    """Return the file of the library for each CPU level of a platform."""
    return {level: folder / native_files.library_name(level, target.system) for level in cpu_levels(target)}


def build(folder: Path, target_name: str | None = None, sanitize: bool = False) -> list[Path]:
    """Compile the libraries of a platform that are not up to date into a folder. Return the paths of all."""
    files = libraries(folder, TARGETS[target_name] if target_name else this_platform())
    stale = {level: file for level, file in files.items() if not is_current(file)}
    if stale:
        tools = find_toolchain(target_name, sanitize)
        folder.mkdir(parents=True, exist_ok=True)
        print(f"compiling {', '.join(file.name for file in stale.values())}: {tools.version}", flush=True)
        with ThreadPoolExecutor(MAX_PROCESSES) as pool:
            list(pool.map(lambda level: compile_level(tools, level, stale[level]), stale))
    return list(files.values())


def chosen_target() -> str | None:
    """Return the target in the environment variable KNOWNMF_TARGET, or None."""
    name = os.environ.get(TARGET_VARIABLE) or None
    if name is not None and name not in TARGETS:
        raise SystemExit(f"{TARGET_VARIABLE} is {name!r}, expected one of: {', '.join(TARGETS)}.")
    return name


class NativeLibraryHook(BuildHookInterface):
    """Compile the libraries for a wheel or, next to the sources, for an editable installation."""

    def dependencies(self) -> list[str]:
        """Return the packages that the build needs in addition to those in pyproject.toml."""
        return requirements(chosen_target())

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the libraries, and set the files and the platform of the wheel."""
        if version == "editable":
            build(FOLDER)
            return
        target_name = chosen_target()
        if target_name is None and system_compiler() is None:
            target_name = target_name_here()
        # Not next to the sources: the libraries there may be for another platform, or need a newer C library.
        for library in build(ROOT / "build" / (target_name or "system"), target_name):
            build_data["force_include"][str(library)] = f"knownmf/native/{library.name}"
        platform_tag = (TARGETS[target_name] if target_name else this_platform()).wheel
        build_data["tag"], build_data["pure_python"] = f"py3-none-{platform_tag}", False


def needed_in_place(target_name: str | None) -> list[str]:
    """Return the packages to install before `build`: none if all libraries are up to date."""
    files = libraries(FOLDER, this_platform()).values()
    return [] if target_name is None and all(map(is_current, files)) else requirements(target_name)


def main() -> None:
    """Run the script with the options of the command line."""
    parser = argparse.ArgumentParser(
        description="Compile the native library next to its sources, if one of them has changed."
    )
    parser.add_argument("--requires", action="store_true", help="print the package to install first, and exit")
    parser.add_argument("--has-compiler", action="store_true", help="exit with 0 if there is a compiler, else with 1")
    parser.add_argument("--sanitize", metavar="FOLDER", type=Path, help="compile into a folder, with sanitizers")
    options = parser.parse_args()
    if options.has_compiler:
        sys.exit(system_compiler() is None)
    if options.requires:
        print(*needed_in_place(chosen_target()))
        return
    try:
        build(options.sanitize.resolve() if options.sanitize else FOLDER, sanitize=options.sanitize is not None)
    except subprocess.CalledProcessError as error:  # the compiler has printed the reason
        raise SystemExit(f"Failed: {shlex.join(map(str, error.cmd))}") from None


if __name__ == "__main__":
    main()
