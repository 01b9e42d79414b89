"""Images that stay bytes, against the usual pipeline image by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from softknee._bench.images import PADDING, Images, resized
from softknee._bench.streams import Stream, stream_generator

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def images(number: int = 12, *, channels: int = 3, augmented: bool = True, side: int = 32) -> Images:
    random = torch.Generator().manual_seed(0)
    return Images(
        fingerprint="",
        train_inputs=torch.randint(256, (number, channels, side, side), dtype=torch.uint8, generator=random),
        train_labels=torch.arange(number),
        test_inputs=torch.randint(256, (4, channels, side, side), dtype=torch.uint8, generator=random),
        test_targets=torch.arange(4),
        classes=tuple(map(str, range(number))),
        constants={"exact": (MEAN[:channels], STD[:channels])},
        augmented=augmented,
    )


def epoch(examples: Images, seed: int = 0, index: int = 0, batch_size: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    pairs = list(examples.batches(stream_generator(seed, Stream.ORDER, index), batch_size, 0))
    return torch.cat([one for one, _ in pairs]), torch.cat([one for _, one in pairs])


def normalised(raw: torch.Tensor) -> torch.Tensor:
    """The usual transforms: bytes to [0, 1], then less the mean and divided by the deviation."""
    return (raw.double() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def test_without_augmentation_every_image_comes_once_and_is_normalised():
    examples = images(augmented=False)
    inputs, labels = epoch(examples)
    assert labels.sort().values.tolist() == list(range(12))
    assert labels.tolist() != list(range(12))
    assert_close(inputs.double(), normalised(examples.train_inputs[labels]), atol=1e-5, rtol=1e-5)


def test_every_image_is_a_crop_of_the_image_padded_with_zeros_perhaps_flipped():
    examples = images()
    seen = set()
    for index in range(15):
        inputs, labels = epoch(examples, index=index)
        for one, label in zip(inputs, labels, strict=True):
            padded = F.pad(examples.train_inputs[label], (PADDING,) * 4)
            matches = [
                (int(label), y, x, flip)
                for y in range(2 * PADDING + 1)
                for x in range(2 * PADDING + 1)
                for flip in (False, True)
                if torch.equal(one, examples.prepare(window(padded, y, x, flip=flip)[None])[0])
            ]
            assert len(matches) == 1
            seen.add(matches[0])
    # 180 draws of 1,944 possibilities: some 172 distinct ones are expected.
    assert 160 < len(seen) <= 180


def window(padded: torch.Tensor, y: int, x: int, *, flip: bool) -> torch.Tensor:
    cropped = padded[:, y : y + 32, x : x + 32]
    return cropped.flip(-1) if flip else cropped


def test_crops_and_flips_are_even_and_independent():
    # One bright pixel in the middle tells where the window was; a second one beside it, whether it was flipped.
    raw = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    raw[0, 0, 16, 15] = 255
    number = 6000
    examples = images(number, channels=1)
    examples.train_inputs[:] = raw
    inputs, _ = epoch(examples, batch_size=1000)
    place = (inputs[:, 0] > 0).flatten(1).int().argmax(1)
    rows, columns = place // 32, place % 32
    # The pixel is in column 11 to 19 unflipped and in 12 to 20 flipped, so columns are counted together.
    counts = torch.bincount(rows - rows.min(), minlength=9).double()
    assert len(counts) == 9
    assert chi_square(counts, torch.full((9,), number / 9)) < 26.1  # the 99.9 % quantile of 8 degrees of freedom
    unflipped, flipped = torch.arange(11, 20), 31 - torch.arange(11, 20)
    expected = torch.bincount(torch.cat([unflipped, flipped]), minlength=32).double() * number / 18
    found = torch.bincount(columns, minlength=32).double()
    assert torch.equal(found > 0, expected > 0)
    kept = expected > 0
    assert chi_square(found[kept], expected[kept]) < 29.6  # of 10
    table = torch.zeros(9, 2)
    for row, column in zip((rows - rows.min()).tolist(), (columns < 12).tolist(), strict=True):
        table[row, int(column)] += 1
    independent = table.sum(1, keepdim=True) * table.sum(0, keepdim=True) / number
    assert chi_square(table, independent) < 26.1


def chi_square(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((found - expected) ** 2 / expected).sum())


def test_epochs_differ_and_repeat_by_seed():
    examples = images()
    assert torch.equal(epoch(examples, 3, 1)[0], epoch(examples, 3, 1)[0])
    assert not torch.equal(epoch(examples, 3, 1)[1], epoch(examples, 3, 2)[1])
    # The order is the same whether images are augmented or not, and whatever the size of a batch.
    assert torch.equal(epoch(examples, 3, 1)[1], epoch(images(augmented=False), 3, 1, batch_size=7)[1])
    assert torch.equal(epoch(examples, 3, 1)[0], epoch(examples, 3, 1, batch_size=7)[0])


def test_grey_images_have_three_channels_alike():
    inputs, _ = epoch(images(channels=1))
    assert inputs.shape == (12, 3, 32, 32)
    assert torch.equal(inputs[:, 0], inputs[:, 2])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_mean_square_is_that_of_prepared_inputs(channels):
    examples = images(channels=channels)
    assert examples.input_square == pytest.approx(examples.prepare(examples.train_inputs).square().mean().item())


def test_resizing_is_that_of_the_usual_library():
    pillow = pytest.importorskip("PIL.Image")
    raw = torch.randint(256, (5, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    theirs = [np.asarray(pillow.fromarray(one.numpy()).resize((32, 32), pillow.Resampling.BILINEAR)) for one in raw]
    assert torch.equal(resized(raw, 32)[:, 0], torch.tensor(np.stack(theirs)))
