"""Every piece of code on the page about scale runs, in two processes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
BEGINNING = ""


def sections():
    """The code of each section by its title, what stands before the first under no title."""
    found = {}
    for section in re.split(r"^## ", "\n" + PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE):
        title = section.partition("\n")[0]
        code = "\n".join(re.findall(r"^```python\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL))
        if code:
            found[title] = code
    return found


def check_section(rank, title):
    pieces = sections()
    names = {}
    # One section begins where the one before it ended, as imports do.
    for before in (BEGINNING, "FSDP2", title):
        exec(compile(pieces[before], f"{PAGE.name}: {before}", "exec"), names)
    for parameter in names["model"].parameters():
        assert torch.isfinite(parameter).all()
        assert title in {"Optimizers", "Models made without memory"} or torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("title", [title for title in sections() if title != BEGINNING])
def test_code_runs(pair, title):
    if title == "Optimizers" and not hasattr(torch.optim, "Muon"):
        pytest.skip("needs a PyTorch with Muon")
    pair(check_section, title)


def test_all_sections_are_found():
    assert len(sections()) == 7
