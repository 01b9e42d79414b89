"""The embedded digits: what they are, that damage is found, and that their parts are apart."""

from __future__ import annotations

import hashlib
import lzma

import numpy as np
import pytest
import torch

from softknee._bench import data, digits
from softknee._bench.tasks import TASKS, load_tensors
from softknee._errors import DataError, UsageError

# Of all labels, as the repository states them.
COUNTS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
FIRST = [0, 0, 5, 13, 9, 1, 0, 0]


@pytest.fixture
def unread():
    digits.load_digits.cache_clear()
    yield
    digits.load_digits.cache_clear()


def test_they_are_the_published_ones():
    images = digits.load_digits()
    labels = np.concatenate([images.train_labels, images.test_labels])
    pixels = np.concatenate([images.train_images, images.test_images])
    assert np.bincount(labels).tolist() == COUNTS
    assert pixels.shape == (1797, 8, 8)
    assert (pixels.min(), pixels.max()) == (0, 16)
    assert pixels[0, 0].tolist() == FIRST
    streams = [lzma.decompress((data.EMBEDDED / f"{name}.xz").read_bytes()) for name in digits.FILES]
    assert TASKS["digits"].facts("embedded").fingerprint == hashlib.sha256(b"".join(streams)).hexdigest()
    assert sum((data.EMBEDDED / f"{name}.xz").stat().st_size for name in digits.FILES) < 57_000


def test_pixels_lie_in_the_unit_interval_about_zero_and_each_digit_is_held_out():
    whole, held = (load_tensors("embedded", split, "digits") for split in ("test", "validation"))
    assert (whole.train_inputs.min(), whole.train_inputs.max()) == (-1, 1)
    assert whole.train_inputs[0, :8].tolist() == [value / 8 - 1 for value in FIRST]
    assert (len(whole.train_labels), len(whole.test_targets)) == (1297, 500)
    assert len(held.train_labels) + len(held.test_targets) == 1297
    share = torch.bincount(held.test_targets) / torch.bincount(whole.train_labels)
    torch.testing.assert_close(share, torch.full((10,), 1 / 6), atol=0.01, rtol=0)
    # The images of the two parts together are those of the whole.
    both = torch.cat([held.train_inputs, held.test_inputs])
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, whole.train_inputs.tolist()))


def test_a_damaged_file_is_found(tmp_path, monkeypatch, unread):
    for name in digits.FILES:
        (tmp_path / name).write_bytes(lzma.decompress((data.EMBEDDED / f"{name}.xz").read_bytes()))
    with (tmp_path / digits.FILES[0]).open("r+b") as file:
        file.seek(1000)
        file.write(b"\x01")
    monkeypatch.setattr(data, "EMBEDDED", tmp_path)
    with pytest.raises(DataError, match="digits-images-idx3-ubyte: expected MD5 a5adabcc"):
        digits.load_digits()


def test_no_other_data_can_be_given():
    with pytest.raises(UsageError, match="digits ships with softknee; leave data out, got 'full'"):
        TASKS["digits"].source("full")
