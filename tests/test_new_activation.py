"""Adding an activation takes one function and one spec: everything else follows."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# What a new family file would hold, put into the catalogue before anything else reads it.
PROGRAM = """
    import sys
    from pathlib import Path
    import torch
    from softknee import functional
    from softknee._spec import Param, Promises, Spec

    def soft_deadzone(x, sharpness=1.0):
        "Soft dead zone."
        return x * torch.tanh(sharpness * x).square()

    SPEC = Spec(
        name="soft_deadzone", title="SoftDeadzone", family="rectifier", function=soft_deadzone,
        formula="x * (1 - 1 / ((exp(sharpness * x) + exp(-sharpness * x)) / 2)**2)",
        parameters=(Param(name="sharpness", default=1.0, low=0.0, open_low=True),),
        promises=Promises(monotonic=True, smooth=True, odd=True, zero_at_zero=True),
        source="folklore",
    )
    functional.SPECS = (*functional.SPECS, SPEC)

    import softknee
    from softknee import testing
    from softknee._atlas.site import build
    from softknee._cli import run

    module = softknee.create("soft_deadzone", sharpness=2.0, trainable=True, per_channel=3)
    assert type(module) is softknee.nn.SoftDeadzone
    assert module(torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2
    for check in testing.checks_for(SPEC):
        if check is not testing.check_copies:  # pickling needs a function that can be imported
            check(SPEC)
    assert softknee.gain(softknee.nn.SoftDeadzone()).valid in {True, False}
    for line in (["show", "soft_deadzone[sharpness=2]"], ["list", "--family", "rectifier"], ["cite", "soft_deadzone"]):
        assert run(line) == 0
    site = build(Path(sys.argv[1]), names=["soft_deadzone"])
    assert "class SoftDeadzone" in softknee.source("soft_deadzone")
"""


def test_one_function_and_one_spec_are_enough(tmp_path: Path):
    script = tmp_path / "add.py"
    script.write_text(textwrap.dedent(PROGRAM))
    site = tmp_path / "site"
    done = subprocess.run([sys.executable, script, site], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "soft_deadzone" in done.stdout
    pages = [
        page for page in site.rglob("*.html") if "soft_deadzone" in page.name or "soft_deadzone" in page.parent.name
    ]
    assert pages
    assert "sharpness" in pages[0].read_text()
