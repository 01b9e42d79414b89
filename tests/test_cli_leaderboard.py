"""`softknee leaderboard` as a user types it: what it writes, what it says, and its exit status."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys

import pytest

from softknee._bench.compare import bench
from softknee._cli import run


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A small study, made for real."""
    folder = tmp_path_factory.mktemp("studies") / "mixture"
    bench("gmm-2d", ["relu", "tanh"], seeds=2, epochs=1, out=folder, executor="here")
    return folder


@pytest.fixture
def bad(study, tmp_path):
    """Folders without a study that this version can read, by what is wrong with them."""
    folders = {name: tmp_path / name for name in ("nowhere", "empty", "broken", "newer")}
    folders["empty"].mkdir()
    for name in ("broken", "newer"):
        shutil.copytree(study, folders[name])
    manifest = json.loads((study / "study.json").read_text())
    (folders["broken"] / "study.json").write_text(json.dumps(manifest)[:-1])
    (folders["newer"] / "study.json").write_text(json.dumps(manifest | {"schema": 2}))
    return folders


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere", "it holds no study.json"),
        ("empty", "it holds no study.json"),
        ("broken", "is damaged"),
        ("newer", "this version of softknee reads schema 1"),
    ],
)
def test_a_bad_folder_is_named_and_the_others_go_on(study, bad, tmp_path, capsys, name, reason):
    assert run(["leaderboard", str(study), str(bad[name]), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    (note,) = [line for line in said.splitlines() if line.startswith("Left out: ")]
    assert str(bad[name]) in note
    assert reason in note
    assert said.endswith(f"leaderboard: {tmp_path / 'out' / 'index.html'}\n")
    with (tmp_path / "out" / "leaderboard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted((row["protocol"], row["activation"], row["done"]) for row in rows) == [
        ("gmm-2d", "relu", "2"),
        ("gmm-2d", "tanh", "2"),
    ]
    # On the page, too.
    assert reason in (tmp_path / "out" / "index.html").read_text()


def test_nothing_but_bad_folders_is_an_error_that_names_each(bad, tmp_path, capsys):
    assert run(["leaderboard", *map(str, bad.values()), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("softknee: no study could be read: ")
    assert all(str(folder) in said for folder in bad.values())
    assert not (tmp_path / "out").exists()


def test_without_a_folder_there_is_nothing_to_do(capsys):
    assert run(["leaderboard"]) == 2
    assert "Missing argument 'folder'" in capsys.readouterr().err


def test_a_file_in_the_way_is_named(study, tmp_path, capsys):
    (tmp_path / "out").write_text("in the way")
    assert run(["leaderboard", str(study), "--out", str(tmp_path / "out")]) == 2
    assert str(tmp_path / "out") in capsys.readouterr().err


def test_it_needs_no_torch(study, tmp_path):
    program = (
        "import sys; from softknee._cli import run; "
        f"status = run(['leaderboard', {str(study.parent)!r}, '--out', {str(tmp_path / 'out')!r}]); "
        "sys.exit(status or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["index.html", "leaderboard.csv", "runs.csv"]
