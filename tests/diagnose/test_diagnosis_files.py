"""Stored diagnoses: old files, files of others, and writes that fail."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
from fabricate_diagnosis import diagnosis

from softknee import UsageError
from softknee._diagnose.diagnosis import Diagnosis

OLD = Path(__file__).parent / "example_report.json"


def test_an_old_stored_file_still_loads_and_draws():
    """The file was written by the first version with this schema, and stays as it is."""
    old = Diagnosis.load(OLD)
    assert old.data["schema"] == 1
    assert old.findings
    assert old.verdict in old.to_html()
    assert len(old.summary().splitlines()) >= 5


def test_parts_that_a_stored_file_lacks_count_as_not_measured(tmp_path):
    data = json.loads(OLD.read_text())
    kept = {name: data[name] for name in ("schema", "sites")}
    path = tmp_path / "report.json"
    path.write_text(json.dumps(kept))
    lean = Diagnosis.load(path)
    assert lean.data["curvature"] is None
    assert lean.findings == []
    assert "<h2>Network</h2>" in lean.to_html()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema": 2}', "schema 2, and this version of softknee reads up to 1; update it"),
        ('{"sites": []}', "this is no diagnosis; it has no schema number"),
        ("[]", "this is no diagnosis"),
        ('{"schema": true}', "this is no diagnosis"),
        ('{"schema": 1, "sites": 3}', "'sites' must be a list of objects"),
        ("not json", "this is no JSON"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        Diagnosis.load(path)
    with pytest.raises(OSError, match=r"report\.json"):
        Diagnosis.load(tmp_path / "elsewhere" / "report.json")


def test_a_stored_file_is_drawn_without_torch():
    program = (
        "import sys; sys.modules['torch'] = None; from softknee._diagnose.diagnosis import Diagnosis; "
        f"found = Diagnosis.load({str(OLD)!r}); print(len(found.to_html()), found.summary())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 10_000


def test_a_failed_write_leaves_the_old_files(tmp_path, monkeypatch):
    first = Diagnosis(diagnosis(2))
    first.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full_disk(*_):
        raise OSError("no space")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        Diagnosis(copy.deepcopy(diagnosis(3))).save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
