from __future__ import annotations

import os

import pytest

from softknee._report import files
from softknee._report.files import write_atomic


def test_text_and_bytes_arrive_as_given_and_nothing_else_is_left(tmp_path):
    write_atomic(tmp_path / "new" / "a.txt", "ü\r\n")
    write_atomic(tmp_path / "new" / "b.bin", b"\x00\xff")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "ü\r\n".encode()
    assert (tmp_path / "new" / "b.bin").read_bytes() == b"\x00\xff"
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.txt", "b.bin"]


def test_a_failed_write_leaves_the_old_content_and_no_part(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomic(path, "old")

    def full_disk(_):
        raise OSError("no space left")

    monkeypatch.setattr(files.os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    path, seen = tmp_path / "a.txt", []
    monkeypatch.setattr(files.os, "fsync", lambda handle: seen.append((os.fstat(handle).st_size, path.exists())))
    write_atomic(path, "12345")
    assert seen == [(5, False)]
