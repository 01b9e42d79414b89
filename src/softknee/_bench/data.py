"""Sets of images, and Fashion-MNIST: the embedded subset, a folder on this machine, or a checksummed download.

The pixels of every source are checked against the published MD5 sums of the unpacked streams, so a result never comes
from damaged or exchanged data, and the same data have the same fingerprint wherever they lay.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import math
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from softknee._bench.download import fetch
from softknee._errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
EMBEDDED = Path(__file__).parent / "embedded"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
# Tried in turn.
ADDRESSES = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
)

# MD5 and size of the unpacked streams, in the order of FILES.
FULL_SUMS = (
    ("f4a8712d7a061bf5bd6d2ca38dc4d50a", 47_040_016),
    ("9018921c3c673c538a1fc5bad174d6f9", 60_008),
    ("8181f5470baa50b63fa0f6fddb340f0a", 7_840_016),
    ("15d484375f8d13e6eb1aabb0c3f46965", 10_008),
)
MINI_SUMS = (
    ("dcab80f289ae27ab265a1e83946f0a1c", 7_840_016),
    ("611c8ef3426a757a9375a0ac94541d26", 10_008),
    ("4bb4107a89a38933fbbdd67584195c68", 1_568_016),
    ("84e2038f7beda4c0f4093bde29339f63", 2_008),
)
# Published MD5 of the packed files, for the download.
PACKED_SUMS = (
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "25c81989df183df01b3e8a0aad5dffbe",
    "bef4ecab320f06d8554ea6380940ec79",
    "bb300cfdad3c16e7a12a480ee83cd310",
)
VALIDATION_SHARE = 1 / 6
_ANEW = "it is damaged or another file: get it anew"
# What opens a file, by what its name ends in.
_OPENERS: Mapping[str, Callable[..., Any]] = MappingProxyType({"": open, ".gz": gzip.open, ".xz": lzma.open})


@dataclass(frozen=True)
class ImageData:
    """Images and labels, split into training and evaluation parts.

    Attributes:
        name: Of the set or, for Fashion-MNIST, of its source: `"mini"`, `"full"` or `"folder"`.
        fingerprint: SHA-256 of the images and labels, hexadecimal: of the unpacked streams of idx files, or as
            `softknee._bench.cifar.load` says.
        train_images: uint8, `(n, height, width)` if grey, `(n, 3, height, width)` if red, green and blue.
        train_labels: `(n,)` uint8.
        test_images: `(m, ...)` uint8, as those to train on.
        test_labels: `(m,)` uint8.
        classes: Their names by label; empty where labels are their own names.
    """

    name: str
    fingerprint: str
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]
    classes: tuple[str, ...] = ()

    def validation(self, share: float = VALIDATION_SHARE) -> ImageData:
        """Return a stratified split of the training part: the rest to train on, a share of each class to evaluate on.

        The split is the same for every seed, and the test part is not in it.

        Args:
            share: What to hold out, above 0 and below 1; 0.1 makes 45,000 and 5,000 of CIFAR's 50,000.

        Returns:
            The two parts of the training part, with the fingerprint of the whole.

        Raises:
            UsageError: The share is out of its range.
        """
        if not 0 < share < 1:
            raise UsageError(f"the share held out lies above 0 and below 1, got {share}")
        held = np.zeros(len(self.train_labels), dtype=bool)
        for label in np.unique(self.train_labels):
            members = np.flatnonzero(self.train_labels == label)
            shuffled = np.random.default_rng(int(label)).permutation(members)
            held[shuffled[: round(share * len(members))]] = True
        images, labels = self.train_images, self.train_labels
        return replace(
            self,
            train_images=images[~held],
            train_labels=labels[~held],
            test_images=images[held],
            test_labels=labels[held],
        )


def load(source: str) -> ImageData:
    """Load and verify the data.

    Args:
        source: `"mini"` (10,000 + 2,000 images that ship with softknee), `"full"` (Debian's package
            `dataset-fashion-mnist` where installed, else a cached download) or a folder with the four files, packed
            or not, in torchvision's layout (`FashionMNIST/raw/`) or flat.

    Returns:
        The images and labels.

    Raises:
        DataError: A file is missing, or its size or checksum is not the published one.
    """
    if source == "mini":
        return _read(EMBEDDED, MINI_SUMS, "mini")
    if source == "full":
        return _read(DEBIAN if _holds_data(DEBIAN) else _download(), FULL_SUMS, "full")
    return _read(_find_folder(Path(source)), FULL_SUMS, "folder")


def read_idx(stream: bytes) -> NDArray[np.uint8]:
    """Decode an IDX stream of unsigned bytes into an array of the shape its header states.

    Args:
        stream: Two zeros, the type (8), the rank, the sizes as big-endian integers of four bytes, the values.

    Returns:
        The values.

    Raises:
        DataError: The stream begins otherwise, or its length is not what its header states.
    """
    if len(stream) < 4 or stream[:3] != b"\0\0\x08":
        raise DataError(f"an IDX stream of unsigned bytes begins with 00 00 08, got {stream[:3].hex(' ') or 'nothing'}")
    values = 4 + 4 * stream[3]
    shape = [int.from_bytes(stream[place : place + 4], "big") for place in range(4, values, 4)]
    expected = values + math.prod(shape)
    if len(stream) != expected:
        raise DataError(f"an IDX stream of shape {tuple(shape)} has {expected:,} bytes, got {len(stream):,}")
    return np.frombuffer(stream, np.uint8, offset=values).reshape(shape)


def read_streams(
    folder: Path, names: Sequence[str], sums: Sequence[tuple[str, int]]
) -> tuple[str, list[NDArray[np.uint8]]]:
    """Read IDX files, plain or packed, each of them checked.

    Args:
        folder: Where they lie.
        names: Of the files, without what packing adds.
        sums: MD5 and size of each, unpacked.

    Returns:
        The SHA-256 of all streams together, hexadecimal, and the values of each.

    Raises:
        DataError: A file is missing or damaged.
    """
    digest = hashlib.sha256()
    arrays = []
    for name, (md5, size) in zip(names, sums, strict=True):
        path, stream = unpack(folder, name)
        verify(path, stream, md5, size)
        digest.update(stream)
        arrays.append(read_idx(stream))
    return digest.hexdigest(), arrays


def unpack(folder: Path, name: str) -> tuple[Path, bytes]:
    """Read `name`, `name.gz` or `name.xz` in `folder`; return which one it was, and its content unpacked.

    Raises:
        DataError: None of them is there, or the packed stream is damaged.
    """
    for suffix, opener in _OPENERS.items():
        path = folder / f"{name}{suffix}"
        if path.is_file():
            try:
                with opener(path, "rb") as file:
                    return path, bytes(file.read())
            except (OSError, EOFError, lzma.LZMAError) as error:
                raise DataError(f"{path}: cannot be read ({error}); {_ANEW}") from error
    raise DataError(f"{folder / name}: no such file, plain or packed (.gz, .xz)")


def verify(path: Path, stream: bytes, md5: str, size: int) -> None:
    """Check an unpacked stream against what was published.

    Raises:
        DataError: Its size or MD5 is another.
    """
    what = f"{path}, unpacked" if path.suffix in {".gz", ".xz"} else path
    if len(stream) != size:
        raise DataError(f"{what}: expected {size:,} bytes, got {len(stream):,}; {_ANEW}")
    check_sum(what, stream, f"md5:{md5}")


def check_sum(what: object, stream: bytes, expected: str) -> None:
    """Compare bytes with their published checksum.

    Args:
        what: Where they are from, for messages.
        stream: The bytes.
        expected: `"md5:..."` or `"sha256:..."`.

    Raises:
        DataError: It is another.
    """
    algorithm, _, digest = expected.partition(":")
    got = hashlib.new(algorithm, stream, usedforsecurity=False).hexdigest()
    if got != digest:
        raise DataError(f"{what}: expected {algorithm.upper()} {digest}, got {got} ({len(stream):,} bytes); {_ANEW}")


def _read(folder: Path, sums: Sequence[tuple[str, int]], name: str) -> ImageData:
    fingerprint, (images, labels, test_images, test_labels) = read_streams(folder, FILES, sums)
    return ImageData(name, fingerprint, images, labels, test_images, test_labels, CLASSES)


def _holds_data(folder: Path) -> bool:
    return any((folder / f"{FILES[0]}{suffix}").is_file() for suffix in _OPENERS)


def _find_folder(root: Path) -> Path:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; --data takes mini, full or a folder with Fashion-MNIST's four files")
    layouts = (root / "FashionMNIST" / "raw", root / "raw", root)
    found = next((folder for folder in layouts if _holds_data(folder)), None)
    if found is None:
        raise DataError(f"{root}: expected Fashion-MNIST there, as {', '.join(FILES)}, plain or packed; {_advice()}")
    return found


def _download() -> Path:
    packed = {f"{name}.gz": f"md5:{md5}" for name, md5 in zip(FILES, PACKED_SUMS, strict=True)}
    try:
        return fetch(packed, addresses=ADDRESSES, folder="fashion-mnist")
    except DataError as error:
        raise DataError(f"Fashion-MNIST is not in {DEBIAN}, and {error}; {_advice()}") from error


def _advice() -> str:
    return (
        f"`apt-get install dataset-fashion-mnist` brings it for --data full (31 MB, 55 MB unpacked, which is not "
        f"needed), or download the four files from {ADDRESSES[0]} and give their folder (--data FOLDER), or use the "
        "part that ships with softknee (--data mini)"
    )
