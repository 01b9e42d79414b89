"""Kernels for GPUs as Triton's compiler sees them, and how they come to be: nothing here needs a GPU."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from softknee._engine import generated, triton_check
from softknee._engine.build import cache_folder
from softknee._engine.generated import import_source

SCRIPT = Path(__file__).with_name("compiled_without_gpu.py")
SOURCE = '"""A module."""\n\nNUMBER = {}\n'


def run_python(*arguments, **environment):
    """What a fresh interpreter prints."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TRITON")}
    command = [sys.executable, "-W", "ignore", *arguments]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=[90])
def compiled(request, tmp_path_factory):
    pytest.importorskip("triton", reason="needs Triton, which there is for Linux only")
    folder = tmp_path_factory.mktemp(f"sm{request.param}")
    return json.loads(run_python(str(SCRIPT), str(request.param), TRITON_CACHE_DIR=str(folder)))


def singles(compiled):
    """Names of modules and functions, of what takes no pairs, with what was compiled for each variant."""
    return [(name.split()[0], record) for name, record in compiled.items() if not name.startswith("pairs:")]


def pairs(compiled):
    return [(name.split()[0], record) for name, record in compiled.items() if name.startswith("pairs:")]


def test_kernels_compile_to_machine_code(compiled):
    assert all(record["cubin"] for record in compiled.values())


def test_kernels_use_no_approximations(compiled):
    """Triton's own division, square root and exponential are approximate."""
    assert not [name for name, record in compiled.items() if re.search(r"\.approx\b", record["ptx"])]


def test_floats_are_never_added_atomically(compiled):
    atomic = {part for record in compiled.values() for part in re.findall(r"\b(?:red|atom)\.\S+", record["ptx"])}
    assert atomic
    assert all(part.endswith((".add.u64", ".add.s64")) for part in atomic)


def test_memory_moves_in_vectors_where_sizes_allow_it(compiled):
    whole = [record["ptx"] for name, record in singles(compiled) if name.endswith(".flat")]
    vectors = [bool(re.search(r"ld\.global\S*\.v4", ptx) and re.search(r"st\.global\S*\.v4", ptx)) for ptx in whole]
    assert sum(vectors) == len(vectors) / 2


def test_new_shapes_compile_nothing_new(compiled):
    """Two variants for each dtype: sizes that 16 divides and others; rows also differ by the width of their blocks."""
    variants = Counter(name for name, _ in singles(compiled))
    for name, count in variants.items():
        dtypes = 2
        if name.endswith((".flat", ".columns")):
            assert count == 2 * dtypes, name
        elif name.endswith(".rows"):
            assert count <= 2 * 2 * dtypes, name
        else:
            # Twice, for bins that are divided and others.
            assert count <= 2 * (8 if name.endswith("._slopes") else 4) * dtypes, name


def test_new_shapes_of_pairs_compile_little_that_is_new(compiled):
    """Twice as many: gates and values lie in runs or alternate, and values begin at a multiple of 16 bytes or not."""
    variants = Counter(name for name, _ in pairs(compiled))
    assert {name.rpartition(".")[2] for name in variants} == {"flat", "rows", "columns"}
    assert all(count <= 2 * 2 * 2 * 2 for count in variants.values())


@pytest.mark.parametrize("kernel", [".rows", ".flat"])
def test_pairs_move_in_vectors_where_sizes_allow_it(compiled, kernel):
    """Runs of gates and values, and two tensors."""
    found = [record["ptx"] for name, record in pairs(compiled) if name.endswith(kernel)]
    vectors = [bool(re.search(r"ld\.global\S*\.v4", ptx) and re.search(r"st\.global\S*\.v4", ptx)) for ptx in found]
    assert 0 < sum(vectors) < len(vectors)


def test_triton_is_not_loaded_by_us_before_a_gpu_is_used():
    """PyTorch itself loads it wherever a function is to be compiled."""
    code = """
import sys, torch, torch._dynamo, softknee
for engine in ("fused", "table"):
    softknee.create("swish", trainable=True, engine=engine)(torch.randn(5000)).sum().backward()
print([name for name in sys.modules if name.startswith("softknee") and "triton_" in name])
"""
    assert run_python("-c", code) == "['softknee._engine.triton_check']\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SOFTKNEE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_source_becomes_a_module_once(folder):
    module = import_source(SOURCE.format(1))
    assert module.NUMBER == 1
    assert import_source(SOURCE.format(1)) is module
    assert import_source(SOURCE.format(2)).NUMBER == 2
    assert Path(module.__file__).parent == folder == cache_folder()
    assert [path for path in folder.iterdir() if not path.name.startswith("softknee_") and path.is_file()] == []


def test_a_damaged_file_is_written_again(folder):
    module = import_source(SOURCE.format(3))
    Path(module.__file__).write_text("NUMBER = 4\n")
    assert import_source.__wrapped__(SOURCE.format(3)).NUMBER == 3


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SOFTKNEE_CACHE", str(tmp_path / "file" / "cache"))
    assert import_source(SOURCE.format(5)).NUMBER == 5


@pytest.fixture
def asked_anew():
    triton_check.trouble.cache_clear()
    yield triton_check.trouble
    triton_check.trouble.cache_clear()


def test_trouble_says_that_triton_is_missing(asked_anew, monkeypatch):
    monkeypatch.setitem(sys.modules, "softknee._engine.triton_math", None)
    assert asked_anew().startswith("there is no Triton: ")


def test_trouble_says_what_fails(asked_anew, monkeypatch):
    pytest.importorskip("triton", reason="needs Triton, which there is for Linux only")
    empty = torch.empty
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(triton_check.torch, "empty", lambda *sizes, device: empty(*sizes))
    found = asked_anew()
    # With the compiler there is no driver; with the interpreter everything works.
    assert found is None or found.startswith("Triton does not work here: ")


def test_sources_are_read_as_they_were_written(folder):
    assert generated._text_of(folder / "missing.py") is None
