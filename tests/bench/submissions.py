"""Files that users hand in, good and bad."""

from __future__ import annotations

from textwrap import dedent, indent


def write(folder, body="return torch.relu(x)", *, init="", top="", name="mine"):
    """A file with a `CustomActivation` of this forward, constructor and code before the class."""
    path = folder / f"{name}.py"
    path.write_text(
        f"import os\nimport sys\nimport time\n\nimport torch\nfrom torch import nn\n\n{dedent(top)}\n\n"
        "class CustomActivation(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        f"{indent(dedent(init), ' ' * 8)}\n\n    def forward(self, x):\n{indent(dedent(body), ' ' * 8)}\n"
    )
    return path


LAZY = {
    "init": "self.slope = None\nself.scale = nn.Parameter(torch.ones(1))",
    "body": """\
        if self.slope is None:
            self.slope = nn.Parameter(torch.full((x.shape[1],), 0.1))
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return self.scale * torch.relu(x) + self.slope.view(shape) * x
    """,
}
