from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path

import child
import pytest
import torch
from subjects import EPS, assert_right, assert_table_right, subject

from softknee._engine import build
from softknee._engine.build import NoCompiler, load

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="needs a C compiler")

SOURCE = "int answer(void) { return %d; }\n"
HERE = Path(__file__).parent


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SOFTKNEE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def use(monkeypatch, tmp_path):
    """Exchange the compiler for a script."""

    def exchange(lines: str):
        script = tmp_path / "compiler"
        script.write_text(f"#!/bin/sh\n{lines}\n")
        script.chmod(0o755)
        monkeypatch.setattr(build, "compiler", lambda: (str(script),))

    return exchange


def kept(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*"))


def test_a_library_is_compiled_once(cache, use):
    assert load(SOURCE % 41).answer() == 41
    (library,) = kept(cache)
    before = library.stat().st_mtime_ns
    use("exit 1")
    assert load(SOURCE % 41).answer() == 41
    assert kept(cache) == [library]
    assert library.stat().st_mtime_ns == before


def test_the_name_in_the_cache_depends_on_source_flags_and_headers(cache, monkeypatch):
    def names(*arguments, **options):
        load(*arguments, **options)
        return set(kept(cache))

    seen = names(SOURCE % 1)
    for change in (
        lambda: names(SOURCE % 2),
        lambda: names(SOURCE % 1, defines=("SK_FLOAT16",)),
        lambda: (monkeypatch.setattr(build, "level", lambda: "portable"), names(SOURCE % 1))[1],
        lambda: (monkeypatch.setattr(build, "_headers", lambda: "/* changed */"), names(SOURCE % 1))[1],
        lambda: (monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-g")), names(SOURCE % 1))[1],
    ):
        now = change()
        assert len(now) == len(seen) + 1
        seen = now


def test_headers_are_part_of_the_name():
    texts = [path.read_text() for path in build.NATIVE.glob("*.h")]
    assert texts
    assert all(text in build._headers() for text in texts)


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({"SOFTKNEE_CACHE": "/a/b"}, Path("/a/b")),
        ({"XDG_CACHE_HOME": "/c"}, Path("/c/softknee")),
        ({"XDG_CACHE_HOME": "", "HOME": "/d"}, Path("/d/.cache/softknee")),
        ({"HOME": "/d"}, Path("/d/.cache/softknee")),
    ],
)
@pytest.mark.skipif(sys.platform == "darwin", reason="folders of other systems")
def test_where_the_cache_is(variables, wanted, monkeypatch):
    for name in ("SOFTKNEE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert build.cache_folder() == wanted


def test_threads_may_compile_the_same_at_once(cache):
    start, found = threading.Barrier(6), []

    def work():
        start.wait()
        found.append(load(SOURCE % 7).answer())

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [7] * 6
    assert len(kept(cache)) == 1


def test_processes_may_compile_the_same_at_once(cache):
    """Each waits for a file before it begins; no more than a whole library is ever seen."""
    code = (
        "import sys, time, pathlib; from softknee._engine.build import load; print('ready', flush=True)\n"
        f"sys.stdin.read(1); print(load({SOURCE % 9!r}).answer())"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for one in children:
        assert one.stdout.readline() == "ready\n"
    for one in children:
        one.stdin.write("x")
        one.stdin.flush()
    assert [one.communicate()[0] for one in children] == ["9\n"] * 2
    assert len(kept(cache)) == 1


def test_an_interrupted_compiler_leaves_nothing(cache, use):
    use('while [ "$1" != -o ]; do shift; done; head -c 100 /dev/zero > "$2"; exit 1')
    with pytest.raises(NoCompiler):
        load(SOURCE % 3)
    assert kept(cache) == []


def test_a_cache_that_cannot_be_written_to_costs_nothing_but_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SOFTKNEE_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert load(SOURCE % 5).answer() == 5
    assert load(SOURCE % 6).answer() == 6
    assert (tmp_path / "file").read_text() == "no folder"


def test_a_failing_compiler_is_quoted(cache, use):
    use("cat > /dev/null; echo something is wrong >&2; exit 3")
    with pytest.raises(NoCompiler, match=r"compiler failed: something is wrong"):
        load(SOURCE % 4)


def test_a_compiler_without_threads_still_serves(cache, use):
    use(f'for word in "$@"; do [ "$word" = -fopenmp ] && exit 1; done; exec {" ".join(build.compiler())} "$@"')
    assert load(SOURCE % 8).answer() == 8


def test_a_compiler_that_never_ends_is_given_up(cache, use, monkeypatch):
    monkeypatch.setattr(build, "TIMEOUT", 0.2)
    use("exec sleep 30")
    with pytest.raises(NoCompiler, match="timed out"):
        load(SOURCE % 4)
    assert kept(cache) == []


def test_a_compiler_that_cannot_be_started_is_named(cache, monkeypatch):
    monkeypatch.setattr(build, "compiler", lambda: ("/nowhere/cc",))
    with pytest.raises(NoCompiler, match="/nowhere/cc failed"):
        load(SOURCE % 4)


def test_no_compiler_says_what_to_do(cache, monkeypatch):
    monkeypatch.setattr(build, "compiler", lambda: None)
    with pytest.raises(NoCompiler, match=ABSENT):
        load(SOURCE % 4)


@pytest.mark.parametrize(("value", "found"), [("", False), ("/nowhere/cc", False), ("sh", True)])
def test_the_environment_names_the_compiler(value, found, monkeypatch):
    monkeypatch.setenv("CC", value)
    assert (build.compiler.__wrapped__() is not None) is found
    monkeypatch.delenv("CC")
    assert build.compiler.__wrapped__() is not None


def test_libraries_that_cannot_be_loaded_are_no_compiler(cache, use):
    """For example where the cache lies on a file system that nothing may be run from."""
    use('while [ "$1" != -o ]; do shift; done; echo damaged > "$2"')
    with pytest.raises(NoCompiler):
        load(SOURCE % 4)


def start(folder: Path, **environment: str) -> dict[str, object]:
    """What `child` finds in an environment."""
    path = folder / "results.pt"
    subprocess.run(
        [sys.executable, str(HERE / "child.py"), str(path)], env={**os.environ, **environment}, check=True, cwd=HERE
    )
    return torch.load(path, weights_only=False)


@pytest.fixture(scope="module")
def here():
    return child.results()


@pytest.fixture(scope="module")
def without_compiler(tmp_path_factory):
    folder = tmp_path_factory.mktemp("none")
    return start(folder, CC="", SOFTKNEE_CACHE=str(folder / "cache"))


ABSENT = "there is no C compiler; install one, or name it in the environment variable CC"


def test_without_a_compiler_one_warning_says_so(without_compiler):
    slower = f"softknee evaluates activations without kernels of its own, which is slower: {ABSENT}"
    assert without_compiler["compiler"] is None
    assert without_compiler["warnings"] == [("RuntimeWarning", slower)]


def assert_results_right(case, how, results):
    """Against float64 at the parameters that the process had."""
    module = case.module()
    module.load_state_dict(results[f"{case} state"])
    used, *found = results[f"{case} {how}"]
    (assert_table_right if used == "table" else assert_right)(module, *child.inputs(), found)
    return used


@pytest.mark.parametrize(("case", "how"), [(case, how) for case in child.CASES for how in child.engines(case)], ids=str)
def test_without_a_compiler_everything_is_as_with_one(case, how, without_compiler):
    used = assert_results_right(case, how, without_compiler["results"])
    assert used == ("table" if how == "table" else "eager")


def test_without_a_compiler_tables_are_twice_differentiable(without_compiler, here):
    torch.testing.assert_close(without_compiler["results"]["penalty"], here["penalty"], rtol=1e-4, atol=1e-5)


def test_without_a_compiler_noise_is_that_of_torch(without_compiler):
    x, g = child.inputs()
    y, by_x = without_compiler["results"]["noise"]
    slopes = (y / x)[x < 0]
    assert 0.125 <= slopes.min() < slopes.max() <= 1 / 3
    torch.testing.assert_close(by_x, torch.where(x > 0, g, g * y / x))


LEVELS = {"avx2": "AVX2", "default": "portable"}


@pytest.fixture(scope="module", params=LEVELS)
def lower(request, tmp_path_factory):
    found = start(tmp_path_factory.mktemp(request.param), ATEN_CPU_CAPABILITY=request.param)
    if found["level"] != LEVELS[request.param]:
        pytest.skip("another processor")
    return found


@pytest.mark.parametrize(
    ("case", "how"), [(case, how) for case in child.CASES for how in child.engines(case) if how != "auto"], ids=str
)
def test_lower_instruction_sets_are_as_right(case, how, lower):
    assert lower["warnings"] == []
    assert assert_results_right(case, how, lower["results"]) == how


@pytest.mark.parametrize(("name", "roundings"), [("tanh", 4), ("sigmoid", 4), ("softplus", 4), ("relu", 0)])
def test_lower_instruction_sets_give_nearly_the_same(lower, here, name, roundings):
    case = subject(name)
    one, other = (results[f"{case} fused"][1] for results in (lower["results"], here))
    assert ((one - other).abs() <= roundings * EPS * other.abs()).all()


def test_levels_are_those_of_torch(monkeypatch):
    for found, wanted in (("AVX512", "AVX512"), ("AVX2", "AVX2"), ("DEFAULT", "portable"), ("SVE256", "portable")):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda found=found: found)
        assert build.level() == wanted


def test_kernels_are_plain_libraries(cache):
    load("float twice(float x) { return 2 * x; }\n")
    (path,) = kept(cache)
    library = ctypes.CDLL(str(path))
    library.twice.argtypes, library.twice.restype = [ctypes.c_float], ctypes.c_float
    assert library.twice(1.5) == 3.0
