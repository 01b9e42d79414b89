"""Downloads of published files: checked, from several addresses in turn, going on where a broken one ended."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softknee._errors import DataError
from softknee._extras import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# Bytes read at once: what is lost at most when a connection breaks.
CHUNK = 1 << 16
# Seconds without an answer.
PATIENCE = 30.0
LOCK = ".lock"


def fetch(files: Mapping[str, str], *, addresses: Sequence[str], folder: str) -> Path:
    """Return the folder of softknee's cache that holds the files, downloading those that are not there yet.

    What came of a file before its download broke is kept beside its place, with `.part` after its name, and the next
    try, also one of a later call or at another address, asks for the rest of it. One process at a time downloads to a
    folder, where there are POSIX locks; others wait for it and find the files.

    Args:
        files: Names, and the checksums that are expected: `"md5:..."` or `"sha256:..."`.
        addresses: Of the folders that hold them, ending in `/`; each file is sought in turn.
        folder: Name of the folder in the cache.

    Returns:
        The folder. Every file in it has been checked.

    Raises:
        DataError: A file cannot be had from any address, or what comes has another checksum, or the cache cannot be
            written to.
        MissingExtra: Pooch is not installed.
    """
    pooch = require("pooch", extra="bench")
    place = Path(pooch.os_cache("softknee")) / folder
    try:
        with _only_process(place):
            for file, checksum in files.items():
                _fetch_one(pooch, place, file, checksum, addresses)
    except OSError as error:
        raise DataError(f"{place} cannot be used for downloads ({error}); XDG_CACHE_HOME moves it") from error
    return place


def _fetch_one(pooch: Any, place: Path, file: str, checksum: str, addresses: Sequence[str]) -> None:
    reasons = []
    for address in addresses:
        # A second try, because the part that an earlier call left may belong to something else.
        cache = pooch.create(path=place, base_url=address, registry={file: checksum}, retry_if_failed=1)
        try:
            cache.fetch(file, downloader=_download)
        except (OSError, ValueError) as error:
            reasons.append(f"{address}: {error}")
        else:
            return
    raise DataError(f"{file} could not be downloaded ({'; '.join(reasons)})")


def _download(address: str, target: str, pooch: Any) -> None:
    """Write what is at the address to the target, as pooch asks its downloaders to."""
    del pooch
    part = Path(target).with_name(f"{address.rpartition('/')[2]}.part")
    reached = -1
    while not _receive(address, part):
        if part.stat().st_size <= reached:
            raise require("requests", extra="bench").ConnectionError(f"the connection broke after {reached:,} bytes")
        reached = part.stat().st_size
    part.replace(target)


def _receive(address: str, part: Path) -> bool:
    """Ask for what the part lacks, or for everything; return whether the part is complete now."""
    requests, urllib3 = require("requests", extra="bench"), require("urllib3", extra="bench")
    present = part.stat().st_size if part.is_file() else 0
    # Packed files are wanted as they are, whatever the server calls their encoding.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={present}-"} if present else {})
    try:
        answer = requests.get(address, headers=headers, stream=True, timeout=PATIENCE)
    except requests.ConnectionError as error:
        raise requests.ConnectionError("cannot be reached") from error
    with answer:
        if present and answer.status_code == requests.codes.requested_range_not_satisfiable:
            part.unlink()
            return _receive(address, part)
        answer.raise_for_status()
        if answer.status_code != requests.codes.partial_content:
            present = 0
        with part.open("ab" if present else "wb") as file:
            try:
                for chunk in answer.raw.stream(CHUNK, decode_content=False):
                    file.write(chunk)
            except urllib3.exceptions.HTTPError:
                return False
        length = answer.headers.get("Content-Length")
    return length is None or part.stat().st_size == present + int(length)


@contextmanager
def _only_process(folder: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
