"""Pickles: read as pickle itself would, but for whatever could run something."""

from __future__ import annotations

import copyreg
import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imitate_cifar import python2

from softknee._bench.pickled import read_pickled
from softknee._errors import DataError

PATH = Path("data_batch_1")
TABLES = st.tuples(st.integers(0, 5), st.integers(0, 7), st.randoms(use_true_random=False), st.booleans())


class Runs:
    """Its pickle calls a function when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@given(TABLES, st.lists(st.integers(-(2**40), 2**40)), st.binary(max_size=300))
def test_what_python_2_wrote_is_read_as_pickle_reads_it(table, labels, text):
    rows, columns, random, transposed = table
    values = np.frombuffer(random.randbytes(rows * columns), np.uint8).reshape(columns, rows).T
    content = {b"data": values if transposed else values.copy(order="C"), b"labels": labels, b"batch_label": text}
    stream = python2(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy.core is deprecated
        expected = pickle.loads(stream, encoding="bytes")
    got = read_pickled(stream, PATH)
    assert list(got) == list(expected)
    assert (got[b"labels"], got[b"batch_label"]) == (labels, text)
    assert got[b"data"].dtype == np.uint8
    np.testing.assert_array_equal(got[b"data"], expected[b"data"], strict=True)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "wrap", [lambda evil: evil, lambda evil: {"data": evil}, lambda evil: {"data": [{1: (evil,)}]}]
)
def test_nothing_is_run(tmp_path, wrap, protocol):
    marker = tmp_path / "ran"
    for evil, name in (
        (Runs(os.system, f"touch {marker}"), "(posix|nt).system"),
        (Runs(eval, f"open({str(marker)!r}, 'w')"), "(__builtin__|builtins).eval"),
        (Runs(getattr, 1, "real"), "(__builtin__|builtins).getattr"),
        (Runs(np.fromfile, str(marker)), "numpy.*fromfile"),
    ):
        with pytest.raises(DataError, match=rf"^data_batch_1: asks to run ({name}), which published data never do"):
            read_pickled(pickle.dumps(wrap(evil), protocol), PATH)
    with pytest.raises(DataError, match=r"asks to run (posix|nt).mkdir"):
        read_pickled(python2({b"data": np.array([Runs(os.mkdir, str(marker))], object)}), PATH)
    assert not marker.exists()


def test_names_that_are_let_through_run_nothing_either():
    """Calls of numpy's names with arguments that would reserve a terabyte, and changes to what stands for them."""
    huge = b"\x80\x02}U\x04datacnumpy\nndarray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85Rs."
    with pytest.raises(DataError, match="expected arrays of two dimensions and unsigned bytes, got another object of"):
        read_pickled(huge, PATH)
    renamed = b"\x80\x02}U\x04datacnumpy\ndtype\n}U\x04nameU\x09os.systemsb)Rs."
    with pytest.raises(DataError, match="expected arrays of two dimensions"):
        read_pickled(renamed, PATH)
    built = b"\x80\x02cnumpy\ndtype\n)\x81."
    with pytest.raises(DataError, match="expected a pickled dictionary, got something unreadable"):
        read_pickled(built, PATH)


def test_registered_extensions_are_refused():
    copyreg.add_extension("os", "system", 0x7EADBEE)
    try:
        with pytest.raises(DataError, match="asks to run os.system"):
            read_pickled(b"\x80\x02\x84\xee\xdb\xea\x07U\x04true\x85R.", PATH)
    finally:
        copyreg.remove_extension("os", "system", 0x7EADBEE)


@pytest.mark.parametrize(
    "array",
    [
        np.array([[None, 1]], object),
        np.zeros((2, 2), np.int64),
        np.zeros((2, 2), bool),
        np.zeros(3, np.uint8),
        np.zeros((1, 2, 3), np.uint8),
        np.zeros((2, 2), [("a", "u1")]),
    ],
    ids=str,
)
def test_other_arrays_are_refused(array):
    with pytest.raises(DataError, match="data_batch_1: expected arrays of two dimensions and unsigned bytes"):
        read_pickled(python2({b"data": array}), PATH)


@pytest.mark.parametrize(("rows", "columns"), [(b"K\x02", b"K\x03"), (b"J\xff\xff\xff\xff", b"J\xfc\xff\xff\xff")])
def test_shapes_that_do_not_fit_the_bytes_are_refused(rows, columns):
    stream = python2({b"data": np.zeros((2, 2), np.uint8)})
    assert stream.count(b"K\x02K\x02\x86") == 1
    with pytest.raises(DataError, match="expected arrays of two dimensions"):
        read_pickled(stream.replace(b"K\x02K\x02\x86", rows + columns + b"\x86"), PATH)


@given(st.binary(max_size=60))
def test_damage_is_a_data_error(stream):
    with pytest.raises(DataError, match="data_batch_1: "):
        read_pickled(b"\x80\x02" + stream + b"\x00", PATH)


def test_a_cut_pickle_and_another_object_are_refused():
    stream = python2({b"data": np.zeros((2, 2), np.uint8)})
    for length in range(len(stream)):
        with pytest.raises(DataError, match="expected a pickled dictionary, got something unreadable"):
            read_pickled(stream[:length], PATH)
    with pytest.raises(DataError, match="expected a pickled dictionary, got list"):
        read_pickled(python2([1, 2]), PATH)
