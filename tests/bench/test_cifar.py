"""CIFAR-10 and CIFAR-100 in every form and place, from generated files of the published formats."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from imitate_cifar import COUNT, batch, draw, publish, python2, records

from softknee._bench import cifar, image_sets
from softknee._bench.cifar_files import read_batch, read_records
from softknee._bench.cifar_sets import CIFAR10, CIFAR100, SETS
from softknee._bench.image_sets import load_images
from softknee._errors import DataError, UsageError


@pytest.fixture(params=[CIFAR10, CIFAR100], ids=lambda which: which.name)
def drawn(request):
    return request.param, draw(request.param)


@pytest.fixture
def published(drawn, tmp_path):
    """A small set, what it is made of, and the folder it lies in."""
    which, content = drawn
    return publish(which, content, tmp_path), content, tmp_path


def test_the_published_sets_are_listed():
    for which, count in ((CIFAR10, 10), (CIFAR100, 100)):
        assert len(set(which.classes)) == count
        assert list(which.classes) == sorted(which.classes)
        sums = [checksum for form in which.forms for checksum in (form.checksum, *form.files.values())]
        assert len(set(sums)) == len(sums)
        assert {(kind, len(digest)) for kind, digest in (text.split(":") for text in sums)} == {
            ("sha256", 64),
            ("md5", 32),
        }
    assert [len(form.files) for which in (CIFAR10, CIFAR100) for form in which.forms] == [6, 6, 2, 2]
    # As the description of CIFAR-100 numbers them.
    assert [CIFAR100.classes.index(name) for name in ("baby", "keyboard", "sunflower", "worm")] == [2, 39, 82, 99]


def test_pixels_are_where_the_format_puts_them(published):
    """A record is labels, then 1,024 red, 1,024 green and 1,024 blue bytes, row by row."""
    which, content, folder = published
    found = cifar.load(which, str(folder / "unpacked"))
    *train, test = content
    assert found.train_images.shape == (COUNT * len(train), 3, 32, 32)
    assert found.train_images.dtype == found.train_labels.dtype == np.uint8
    for image, channel, row, column in ((0, 0, 0, 0), (COUNT - 1, 2, 31, 31), (7, 1, 5, 30)):
        byte = channel * 1024 + row * 32 + column
        assert found.test_images[image, channel, row, column] == test[0][image, byte]
        assert found.train_images[-COUNT + image, channel, row, column] == train[-1][0][image, byte]
    assert found.train_labels.tolist() == [label for _, _, fine in train for label in fine]
    assert found.test_labels.tolist() == test[2]
    assert found.classes == which.classes


def test_every_form_and_place_gives_the_same_data(published):
    which, content, folder = published
    *train, test = content
    parts = [pixels for pixels, _, _ in train], [fine for _, _, fine in train], [test[0]], [test[2]]
    stated = b"".join(np.concatenate(part).astype(np.uint8).tobytes() for part in parts)
    for form in which.forms:
        alone = replace(which, forms=(form,))
        for source in (
            folder / "unpacked",
            folder / "unpacked" / form.folder,
            folder / "packed",
            folder / "packed" / form.archive,
        ):
            found = cifar.load(alone, str(source))
            assert found.fingerprint == hashlib.sha256(stated).hexdigest()
            assert found.name == which.name


def test_a_changed_byte_is_found_in_every_form(published):
    which, _, folder = published
    for form in which.forms:
        alone = replace(which, forms=(form,))
        last = list(form.files)[-1]
        for place, name in ((folder / "unpacked", f"{form.folder}/{last}"), (folder / "packed", form.archive)):
            content = bytearray((place / name).read_bytes())
            content[len(content) // 2] ^= 1
            (place / name).write_bytes(content)
            with pytest.raises(
                DataError, match=rf"{name}: expected SHA256 [0-9a-f]+, got [0-9a-f]+ \([0-9,]+ bytes\); it is dam"
            ):
                cifar.load(alone, str(place))


def test_a_missing_file_is_named(published):
    which, _, folder = published
    form = which.forms[0]
    first, *_ = form.files
    (folder / "unpacked" / form.folder / first).unlink()
    with pytest.raises(DataError, match=rf"{first}: no such file; expected {first}, .*, as {form.archive} holds them"):
        cifar.load(which, str(folder / "unpacked"))


def test_a_label_beyond_the_classes_is_refused(drawn, tmp_path):
    which, content = drawn
    content[-1][2][3] = len(which.classes)
    with pytest.raises(DataError, match=f"expected labels below {len(which.classes)}, got {len(which.classes)}"):
        cifar.load(publish(which, content, tmp_path), str(tmp_path / "packed"))


def test_a_missing_set_says_what_to_do(tmp_path):
    with pytest.raises(DataError) as caught:
        load_images("cifar100", str(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path}: expected CIFAR-100 there, as cifar-100-binary/ or cifar-100-binary.tar.gz or cifar-100-python/ "
        "or cifar-100-python.tar.gz; `curl -LO https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz` brings it "
        "(169 MB, 184 MB unpacked, which is not needed); put it into data/ or give its folder (--data FOLDER)"
    )
    with pytest.raises(
        DataError, match="no part of CIFAR-10 ships with softknee, as mini; data takes full or a folder"
    ):
        load_images("cifar10", "mini")
    with pytest.raises(
        UsageError, match="no set of images is called 'cifar'; there are fashion-mnist, cifar10, cifar100"
    ):
        load_images("cifar")


def test_without_a_connection_one_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cifar, "ADDRESSES", ("http://127.0.0.1:9/",))
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    with pytest.raises(DataError) as caught:
        load_images("cifar10")
    assert str(caught.value) == (
        f"CIFAR-10 is not in {tmp_path / 'data'}, and cifar-10-binary.tar.gz could not be downloaded "
        "(http://127.0.0.1:9/: cannot be reached); `curl -LO http://127.0.0.1:9/cifar-10-binary.tar.gz` brings it "
        "(170 MB, 184 MB unpacked, which is not needed); put it into data/ or give its folder (--data FOLDER)"
    )


def test_by_default_the_local_folder_comes_first_then_the_download(published, tmp_path, monkeypatch):
    which, _, folder = published
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder / "packed"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cifar, "ADDRESSES", (f"http://127.0.0.1:{server.server_port}/",))
    monkeypatch.setattr(image_sets, "SETS", {which.name: which})
    try:
        downloaded = load_images(which.name)
    finally:
        server.shutdown()
        server.server_close()
    # Now there is no server: it is in the cache.
    assert load_images(which.name).fingerprint == downloaded.fingerprint
    other = publish(which, draw(which, seed=1), tmp_path / "other")
    (tmp_path / "other" / "unpacked").rename(tmp_path / "data")
    monkeypatch.setattr(image_sets, "SETS", {which.name: other})
    assert load_images(which.name).fingerprint != downloaded.fingerprint


def test_fashion_mnist_goes_by_name_too():
    found = load_images("fashion-mnist", "mini")
    assert (found.name, found.train_images.shape, len(found.classes)) == ("mini", (10_000, 28, 28), 10)
    assert ("fashion-mnist", *SETS) == image_sets.NAMES


def test_splits_of_colour_images_are_stratified(published):
    which, _, folder = published
    found = cifar.load(which, str(folder / "packed"))
    split = found.validation(1 / 3)
    counts = np.bincount(found.train_labels)
    np.testing.assert_array_equal(np.bincount(split.test_labels, minlength=len(counts)), np.round(counts / 3))
    together = np.concatenate([split.train_images, split.test_images])
    assert sorted(map(bytes, together)) == sorted(map(bytes, found.train_images))
    assert (split.classes, split.fingerprint) == (which.classes, found.fingerprint)


def test_files_that_are_not_what_they_should_be_are_refused(drawn, tmp_path):
    which, content = drawn
    pixels, coarse, fine = content[0]
    key = b"labels" if which is CIFAR10 else b"fine_labels"
    header = 1 if which is CIFAR10 else 2
    stream = records(which, *content[0])
    for broken in (stream[:-1], b""):
        with pytest.raises(
            DataError, match=rf"f: expected records of {header + 3072:,} bytes, got {len(broken):,} bytes"
        ):
            read_records(broken, tmp_path / "f", header=header)
    for broken, message in (
        (batch(which, pixels[:, 1:], coarse, fine), r"f: expected data of 3,072 bytes an image, got \(30, 3071\)"),
        (batch(which, pixels, coarse, fine[1:]), f"f: expected {key.decode()} for 30 images, got 29"),
        (batch(which, pixels, coarse, [*fine[1:], 256]), f"f: expected {key.decode()} of 0 to 255, got 256"),
        (batch(which, pixels, coarse, [*fine[1:], "3"]), f"f: expected {key.decode()} of 0 to 255, got b'3'"),
        (python2({b"data": pixels}), f"f: expected {key.decode()} for 30 images, got none"),
        (python2({b"labels": fine}), "f: expected data of 3,072 bytes an image, got None"),
    ):
        with pytest.raises(DataError, match=message):
            read_batch(broken, tmp_path / "f", key=key)
