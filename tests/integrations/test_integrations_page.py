"""The snippets of the page on integrations run as they stand."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"
SECTIONS = PAGE.read_text(encoding="utf-8").split("\n## ")[1:]
WRITTEN = {
    "Any training loop": ["activations.jsonl"],
    "transformers": ["swish-bert", "bert.jsonl"],
    "Lightning": ["logs"],
    "TensorBoard": ["runs/one"],
}
NEEDS = {
    "Any training loop": "torch",
    "transformers": "accelerate",
    "Lightning": "lightning",
    "TensorBoard": "tensorboard",
}


@pytest.mark.parametrize("title", WRITTEN)
def test_snippets_run(title, tmp_path, monkeypatch):
    pytest.importorskip(NEEDS[title])
    monkeypatch.chdir(tmp_path)
    (section,) = (section for section in SECTIONS if section.startswith(title))
    snippets = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert snippets
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec("\n".join(snippets), {"__name__": "page"})
    for name in WRITTEN[title]:
        assert Path(name).exists()


def test_every_section_with_a_snippet_is_run():
    assert [section.partition("\n")[0] for section in SECTIONS if "```python" in section] == [
        "Any training loop: parameters and health of activations",
        *(title for title in WRITTEN if title != "Any training loop"),
    ]
