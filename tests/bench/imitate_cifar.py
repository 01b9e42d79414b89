"""Small sets in the exact formats of CIFAR: records, Python 2's pickles, archives; and what expects their sums."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import tarfile
from dataclasses import replace

import numpy as np

# Images in a file.
COUNT = 30


class Python2(pickle._Pickler):
    """Writes protocol 2 as Python 2 did: bytes and ASCII text are its one kind of string."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_string(self, text):
        raw = text if isinstance(text, bytes) else text.encode("ascii")
        size = bytes([len(raw)]) if len(raw) < 256 else struct.pack("<i", len(raw))
        self.write((pickle.SHORT_BINSTRING if len(raw) < 256 else pickle.BINSTRING) + size + raw)
        self.memoize(text)

    dispatch[bytes] = dispatch[str] = save_string


def python2(content):
    """The pickle of old Python and numpy."""
    stream = io.BytesIO()
    Python2(stream, protocol=2).dump(content)
    return stream.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")


def draw(which, seed=0):
    """Pixels `(COUNT, 3072)` and labels, coarse and fine, for each file."""
    random = np.random.default_rng(seed)
    classes = len(which.classes)
    return [
        (
            random.integers(0, 256, (COUNT, 3072), dtype=np.uint8),
            random.integers(0, 20, COUNT).tolist(),
            random.permutation(np.arange(COUNT) % classes).tolist(),
        )
        for _ in which.forms[0].files
    ]


def records(which, pixels, coarse, fine):
    """The binary form of a file, record by record."""
    heads = [[f] for f in fine] if which.name == "cifar10" else list(zip(coarse, fine, strict=True))
    return b"".join(bytes(head) + row.tobytes() for head, row in zip(heads, pixels, strict=True))


def batch(which, pixels, coarse, fine):
    """The pickled form of a file, with what else the published ones hold."""
    names = [b"image_%d.png" % place for place in range(len(pixels))]
    content = {b"batch_label": b"training batch 1 of 5", b"data": pixels, b"filenames": names}
    labels = {b"labels": fine} if which.name == "cifar10" else {b"coarse_labels": coarse, b"fine_labels": fine}
    return python2(content | labels)


def pack(folder, files):
    """An archive that holds them, in another order and among others, as the published ones do."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as archive:
        directory = tarfile.TarInfo(folder)
        directory.type = tarfile.DIRTYPE
        archive.addfile(directory)
        for name, content in [("readme.html", b"hello"), *reversed(files.items())]:
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def publish(which, drawn, folder):
    """Write both forms, unpacked in `unpacked` and packed in `packed`; return the set that expects just these."""
    forms = []
    for form, encode in zip(which.forms, (records, batch), strict=True):
        files = {name: encode(which, *content) for name, content in zip(form.files, drawn, strict=True)}
        (folder / "unpacked" / form.folder).mkdir(parents=True)
        for name, content in files.items():
            (folder / "unpacked" / form.folder / name).write_bytes(content)
        (folder / "packed").mkdir(exist_ok=True)
        packed = pack(form.folder, files)
        (folder / "packed" / form.archive).write_bytes(packed)
        sums = {name: f"sha256:{hashlib.sha256(content).hexdigest()}" for name, content in files.items()}
        forms.append(replace(form, checksum=f"sha256:{hashlib.sha256(packed).hexdigest()}", files=sums))
    return replace(which, forms=tuple(forms))
