"""Compiles C once and keeps the library in the user's cache, under a name that hashes all that went into it.

The interface is plain C: no headers of Python or torch, so a kernel builds in a fraction of a second.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

NATIVE = Path(__file__).parent / "native"
# Elements that kernels take, with the macro that says so.
DTYPES = {torch.float32: "SK_FLOAT32", torch.bfloat16: "SK_BFLOAT16", torch.float16: "SK_FLOAT16"}
COMPILERS = ("cc", "gcc", "clang")
# NaN, infinities and signed zeros keep their meaning; only traps and errno are given up. The passes that are turned off
# make branches out of choices, and loops with branches are not vectorized.
FLAGS = (
    *("-O3", "-std=gnu11", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
    *("-fno-tree-pre", "-fno-thread-jumps", "-w"),
)
LEVELS: Mapping[str, tuple[str, ...]] = {
    "AVX512": (
        *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma", "-mf16c"),
        "-mprefer-vector-width=512",
    ),
    "AVX2": ("-mavx2", "-mfma", "-mf16c"),
}
TIMEOUT = 120


class NoCompiler(Exception):
    """There is no C compiler, or it failed; the message says which."""


def level() -> str:
    """Return the instruction set that kernels are compiled for: `"AVX512"`, `"AVX2"` or `"portable"`.

    PyTorch's own detection decides, so its `ATEN_CPU_CAPABILITY` lowers ours too.
    """
    found = torch.backends.cpu.get_cpu_capability()
    return found if found in LEVELS else "portable"


def kernel_level() -> str:
    """Return the instruction set of the kernels on this machine, `"none"` where there are none."""
    return "none" if compiler() is None else level()


@lru_cache(maxsize=1)
def compiler() -> tuple[str, ...] | None:
    """Return the command of the C compiler: `$CC`, or the first of `cc`, `gcc` and `clang`; None without one.

    `$CC` may have options behind the name; an empty one means that none is to be used.
    """
    words = os.environ.get("CC")
    for name, *options in [shlex.split(words) or [""]] if words is not None else [[name] for name in COMPILERS]:
        path = shutil.which(name)
        if path is not None:
            return (path, *options)
    return None


def cache_folder() -> Path:
    """Return where compiled kernels are kept: `$SOFTKNEE_CACHE`, or `softknee` in the user's cache folder."""
    if "SOFTKNEE_CACHE" in os.environ:
        return Path(os.environ["SOFTKNEE_CACHE"])
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "softknee"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "softknee"


def load(source: str, *, defines: tuple[str, ...] = ()) -> ctypes.CDLL:
    """Return the library compiled from a C source, from the cache where it is there.

    Args:
        source: A translation unit; `native/` is on its include path.
        defines: Macros to define.

    Returns:
        The loaded library.

    Raises:
        NoCompiler: There is no compiler, or it failed. Without one, the cache is not looked at either: what a machine
            computes must not depend on what it once compiled.
    """
    if compiler() is None:
        raise NoCompiler("there is no C compiler; install one, or name it in the environment variable CC")
    flags = (*FLAGS, *LEVELS.get(level(), ()), *(f"-D{name}" for name in defines))
    name = f"{_digest(source, flags)}.so"
    library = _kept(name) or _compile(source, flags, name)
    try:
        return ctypes.CDLL(str(library))
    except OSError:
        # A damaged file is made anew.
        library = _compile(source, flags, name)
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise NoCompiler(f"a compiled kernel cannot be loaded: {error}") from error


def _kept(name: str) -> Path | None:
    """Return a library that was compiled before and is nobody else's."""
    try:
        library = cache_folder() / name
        return library if library.is_file() and library.stat().st_uid in {0, os.getuid()} else None
    except (OSError, RuntimeError, AttributeError):  # no such folder, no home, no users
        return None


def _digest(source: str, flags: tuple[str, ...]) -> str:
    parts = (source, _headers(), *flags, sys.platform, platform.machine(), *_identity())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


@lru_cache(maxsize=1)
def _identity() -> tuple[str, ...]:
    """Return what tells one compiler from another, or from its next version."""
    path, *options = compiler() or ("",)
    real = Path(path).resolve()
    return (str(real), str(real.stat().st_mtime_ns) if real.is_file() else "", *options)


@lru_cache(maxsize=1)
def _headers() -> str:
    return "\0".join(path.read_text(encoding="utf-8") for path in sorted(NATIVE.glob("*.h")))


def _compile(source: str, flags: tuple[str, ...], name: str) -> Path:
    """Compile beside the cache and move the result in as a whole; two processes may do so at once.

    Raises:
        NoCompiler: It failed.
    """
    folder = _writable_folder()
    command = compiler() or ()
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        made = Path(beside) / name
        for threads in (("-fopenmp",), ("-fopenmp-simd",)):
            result = _run([*command, *flags, *threads, f"-I{NATIVE}", "-x", "c", "-", "-o", str(made), "-lm"], source)
            if result.returncode == 0:
                return made.replace(folder / name)
    raise NoCompiler(f"{' '.join(command)} failed: {result.stderr.strip()[-2000:]}")


def _writable_folder() -> Path:
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder):
            return folder
    except (OSError, RuntimeError):  # not to be written to, or no home
        return Path(_private_folder().name)


@lru_cache(maxsize=1)
def _private_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder that goes with the process: where the cache cannot be used, kernels are compiled every time."""
    return tempfile.TemporaryDirectory(prefix="softknee-")


def _run(command: list[str], source: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 (the user's own compiler on our own source)
            command, input=source, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoCompiler(f"{command[0]} failed: {error}") from error


@lru_cache(maxsize=8)
def warn_once(message: str) -> None:
    """Warn, once a process for each message."""
    warnings.warn(message, RuntimeWarning, stacklevel=3)
