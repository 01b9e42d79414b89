"""The examples run and say what they found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_fine_tuning(tmp_path):
    command = [sys.executable, EXAMPLES / "finetune.py", "--epochs", "1", "--more", "1", "--seeds", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "3 changed, 0 left, 0 not seen or not changed; +112 parameters" in done.stdout
    (trained, swapped), *_ = [line.split()[1:3] for line in done.stdout.splitlines() if line.startswith("   0")]
    assert trained == swapped
    assert "95 % interval over seeds" in done.stdout
