from __future__ import annotations

import gzip

import numpy as np
import pytest

from softknee._bench import data
from softknee._errors import DataError


@pytest.fixture(scope="module")
def mini():
    return data.load("mini")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder in torchvision's layout whose published checksums are those of the embedded subset."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name in data.FILES:
        (raw / f"{name}.gz").write_bytes(gzip.compress(data.unpack(data.EMBEDDED, name)[1], compresslevel=1))
    monkeypatch.setattr(data, "FULL_SUMS", data.MINI_SUMS)
    return raw


def test_embedded_subset_is_stratified_and_small(mini):
    assert mini.train_images.shape == (10_000, 28, 28)
    assert mini.test_images.shape == (2_000, 28, 28)
    assert np.bincount(mini.train_labels).tolist() == [1000] * 10
    assert np.bincount(mini.test_labels).tolist() == [200] * 10
    assert sum(path.stat().st_size for path in data.EMBEDDED.iterdir()) <= 6_000_000
    assert "MIT" in (data.EMBEDDED / "LICENSE-fashion-mnist").read_text()


@pytest.mark.full_data
def test_embedded_pixels_are_those_of_the_full_set(mini):
    full = data.load("full")
    assert len(full.train_labels) == 60_000
    for images, labels, some_images, some_labels, per_class in (
        (full.train_images, full.train_labels, mini.train_images, mini.train_labels, 1000),
        (full.test_images, full.test_labels, mini.test_images, mini.test_labels, 200),
    ):
        for label in range(10):
            np.testing.assert_array_equal(images[labels == label][:per_class], some_images[some_labels == label])


@pytest.mark.parametrize("given", ["root", "raw", "unpacked"])
def test_folder_is_found_in_every_layout(folder, mini, given):
    if given == "unpacked":
        for name in data.FILES:
            (folder / name).write_bytes(gzip.decompress((folder / f"{name}.gz").read_bytes()))
            (folder / f"{name}.gz").unlink()
    loaded = data.load(str(folder if given == "raw" else folder.parents[1]))
    assert loaded.fingerprint == mini.fingerprint
    assert loaded.name == "folder"


def test_changed_pixel_is_refused(folder):
    path = folder / f"{data.FILES[2]}.gz"
    stream = bytearray(gzip.decompress(path.read_bytes()))
    stream[100] ^= 1
    path.write_bytes(gzip.compress(bytes(stream), compresslevel=1))
    with pytest.raises(
        DataError, match=rf"{data.FILES[2]}\.gz: expected MD5 {data.MINI_SUMS[2][0]} unpacked, got [0-9a-f]+"
    ):
        data.load(str(folder))


def test_wrong_size_is_refused(folder):
    (folder / f"{data.FILES[1]}.gz").write_bytes(gzip.compress(b"\0" * 100))
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz: expected 10,008 bytes unpacked, got 100"):
        data.load(str(folder))


def test_cut_file_is_refused(folder):
    path = folder / f"{data.FILES[0]}.gz"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: cannot be read"):
        data.load(str(folder))


def test_missing_file_and_folder_are_named(folder, tmp_path):
    (folder / f"{data.FILES[3]}.gz").unlink()
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte: no such file"):
        data.load(str(folder))
    with pytest.raises(DataError, match="no such folder; --data takes mini, full or a folder"):
        data.load(str(tmp_path / "nowhere"))


def test_download_that_fails_says_what_else_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "DEBIAN", tmp_path / "absent")
    monkeypatch.setattr(data, "ADDRESS", "http://127.0.0.1:9/")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DataError, match="could not be downloaded.*dataset-fashion-mnist.*--data mini"):
        data.load("full")


def test_downloaded_files_are_checked_and_used(folder, tmp_path, monkeypatch, mini):
    """The download path for real, from a local server that holds files of the same format."""
    import hashlib
    import threading
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sums = tuple(hashlib.md5((folder / f"{name}.gz").read_bytes()).hexdigest() for name in data.FILES)
    monkeypatch.setattr(data, "DEBIAN", tmp_path / "absent")
    monkeypatch.setattr(data, "ADDRESS", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setattr(data, "PACKED_SUMS", sums)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    try:
        assert data.load("full").fingerprint == mini.fingerprint
        monkeypatch.setattr(data, "PACKED_SUMS", ("0" * 32, *sums[1:]))
        with pytest.raises(DataError, match="could not be downloaded"):
            data.load("full")
    finally:
        server.shutdown()
        server.server_close()


def test_validation_split_is_stratified_disjoint_and_leaves_the_test_set_out(mini):
    split = mini.validation()
    assert np.bincount(split.test_labels).tolist() == [167] * 10
    together = np.concatenate([split.train_images, split.test_images]).reshape(10_000, -1)
    assert sorted(map(bytes, together)) == sorted(map(bytes, mini.train_images.reshape(10_000, -1)))
    again = mini.validation()
    np.testing.assert_array_equal(split.test_images, again.test_images)
