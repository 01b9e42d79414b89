"""CIFAR-10 and CIFAR-100: from a folder or an archive on this machine, or a checksummed download."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from softknee._bench.data import ImageData, check_sum
from softknee._bench.download import fetch
from softknee._errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from softknee._bench.cifar_sets import Cifar, Form

# Where data are sought before they are downloaded.
LOCAL = Path("data")
# Tried in turn; the first leads to the second today.
ADDRESSES = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")


def load(which: Cifar, source: str) -> ImageData:
    """Load and verify one of the two sets.

    Every file is compared with its published checksum before it is decoded: the archive where it is read packed, else
    each file of the folder. The fingerprint is the SHA-256 of the images to train on `(n, 3, 32, 32)`, their labels
    `(n,)`, the images to evaluate on and their labels, a byte a value; it says nothing of the form they came in.

    Args:
        which: `CIFAR10` or `CIFAR100` of `cifar_sets`; of the latter the 100 fine labels are taken.
        source: `"full"` (the folder `data` where the set is there, else a cached download of the binary form), or a
            folder with the binary or the pickled form, unpacked or as the archive, or any of these itself.

    Returns:
        The images and labels.

    Raises:
        DataError: The set is missing, or a file of it is or has another checksum.
    """
    if source == "mini":
        raise DataError(f"no part of {which.title} ships with softknee, as mini; data takes full or a folder with it")
    root = LOCAL if source == "full" else Path(source)
    found = _find(which, root)
    if found is None and source == "full":
        found = which.forms[0], _download(which)
    if found is None:
        names = " or ".join(f"{form.folder}/ or {form.archive}" for form in which.forms)
        raise DataError(f"{root}: expected {which.title} there, as {names}; {_advice(which)}")
    return _read(which, *found)


def _find(which: Cifar, root: Path) -> tuple[Form, Path] | None:
    """Return the folder with the files, or the archive, of the first form that is there."""
    for form in which.forms:
        if (root / form.folder).is_dir():
            return form, root / form.folder
        if root.name == form.folder and root.is_dir():
            return form, root
    for form in which.forms:
        for archive in (root / form.archive, root):
            if archive.name == form.archive and archive.is_file():
                return form, archive
    return None


def _read(which: Cifar, form: Form, place: Path) -> ImageData:
    decoded = {}
    for file, path, stream in (_of_folder if place.is_dir() else _of_archive)(form, place):
        images, labels = form.read(stream, path)
        if labels.max() >= len(which.classes):
            raise DataError(f"{path}: expected labels below {len(which.classes)}, got {labels.max()}")
        decoded[file] = images, labels
    *train, test = (decoded[file] for file in form.files)
    arrays = [np.concatenate(parts) for parts in (*zip(*train, strict=True), *zip(test, strict=True))]
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.data)
    images, labels, test_images, test_labels = arrays
    return ImageData(which.name, digest.hexdigest(), images, labels, test_images, test_labels, which.classes)


def _of_folder(form: Form, folder: Path) -> Iterator[tuple[str, Path, bytes]]:
    for file, expected in form.files.items():
        path = folder / file
        if not path.is_file():
            raise DataError(f"{path}: no such file; expected {', '.join(form.files)}, as {form.archive} holds them")
        stream = path.read_bytes()
        check_sum(path, stream, expected)
        yield file, path, stream


def _of_archive(form: Form, path: Path) -> Iterator[tuple[str, Path, bytes]]:
    packed = path.read_bytes()
    check_sum(path, packed, form.checksum)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for member in archive:
            folder, _, file = member.name.rpartition("/")
            stream = archive.extractfile(member)
            if stream is not None and folder == form.folder and file in form.files:
                yield file, path / member.name, stream.read()


def _download(which: Cifar) -> Path:
    form = which.forms[0]
    try:
        return fetch({form.archive: form.checksum}, addresses=ADDRESSES, folder=which.name) / form.archive
    except DataError as error:
        raise DataError(f"{which.title} is not in {LOCAL.resolve()}, and {error}; {_advice(which)}") from error


def _advice(which: Cifar) -> str:
    packed, unpacked = which.sizes
    return (
        f"`curl -LO {ADDRESSES[0]}{which.forms[0].archive}` brings it ({packed}, {unpacked} unpacked, which is not "
        f"needed); put it into {LOCAL}/ or give its folder (--data FOLDER)"
    )
