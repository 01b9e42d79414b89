"""Writing files so that a reader sees the old content or the new, never a part."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomic(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write `content` to a temporary file beside `path`, flush it to the disk, and move it into place.

    Args:
        path: Where the content ends up; missing folders are made.
        content: Text (written as UTF-8, line ends as they are) or bytes.

    Raises:
        OSError: The folder cannot be made or written; `path` then still holds what it held.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.part")
    try:
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
