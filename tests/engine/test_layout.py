from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from softknee._engine import layout
from softknee._engine.layout import Layout, dense, layout_of, repacked
from softknee._engine.lookup import in_memory_order

CONTIGUOUS = torch.contiguous_format
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def numbered(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel()).to(dtype).view(shape)


@st.composite
def tensors(draw):
    """Tensors of every rank, permuted, sliced, expanded, in channels last, some without elements."""
    shape = draw(st.lists(st.integers(0, 4), max_size=5))
    x = numbered(*shape)
    if x.dim() in LAST and draw(st.booleans()):
        x = x.contiguous(memory_format=LAST[x.dim()])
    if shape and draw(st.booleans()):
        x = x.permute(draw(st.permutations(range(len(shape)))))
    if shape and draw(st.booleans()):
        dim = draw(st.integers(0, len(shape) - 1))
        step = draw(st.integers(1, 3))
        x = x[(slice(None),) * dim + (slice(draw(st.integers(0, 1)), None, step),)]
    if shape and draw(st.booleans()):
        dim = draw(st.integers(0, len(shape) - 1))
        x = x.narrow(dim, 0, min(1, x.shape[dim])).expand(
            [3 if k == dim and size else size for k, size in enumerate(x.shape)]
        )
    return x


@given(tensors())
def test_dense_tensors_are_left_alone_and_others_copied(x):
    got, memory_format = dense(x)
    assert torch.equal(got, x)
    assert got.is_contiguous(memory_format=memory_format)
    already = [CONTIGUOUS, *([LAST[x.dim()]] if x.dim() in LAST else [])]
    assert (got is x) == any(x.is_contiguous(memory_format=known) for known in already)
    assert memory_format in already


@given(tensors().filter(lambda x: x.dim() > 0), st.data())
def test_layouts_say_where_the_channels_are(x, data):
    dim = data.draw(st.integers(0, x.dim() - 1))
    x, memory_format = dense(x)
    outer, channels, inner, same_format, _ = layout_of(x, memory_format, dim)
    assert same_format == memory_format
    assert channels == x.shape[dim]
    assert outer * channels * inner == x.numel()
    channel = torch.arange(channels).view([-1 if k == dim else 1 for k in range(x.dim())]).expand(x.shape)
    in_memory = in_memory_order(channel.contiguous(memory_format=memory_format), memory_format)
    wanted = torch.arange(channels).view(1, -1, 1).expand(outer, channels, inner)
    assert torch.equal(in_memory.view(outer, channels, inner), wanted)


@given(tensors())
def test_without_channels_there_is_one_run(x):
    x, memory_format = dense(x)
    assert layout_of(x, memory_format, None) == Layout(x.numel(), 1, 1, memory_format)
    x = x + 0
    in_memory_order(x, memory_format).fill_(7)
    assert (x == 7).all()


CASES = [
    ((4, 5), 1, CONTIGUOUS, (4, 5, 1)),
    ((4, 5, 6), 1, CONTIGUOUS, (4, 5, 6)),
    ((4, 5, 6, 7), 1, CONTIGUOUS, (4, 5, 42)),
    ((4, 5, 6, 7), 1, torch.channels_last, (168, 5, 1)),
    ((4, 5, 6, 7), 0, torch.channels_last, (1, 4, 210)),
    ((4, 5, 6, 7), 3, torch.channels_last, (24, 7, 5)),
    ((2, 3, 4, 5, 6), 1, torch.channels_last_3d, (240, 3, 1)),
    ((5,), 0, CONTIGUOUS, (1, 5, 1)),
    ((4, 1, 6, 7), 1, CONTIGUOUS, (4, 1, 42)),
    ((), None, CONTIGUOUS, (1, 1, 1)),
]


@pytest.mark.parametrize(("shape", "dim", "memory_format", "wanted"), CASES)
def test_examples(shape, dim, memory_format, wanted):
    x, found = dense(numbered(*shape).contiguous(memory_format=memory_format))
    assert layout_of(x, found, dim) == Layout(*wanted, found)


def test_one_channel_is_contiguous_in_both_orders():
    x = numbered(4, 1, 6, 7).contiguous(memory_format=torch.channels_last)
    assert dense(x) == (x, CONTIGUOUS)


SIZES = [(1, 1, 1, 1), (2, 3, 1, 1), (3, 5, 6, 7), (2, 16, 4, 4), (2, 17, 5, 7), (1, 33, 15, 17), (5, 64, 8, 8)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*SIZES, (2, 16, 3, 4, 4), (1, 5, 2, 3, 7)], ids=str)
@pytest.mark.parametrize("to_last", [False, True])
def test_gradients_are_brought_into_the_order_of_the_input(shape, to_last, dtype):
    orders = [CONTIGUOUS, LAST[len(shape)]]
    own, other = orders if to_last else reversed(orders)
    g = numbered(*shape, dtype=dtype).contiguous(memory_format=own)
    before = g.clone()
    got, copied = repacked(g, other)
    assert torch.equal(got, g)
    assert got.is_contiguous(memory_format=other)
    assert copied == (got.data_ptr() != g.data_ptr())
    assert torch.equal(g, before)


@given(tensors())
def test_any_gradient_comes_in_order(g):
    for memory_format in (CONTIGUOUS, *([LAST[g.dim()]] if g.dim() in LAST else [])):
        got, copied = repacked(g, memory_format)
        assert torch.equal(got, g)
        assert got.is_contiguous(memory_format=memory_format)
        assert copied or got is g


def test_gradients_in_order_are_not_copied():
    for x in (numbered(3, 4), numbered(2, 3, 4, 5)):
        assert repacked(x, CONTIGUOUS) == (x, False)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_copies_do_not_depend_on_threads(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        g = numbered(9, 48, 40, 41)
        assert torch.equal(repacked(g, torch.channels_last)[0], g)
    finally:
        torch.set_num_threads(before)


def test_without_native_code_torch_copies(monkeypatch):
    monkeypatch.setattr(layout, "_library", lambda dtype: None)
    g = numbered(3, 5, 6, 7)
    got, copied = repacked(g, torch.channels_last)
    assert copied
    assert torch.equal(got, g)
    assert got.is_contiguous(memory_format=torch.channels_last)
