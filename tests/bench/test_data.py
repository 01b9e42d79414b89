from __future__ import annotations

import gzip
import hashlib
import lzma

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from softknee._bench import data
from softknee._errors import DataError, UsageError

ADVICE = (
    "`apt-get install dataset-fashion-mnist` brings it for --data full (31 MB, 55 MB unpacked, which is not needed), "
    "or download the four files from http://127.0.0.1:9/ and give their folder (--data FOLDER), or use the part that "
    "ships with softknee (--data mini)"
)


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


@pytest.mark.parametrize("given", ["root", "raw", "unpacked", "xz"])
def test_folder_is_found_in_every_layout(folder, mini, given):
    if given in {"unpacked", "xz"}:
        for name in data.FILES:
            stream = gzip.decompress((folder / f"{name}.gz").read_bytes())
            (folder / f"{name}.gz").unlink()
            if given == "xz":
                (folder / f"{name}.xz").write_bytes(lzma.compress(stream, preset=0))
            else:
                (folder / name).write_bytes(stream)
    loaded = data.load(str(folder if given == "raw" else folder.parents[1]))
    assert loaded.fingerprint == mini.fingerprint
    assert loaded.name == "folder"


def test_changed_pixel_is_refused(folder):
    path = folder / f"{data.FILES[2]}.gz"
    stream = bytearray(gzip.decompress(path.read_bytes()))
    stream[100] ^= 1
    path.write_bytes(gzip.compress(bytes(stream), compresslevel=1))
    with pytest.raises(
        DataError, match=rf"{data.FILES[2]}\.gz, unpacked: expected MD5 {data.MINI_SUMS[2][0]}, got [0-9a-f]+"
    ):
        data.load(str(folder))


def test_wrong_size_is_refused(folder):
    (folder / f"{data.FILES[1]}.gz").write_bytes(gzip.compress(b"\0" * 100))
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz, unpacked: expected 10,008 bytes, got 100"):
        data.load(str(folder))


def test_cut_file_is_refused(folder):
    path = folder / f"{data.FILES[0]}.gz"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(
        DataError, match=r"train-images-idx3-ubyte\.gz: cannot be read \(.*\); it is damaged or another file: get it"
    ):
        data.load(str(folder))


def test_missing_file_and_folder_are_named(folder, tmp_path):
    (folder / f"{data.FILES[3]}.gz").unlink()
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte: no such file"):
        data.load(str(folder))
    with pytest.raises(DataError, match="no such folder; --data takes mini, full or a folder"):
        data.load(str(tmp_path / "nowhere"))


def test_a_folder_without_the_set_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "ADDRESSES", ("http://127.0.0.1:9/",))
    with pytest.raises(DataError) as caught:
        data.load(str(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path}: expected Fashion-MNIST there, as train-images-idx3-ubyte, train-labels-idx1-ubyte, "
        f"t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte, plain or packed; {ADVICE}"
    )


def test_download_that_fails_says_what_else_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "DEBIAN", tmp_path / "absent")
    monkeypatch.setattr(data, "ADDRESSES", ("http://127.0.0.1:9/", "http://localhost:9/"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    with pytest.raises(DataError) as caught:
        data.load("full")
    assert str(caught.value) == (
        f"Fashion-MNIST is not in {tmp_path / 'absent'}, and train-images-idx3-ubyte.gz could not be downloaded "
        f"(http://127.0.0.1:9/: cannot be reached; http://localhost:9/: cannot be reached); {ADVICE}"
    )


def test_downloaded_files_are_checked_and_used(folder, tmp_path, monkeypatch, mini):
    """The download path for real, from a local server that holds files of the same format."""
    import threading
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    sums = tuple(hashlib.md5((folder / f"{name}.gz").read_bytes()).hexdigest() for name in data.FILES)
    monkeypatch.setattr(data, "DEBIAN", tmp_path / "absent")
    monkeypatch.setattr(data, "ADDRESSES", ("http://127.0.0.1:9/", f"http://127.0.0.1:{server.server_port}/"))
    monkeypatch.setattr(data, "PACKED_SUMS", sums)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
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


def test_default_split_is_the_one_of_earlier_results(mini):
    """The digest was taken before another share could be held out."""
    split = mini.validation()
    digest = hashlib.sha256(split.test_images.tobytes() + split.train_images.tobytes()).hexdigest()
    assert digest == "13b39eb35f3c4747ff9b4a195fa723e0e889a7b4e99d8322ac3fdcb0ec2f0590"
    assert split.classes == mini.classes == data.CLASSES


@given(share=st.floats(0.001, 0.999))
def test_any_share_is_held_out_of_each_class(mini, share):
    split = mini.validation(share)
    assert np.bincount(split.test_labels, minlength=10).tolist() == [round(share * 1000)] * 10
    assert len(split.train_labels) + len(split.test_labels) == 10_000


@pytest.mark.parametrize("share", [0, 1, -0.1, 5000, float("nan")])
def test_a_share_is_part_of_a_whole(mini, share):
    with pytest.raises(UsageError, match=f"the share held out lies above 0 and below 1, got {share}"):
        mini.validation(share)


@given(arrays.arrays(np.uint8, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)))
def test_idx_holds_bytes_of_any_shape(values):
    stream = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes()
    np.testing.assert_array_equal(data.read_idx(stream), values, strict=True)
    for broken in (stream + b"\0", stream[:-1]):
        with pytest.raises(DataError, match="an IDX stream of "):
            data.read_idx(broken)


def test_idx_of_other_types_is_refused():
    for stream, got in ((b"\0\0\x0d\x01\0\0\0\0", "00 00 0d"), (b"\x1f\x8b\x08\0", "1f 8b 08"), (b"", "nothing")):
        with pytest.raises(DataError, match=f"an IDX stream of unsigned bytes begins with 00 00 08, got {got}"):
            data.read_idx(stream)
    with pytest.raises(DataError, match=r"an IDX stream of shape \(2, 3\) has 18 bytes, got 17"):
        data.read_idx(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5]))
