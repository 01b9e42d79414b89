from __future__ import annotations

import math
import threading
from collections import OrderedDict

import pytest
import torch
from subjects import (
    CHANNELS,
    EPS,
    Subject,
    assert_table_right,
    exact,
    leaves_of,
    normal,
    run,
    subject,
    table_for,
)

from softknee import nn
from softknee._engine import lookup
from softknee._engine import table as tables
from softknee._engine.layout import Layout
from softknee._engine.lookup import look_up, look_up_gradient
from softknee._engine.table import REACH, table_of

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(3000, 1, 1), (70, 5, 9), (700, 5, 1), (1, 5, 333), (2, 1, 3)], ids=str)
def test_native_lookups_are_those_of_torch(shape, dtype, monkeypatch):
    layout = Layout(*shape, torch.contiguous_format)
    module = subject("telu" if layout.channels == 1 else "swish", per_channel=layout.channels > 1).module(
        channels=layout.channels
    )
    table = table_of(module._plans[0], leaves_of(module), CPU, REACH)
    assert (table.grid.low, table.grid.high) == REACH
    x, g = normal(*shape, scale=5.0).to(dtype), normal(*shape, seed=2).to(dtype)
    x.view(-1)[:4] = torch.tensor([math.nan, math.inf, *REACH], dtype=dtype)

    def results():
        y, out, moments = torch.empty_like(x), torch.empty_like(x), torch.full_like(table.rows, 7.0)
        outside = look_up(table, layout, x, y)
        assert torch.equal(outside, look_up_gradient(table, layout, x, g, out, moments))
        return outside, y.float(), out.float(), moments[..., :3]

    native = results()
    monkeypatch.setattr(lookup, "_library", lambda *dtypes: None)
    plain = results()
    assert torch.equal(native[0], plain[0])
    ulp = torch.finfo(dtype).eps
    sizes = table.rows.abs().sum(-1).amax()
    torch.testing.assert_close(native[1], plain[1], rtol=ulp, atol=float(2 * EPS * sizes))
    slopes = float(4 * EPS * sizes / table.grid.step * g.float().abs().max())
    torch.testing.assert_close(native[2], plain[2], rtol=ulp, atol=slopes)
    torch.testing.assert_close(native[3], plain[3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["staf", "swish", "bspline"])
def test_halves_are_what_float32_gives_rounded(name, dtype):
    module = subject(name).module(engine="table")
    x, g = normal(400, scale=4.0).to(dtype), normal(400, seed=2).to(dtype)
    y, by_x, by = run(module, x, g)
    wide_y, wide_by_x, wide_by = run(module, x.float(), g.float())
    assert y.dtype == by_x.dtype == dtype
    assert torch.equal(y, wide_y.to(dtype))
    # Slopes outside are multiplied by the gradient after that was rounded, which is exact.
    assert torch.equal(by_x, wide_by_x.to(dtype))
    for key, got in by.items():
        torch.testing.assert_close(got, wide_by[key], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("case", [subject("staf"), subject("swish", per_channel=True)], ids=str)
@pytest.mark.parametrize("shape", [(130, CHANNELS, 300), (40_000, CHANNELS)], ids=str)
def test_repetition_gives_the_same_bits(case, shape, count, threads):
    threads(count)
    module = case.module(engine="table")
    x, g = normal(*shape, scale=4.0), normal(*shape, seed=2)
    first = run(module, x, g)
    for _ in range(3):
        again = run(module, x, g)
        assert all(map(torch.equal, first[:2], again[:2]))
        assert all(torch.equal(first[2][name], again[2][name]) for name in first[2])


@pytest.mark.parametrize("shape", [(130, CHANNELS, 300), (40_000, CHANNELS), (1, CHANNELS, 7)], ids=str)
@pytest.mark.parametrize("case", [subject("staf"), subject("swish", per_channel=True)], ids=str)
def test_threads_change_sums_in_the_last_digits_only(case, shape, threads):
    module = case.module(engine="table")
    x, g = normal(*shape, scale=4.0), normal(*shape, seed=2)
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(run(module, x, g))
    for other in results[1:]:
        assert all(map(torch.equal, results[0][:2], other[:2]))
        for name, got in other[2].items():
            torch.testing.assert_close(results[0][2][name], got, rtol=1e-5, atol=1e-5 * float(got.abs().max()))


def test_tables_of_the_same_values_are_made_once():
    first, again = (Subject(nn.Swish.spec).module(engine="table") for _ in range(2))
    assert table_for(first) is table_for(again)
    assert table_for(first) is table_for(first)
    wider = nn.Swish(engine="table", reach=(-9.0, 9.0)).eval()
    assert table_for(wider) is not table_for(first)
    other = nn.Swish(beta=1.0 + EPS, engine="table")
    assert table_for(other) is not table_for(first)


CHANGES = {
    "in place": lambda beta: beta.mul_(2),
    "by its data": lambda beta: beta.data.mul_(2),
    "by numpy": lambda beta: beta.detach().numpy().__imul__(2),
    "filled": lambda beta: beta.data.fill_(2.0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=[*CHANGES])
def test_changed_parameters_have_another_table(change):
    module, x = nn.Swish(beta=1.0, engine="table"), normal(50)
    before, table = module(x).detach(), table_for(module)
    with torch.no_grad():
        change(module.beta)
    assert table_for(module) is not table
    assert not torch.equal(module(x), before)
    torch.testing.assert_close(module(x).double(), exact(module, x).value, rtol=0, atol=1e-5)
    assert_table_right(module, x, normal(50, seed=2), run(module, x, normal(50, seed=2)))


def test_backward_uses_the_table_of_its_forward():
    """As eager does: `.data` goes unnoticed, and what was saved is what was there, if nothing else changed it."""
    module, x = nn.Swish(beta=1.0, engine="table"), normal(50).requires_grad_()
    wanted = exact(module, x).slope
    y = module(x)
    module.beta = torch.nn.Parameter(torch.tensor([3.0]))
    y.sum().backward()
    torch.testing.assert_close(x.grad.double(), wanted, rtol=0, atol=1e-5)


def test_a_module_used_twice_in_one_graph():
    module = subject("bspline").module(engine="table")
    x = normal(60).requires_grad_()
    module(module(x)).sum().backward()
    reference = subject("bspline").module(engine="eager").double()
    y = x.detach().double().requires_grad_()
    reference(reference(y)).sum().backward()
    torch.testing.assert_close(x.grad.double(), y.grad, rtol=0, atol=1e-4 * float(y.grad.abs().max()))
    for got, wanted in zip(module.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(got.grad.double(), wanted.grad, rtol=0, atol=1e-4 * float(wanted.grad.abs().max()))


def test_many_tables_do_not_pile_up(monkeypatch):
    size = table_for(nn.Swish(engine="table")).nbytes
    monkeypatch.setattr(tables, "REMEMBERED", 10 * size)
    monkeypatch.setattr(tables, "_recent", OrderedDict())
    for k in range(30):
        nn.Swish(beta=1.0 + k / 128, engine="table")(normal(5))
        assert sum(kept.nbytes for kept in tables._recent.values()) <= 10 * size
    assert len(tables._recent) > 1


def test_tables_are_made_in_several_threads(monkeypatch):
    monkeypatch.setattr(tables, "REMEMBERED", 2**17)
    x, failures = normal(50), []

    def work(seed):
        try:
            for k in range(60):
                module = nn.Swish(beta=1.0 + (seed + k) / 64, engine="table")
                torch.testing.assert_close(module(x).double(), exact(module, x).value, rtol=0, atol=1e-5)
        except Exception as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures
