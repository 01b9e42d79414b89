"""Fashion-MNIST: the embedded subset, a folder on this machine, or a checksummed download.

The pixels of every source are checked against the published MD5 sums of the unpacked streams, so a result never comes
from damaged or exchanged data, and the same data have the same fingerprint wherever they lay.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from softknee._errors import DataError
from softknee._extras import require

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
EMBEDDED = Path(__file__).parent / "embedded"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"

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
VALIDATION_FRACTION = 1 / 6


@dataclass(frozen=True)
class ImageData:
    """Grey images and labels, split into training and evaluation parts.

    Attributes:
        name: `"mini"`, `"full"` or `"folder"`.
        fingerprint: SHA-256 over the unpacked streams, hexadecimal.
        train_images: `(n, 28, 28)` uint8.
        train_labels: `(n,)` uint8.
        test_images: `(m, 28, 28)` uint8.
        test_labels: `(m,)` uint8.
    """

    name: str
    fingerprint: str
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.uint8]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.uint8]

    def validation(self) -> ImageData:
        """Return a stratified split of the training part: the rest to train on, a sixth to evaluate on.

        The split is the same for every seed, and the test part is not in it.
        """
        held = np.zeros(len(self.train_labels), dtype=bool)
        for label in np.unique(self.train_labels):
            members = np.flatnonzero(self.train_labels == label)
            shuffled = np.random.default_rng(int(label)).permutation(members)
            held[shuffled[: round(VALIDATION_FRACTION * len(members))]] = True
        images, labels = self.train_images, self.train_labels
        return ImageData(self.name, self.fingerprint, images[~held], labels[~held], images[held], labels[held])


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
    """Decode an IDX stream of unsigned bytes into an array of the shape its header states."""
    rank = stream[3]
    shape = [int.from_bytes(stream[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(rank)]
    return np.frombuffer(stream, np.uint8, offset=4 + 4 * rank).reshape(shape)


def unpack(folder: Path, name: str) -> tuple[Path, bytes]:
    """Read `name`, `name.gz` or `name.xz` in `folder`; return which one it was, and its content unpacked.

    Raises:
        DataError: None of them is there, or the packed stream is damaged.
    """
    openers: tuple[tuple[str, Any], ...] = (("", Path.open), (".gz", gzip.open), (".xz", lzma.open))
    for suffix, opener in openers:
        path = folder / f"{name}{suffix}"
        if path.is_file():
            try:
                with opener(path, "rb") as file:
                    return path, bytes(file.read())
            except (OSError, EOFError, lzma.LZMAError) as error:
                raise DataError(
                    f"{path}: cannot be read ({error}); expected {name}, plain or packed by gzip"
                ) from error
    raise DataError(f"{folder / name}: no such file, plain or .gz; expected the four files {', '.join(FILES)}")


def _read(folder: Path, sums: tuple[tuple[str, int], ...], name: str) -> ImageData:
    digest = hashlib.sha256()
    arrays = []
    for file, (md5, size) in zip(FILES, sums, strict=True):
        path, stream = unpack(folder, file)
        verify(path, stream, md5, size)
        digest.update(stream)
        arrays.append(read_idx(stream))
    return ImageData(name, digest.hexdigest(), *arrays)


def verify(path: Path, stream: bytes, md5: str, size: int) -> None:
    """Check an unpacked stream against what was published.

    Raises:
        DataError: Its size or MD5 is another.
    """
    if len(stream) != size:
        raise DataError(f"{path}: expected {size:,} bytes unpacked, got {len(stream):,}")
    got = hashlib.md5(stream, usedforsecurity=False).hexdigest()
    if got != md5:
        raise DataError(f"{path}: expected MD5 {md5} unpacked, got {got}")


def _holds_data(folder: Path) -> bool:
    return any((folder / f"{FILES[0]}{suffix}").is_file() for suffix in ("", ".gz"))


def _find_folder(root: Path) -> Path:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; --data takes mini, full or a folder with Fashion-MNIST's four files")
    layouts = (root / "FashionMNIST" / "raw", root / "raw", root)
    return next((folder for folder in layouts if _holds_data(folder)), root)


def _download() -> Path:
    pooch = require("pooch", extra="bench")
    packed = [f"{name}.gz" for name in FILES]
    cache = pooch.create(
        path=pooch.os_cache("softknee") / "fashion-mnist",
        base_url=ADDRESS,
        registry={name: f"md5:{md5}" for name, md5 in zip(packed, PACKED_SUMS, strict=True)},
    )
    try:
        for name in packed:
            cache.fetch(name)
    except (OSError, ValueError) as error:
        raise DataError(
            f"Fashion-MNIST could not be downloaded ({error}); install Debian's dataset-fashion-mnist, "
            "give a folder that holds it, or use the embedded subset (--data mini)"
        ) from error
    return Path(cache.path)
