"""The native elementary functions against float64, at each instruction set that the machine has."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import special

import softknee

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER = Path(softknee.__file__).parent / "_engine" / "native" / "vector_math.h"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
FLAGS = [
    *("-std=c99", "-O3", "-Wall", "-Wextra", "-Werror"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp-simd"),
]
LEVELS = {
    "baseline": (),
    "avx2": ("-mavx2", "-mfma", "-mf16c"),
    "avx512": (
        *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma", "-mf16c"),
        "-mprefer-vector-width=512",
    ),
}
VECTOR_BYTES = {"baseline": 16, "avx2": 32, "avx512": 64}
SOURCE = """
#include "{header}"
#define UNARY(NAME) \\
    void each_##NAME(const float *x, float *restrict out, long n) {{ \\
        _Pragma("omp simd") for (long i = 0; i < n; i++) out[i] = sk_##NAME(x[i]); \\
    }}
{unary}
void each_pow(const float *x, const float *y, float *restrict out, long n) {{
    _Pragma("omp simd") for (long i = 0; i < n; i++) out[i] = sk_pow(x[i], y[i]);
}}
"""
PROBE = """
#if defined(__x86_64__)
int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
int has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#else
int has_avx2(void) { return 0; }
int has_avx512(void) { return 0; }
#endif
"""


@dataclass(frozen=True)
class Case:
    """`bounds` are in ulp: with a fused multiply-add, and without. No sample is beyond `limit`, specials apart."""

    name: str
    reference: Callable[[np.ndarray], np.ndarray]
    bounds: tuple[float, float]
    limit: float = np.inf


CASES = [
    Case("exp", np.exp, (0.9, 1.18)),
    Case("expm1", np.expm1, (1.3, 1.33)),
    Case("log", np.log, (1.33, 1.43)),
    Case("log1p", np.log1p, (1.33, 1.43)),
    Case("sigmoid", special.expit, (1.66, 1.99)),
    Case("softplus", lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), (2.27, 2.67)),
    Case("tanh", np.tanh, (1.76, 1.88)),
    Case("erf", special.erf, (1.92, 2.25)),
    Case("sin", np.sin, (1.83, 2.09), limit=1e3),
    Case("cos", np.cos, (1.83, 2.09), limit=1e3),
    Case("tan", np.tan, (2.73, 2.73), limit=1e3),
    Case("atan", np.arctan, (1.49, 2.1)),
    Case("floor", np.floor, (0.0, 0.0)),
    Case("trunc", np.trunc, (0.0, 0.0)),
    Case("round", np.rint, (0.0, 0.0)),
]
NAMES = [case.name for case in CASES]
BORDERS = [88.7228, 88.723, 88.73, 89, 103.9, 104, 105, 106, 87.33, 17.3, 20.1, 10, 3.93, 0.34657, 2.0**126, 1e15]
SPECIALS = [0, 1e-45, 1e-40, 1.1754944e-38, 3e-8, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 2.0**23 - 0.5, 3.4028235e38, np.inf]
SPECIALS = np.array([sign * x for x in [*SPECIALS, *BORDERS] for sign in (1.0, -1.0)] + [np.nan], dtype=np.float32)


@dataclass(frozen=True)
class Library:
    """The functions compiled at one level; `notes` is what the compiler said."""

    level: str
    library: ctypes.CDLL = field(repr=False)
    notes: str = field(repr=False)

    def __call__(self, name: str, *arguments: np.ndarray) -> np.ndarray:
        out = np.empty_like(arguments[0])
        pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (*arguments, out)]
        getattr(self.library, f"each_{name}")(*pointers, ctypes.c_long(out.size))
        return out

    def bound(self, case: Case) -> float:
        fused = self.level != "baseline" or platform.machine() in {"arm64", "aarch64"}
        return case.bounds[0 if fused else 1]


def build(folder: Path, name: str, source: str, *flags: str) -> tuple[ctypes.CDLL, str]:
    """Compiled without libm, so that a call to it that stayed in a loop fails to link."""
    undefined = ["-Wl,--no-undefined"] if platform.system() == "Linux" else []
    (folder / f"{name}.c").write_text(source)
    command = [COMPILER, *FLAGS, *flags, "-fPIC", "-shared", *undefined, f"{name}.c", "-o", f"{name}.so"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(folder / f"{name}.so")), done.stderr


@pytest.fixture(scope="module", params=LEVELS)
def library(request, tmp_path_factory):
    if COMPILER is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp(request.param)
    if request.param != "baseline":
        probe, _ = build(folder, "probe", PROBE)
        if not getattr(probe, f"has_{request.param}")():
            pytest.skip(f"this machine has no {request.param}")
    source = SOURCE.format(header=HEADER, unary="\n".join(f"UNARY({name})" for name in NAMES))
    version = subprocess.run([COMPILER, "--version"], capture_output=True, text=True, check=True).stdout
    notes = ["-fopt-info-vec-optimized"] if "Free Software Foundation" in version else []
    return Library(request.param, *build(folder, "functions", source, *LEVELS[request.param], *notes))


def samples(limit: float = np.inf) -> np.ndarray:
    """200 thousand floats: half log-spaced over all magnitudes, half uniform where functions bend, of both signs."""
    rng = np.random.default_rng(0)
    magnitudes = np.exp2(rng.uniform(-149, 128, 50_000))
    spread = np.concatenate([magnitudes, -magnitudes, rng.uniform(-110, 110, 50_000), rng.uniform(-4, 4, 50_000)])
    return spread[np.abs(spread) <= limit].astype(np.float32)


def in_ulp(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """The distance in units of the last place that float32 has at the exact value."""
    _, exponent = np.frexp(exact)
    return np.abs(got - exact) * np.exp2(24.0 - np.maximum(exponent, -125))


def assert_close(got: np.ndarray, exact: np.ndarray, *, bound: float, at: tuple[np.ndarray, ...]):
    """Within `bound` where finite; else, and in the sign, equal. Near the largest float both are right."""
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float32)
    finite = np.isfinite(rounded) & np.isfinite(got)
    border = np.abs(np.abs(exact) - 3.4028235e38) < 1e32
    wrong = ~finite & (got != rounded) & ~(np.isnan(got) & np.isnan(rounded)) & ~border
    wrong |= (np.signbit(got) != np.signbit(rounded)) & ~np.isnan(rounded)
    with np.errstate(invalid="ignore"):
        errors = np.where(finite, in_ulp(got.astype(np.float64), exact), 0.0)
    wrong |= errors > bound
    first = np.flatnonzero(wrong)[:5]
    assert not first.size, [(*(x[i] for x in at), got[i], exact[i], errors[i]) for i in first]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("kind", ["samples", "specials"])
def test_function_is_within_its_bound(library, case, kind):
    x = samples(case.limit) if kind == "samples" else SPECIALS
    if np.isfinite(case.limit):
        x = x[(np.abs(x) <= case.limit) | ~np.isfinite(x)]
    with np.errstate(all="ignore"):
        exact = case.reference(x.astype(np.float64))
    assert_close(library(case.name, x), exact, bound=library.bound(case), at=(x,))


def test_powers_of_special_values(library):
    values = np.concatenate([SPECIALS, np.array([-0.99999994, 0.99999994, 1.0000001, 16777215], dtype=np.float32)])
    x, y = (np.ascontiguousarray(grid.ravel()) for grid in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(np.float64), y.astype(np.float64))
    assert_close(library("pow", x, y), exact, bound=1.3, at=(x, y))


def test_powers_over_all_magnitudes(library):
    rng = np.random.default_rng(1)
    x = np.exp2(rng.uniform(-149, 128, 200_000)).astype(np.float32)
    y = (rng.uniform(-151, 130, x.size) / np.log2(x.astype(np.float64))).astype(np.float32)
    x[::2], y[::2] = -x[::2], np.rint(y[::2])
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(np.float64), y.astype(np.float64))
    assert_close(library("pow", x, y), exact, bound=1.3, at=(x, y))


@pytest.mark.parametrize(("name", "reference"), [("sin", np.sin), ("cos", np.cos)])
def test_waves_keep_their_phase_and_their_range(library, name, reference):
    x = np.random.default_rng(2).uniform(-1e9, 1e9, 100_000).astype(np.float32)
    got = library(name, x)
    assert np.max(np.abs(got - reference(x.astype(np.float64)))) < 3e-7
    assert np.max(np.abs(library(name, samples()))) <= 1
    assert library("cos", np.zeros(16, dtype=np.float32)) == pytest.approx(1, abs=0)


def test_every_loop_is_vectorised(library):
    if not library.notes:
        pytest.skip("only GCC says which loops it vectorised")
    first = 1 + next(n for n, line in enumerate(SOURCE.splitlines()) if line == "{unary}")
    said = f"loop vectorized using {VECTOR_BYTES[library.level]} byte vectors"
    lines = {line.split(":")[1] for line in library.notes.splitlines() if said in line}
    assert {str(first + n) for n in range(len(NAMES))} <= lines
