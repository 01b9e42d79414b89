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
    import torch
    from softknee import functional
    from softknee._spec import Param, Promises, Spec

    def smooth_hinge(x, sharpness=1.0):
        "Smooth hinge."
        return 0.5 * (x + torch.hypot(x, torch.ones_like(x) / sharpness))

    SPEC = Spec(
        name="smooth_hinge", title="SmoothHinge", family="rectifier", function=smooth_hinge,
        formula="(x + sqrt(x**2 + 1 / sharpness**2)) / 2",
        parameters=(Param(name="sharpness", default=1.0, low=0.0, open_low=True),),
        promises=Promises(monotonic=True, smooth=True, lower_bound=0.0, lipschitz=1.0),
        source="folklore",
    )
    functional.SPECS = (*functional.SPECS, SPEC)

    import softknee
    from softknee import testing
    from softknee._atlas.site import build
    from softknee._cli import run

    module = softknee.create("smooth_hinge", sharpness=2.0, trainable=True, per_channel=3)
    assert type(module) is softknee.nn.SmoothHinge
    assert module(torch.zeros(2, 3)).tolist() == [[0.25] * 3] * 2
    for check in testing.checks_for(SPEC):
        if check is not testing.check_copies:  # pickling needs a function that can be imported
            check(SPEC)
    assert softknee.gain(softknee.nn.SmoothHinge()).valid in {True, False}
    for line in (["show", "smooth_hinge[sharpness=2]"], ["list", "--family", "rectifier"], ["cite", "smooth_hinge"]):
        assert run(line) == 0
    site = build(sys.argv[1], names=["smooth_hinge"])
    assert "class SmoothHinge" in softknee.source("smooth_hinge")
"""


def test_one_function_and_one_spec_are_enough(tmp_path: Path):
    script = tmp_path / "add.py"
    script.write_text(textwrap.dedent(PROGRAM))
    site = tmp_path / "site"
    done = subprocess.run([sys.executable, script, site], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "smooth_hinge" in done.stdout
    pages = [page for page in site.rglob("*.html") if "smooth_hinge" in page.name or "smooth_hinge" in page.parent.name]
    assert pages
    assert "sharpness" in pages[0].read_text()
