"""Texts: which files are read, how they are divided, and what the score of a model of bytes is."""

from __future__ import annotations

import hashlib
import math
import platform
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch

from softknee._bench import text
from softknee._bench.tasks import TASKS
from softknee._errors import DataError

TASK = TASKS["text"]
SMALL = text.Text("text", TASK.metric, context=4, windows=6)


@pytest.fixture(autouse=True)
def _read_anew():
    text._texts.cache_clear()


def place(name):
    return int(hashlib.sha256(name.encode()).hexdigest()[:12], 16) / 16**12


@pytest.fixture
def folder(tmp_path):
    """Files of which each holds its own letter, a hundred times."""
    (tmp_path / "inner").mkdir()
    for number in range(26):
        path = tmp_path / ("inner" if number % 2 else "") / f"{number}.txt"
        path.write_text(chr(97 + number) * 100)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "zero").write_bytes(b"a\0b")
    (tmp_path / "empty").touch()
    return tmp_path


def letters(stream):
    return set(bytes(stream.flatten().tolist()).decode())


def test_the_library_is_divided_by_the_names_of_its_files():
    whole, held = TASK.load("library", "test"), TASK.load("library", "validation")
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"), key=lambda path: place(path.name))
    expected = b"".join(path.read_bytes() for path in files if place(path.name) >= 0.2)
    assert bytes(whole.text.tolist()) == expected
    assert torch.equal(whole.text, held.text)
    assert not torch.equal(whole.test_inputs, held.test_inputs)
    assert whole.test_inputs.shape == whole.test_targets.shape == (512, 64)
    assert torch.equal(whole.test_inputs[:, 1:], whole.test_targets[:, :-1])
    evaluated = b"".join(path.read_bytes() for path in files if place(path.name) < 0.1)
    assert bytes(whole.test_inputs[0].tolist()) == evaluated[:64]
    assert bytes(whole.test_targets[-1].tolist()) == evaluated[-64:]
    facts = TASK.facts("library")
    assert facts.train is None
    assert f"{len(files):,} files of Python {platform.python_version()}'s library" in facts.about
    assert f"{len(expected):,} to train on" in facts.about


def test_a_folder_is_read_with_all_its_texts_and_parts_share_no_file(folder):
    source = SMALL.source(folder)
    names = {f"{'inner/' if number % 2 else ''}{number}.txt": chr(97 + number) for number in range(26)}
    of = {
        part: {names[name] for name in names if low <= place(name) < high} for part, (low, high) in text.SHARES.items()
    }
    assert all(of.values())
    whole, held = SMALL.load(source, "test"), SMALL.load(source, "validation")
    assert letters(whole.text) == of["train"]
    assert letters(whole.test_inputs) <= of["test"]
    assert letters(held.test_inputs) <= of["validation"]
    assert "Bytes of 26 files" in SMALL.facts(source).about


def test_of_too_much_text_all_parts_lose_alike(folder, monkeypatch):
    whole = dict(text._texts(str(folder)))
    text._texts.cache_clear()
    monkeypatch.setattr(text, "MOST", 2_000)
    kept = text._texts(str(folder))
    assert sum(len(stream) for _, stream in kept) <= 2_000
    assert len(kept) == 20 < len(whole) == 26
    assert {*kept} <= {*whole.items()}
    assert [*kept] == sorted(kept, key=lambda pair: place(pair[0]))
    # Not those that come last, which are all to train on.
    assert [name for name, _ in kept] != [*whole][:20]
    assert len([name for name, _ in kept if place(name) >= 0.2]) < len([name for name in whole if place(name) >= 0.2])
    assert any(place(name) >= 0.9 for name, _ in kept)


def test_a_changed_file_changes_the_fingerprint(folder):
    before = SMALL.facts(str(folder)).fingerprint
    (folder / "0.txt").write_text("a" * 99 + "b")
    text._texts.cache_clear()
    assert SMALL.facts(str(folder)).fingerprint != before


def test_steps_draw_windows_from_everywhere_and_a_seed_has_its_own():
    examples = text.Windows(
        fingerprint="",
        test_inputs=torch.zeros(1, 5, dtype=torch.long),
        test_targets=torch.zeros(1, 5, dtype=torch.long),
        text=torch.arange(20, dtype=torch.uint8),
    )

    def drawn(seed):
        return [torch.stack(pair) for pair in examples.batches(torch.Generator().manual_seed(seed), 64, 10)]

    pairs = drawn(0)
    assert len(pairs) == 10
    for inputs, targets in pairs:
        assert torch.equal(inputs + 1, targets)
        assert torch.equal(inputs - inputs[:, :1], torch.arange(5).expand(64, 5))
    starts = torch.cat([inputs[:, 0] for inputs, _ in pairs])
    assert starts.unique().tolist() == list(range(15))
    assert all(map(torch.equal, pairs, drawn(0)))
    assert not all(map(torch.equal, pairs, drawn(1)))


def test_the_score_is_what_a_code_saves():
    examples = SMALL.load("library", "test")
    y = examples.test_targets

    def score(outputs):
        mean = examples.tally(outputs, y).double().mean().item()
        assert examples.loss(outputs, y).item() == pytest.approx(mean)
        return examples.score(mean)

    assert score(torch.zeros(*y.shape, 256)) == pytest.approx(0, abs=1e-5)
    certain = torch.nn.functional.one_hot(y, 256) * 100.0
    assert score(certain) == pytest.approx(8)
    # Two bytes held for equally likely need one bit, wherever one of them is right.
    either = certain + torch.nn.functional.one_hot((y + 1) % 256, 256) * 100.0
    assert score(either) == pytest.approx(7)
    assert examples.final_fields(certain) == {"next_byte_accuracy": 100.0, "test_size": 6}
    rows = examples.tally(either, y)
    assert rows.shape == (6,)
    np.testing.assert_allclose(rows, math.log(2), rtol=1e-5)


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path}/none: no such folder; --data takes a folder with texts"):
        SMALL.facts(SMALL.source(tmp_path / "none"))
    with pytest.raises(DataError, match=f"{tmp_path}: no texts; expected files in UTF-8"):
        SMALL.facts(SMALL.source(tmp_path))
    (tmp_path / "one.txt").write_text("abc")
    with pytest.raises(DataError, match="too little text; each part of its files needs 5 bytes"):
        SMALL.load(SMALL.source(tmp_path), "test")
