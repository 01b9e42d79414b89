"""What is wrong with a submission is said in a sentence; here in this process, as far as that survives it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from submissions import LAZY, write
from torch import nn

from softknee._bench.protocols import PROTOCOLS
from softknee._bench.submission_faults import examine
from softknee._bench.submission_module import build_lazy

DIGITS, TABLE = PROTOCOLS["digits-cnn"].recipe, PROTOCOLS["gmm-2d"].recipe


def problem(path, recipe=DIGITS):
    return examine(path, recipe, seed=0, stage=lambda _: None).get("problem", "")


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"top": "import nowhere"}, "importing it raised ModuleNotFoundError: No module named 'nowhere' .line 8."),
        ({"top": "def broken(:"}, "importing it raised SyntaxError: .*line 8"),
        ({"init": "self.x = unknown"}, "CustomActivation.., which gets no arguments, raised NameError: .*unknown"),
        ({"body": "return x.flatten(1)"}, r"at activation_0 it changed the shape from \(16, 16, 8, 8\) to \(16, 1"),
        ({"body": "return x[:1]"}, r"at activation_0 it changed the shape from \(16, .* to \(1, "),
        ({"body": "return x.double()"}, "at activation_0 it changed the dtype from torch.float32 to torch.float64"),
        ({"body": "return x.to('meta')"}, "at activation_0 it changed the device from cpu to meta"),
        ({"body": "return x, x"}, "at activation_0 it returned tuple, not a tensor"),
        ({"body": "pass"}, "at activation_0 it returned NoneType, not a tensor"),
        ({"body": "return x.log()"}, "at activation_0 it returned NaN or infinity for inputs in a normal range"),
        ({"body": "return x * float('inf')"}, "at activation_0 it returned NaN or infinity"),
        ({"body": "return torch.where(x > 0, x.sqrt(), x)"}, "the gradient of .* is not finite in the first training"),
        ({"body": "return x.exp() if x.abs().max() < 8 else x / 0"}, "at activation_. it returned NaN or infinity"),
        ({"body": "y = x.sigmoid()\nreturn y * y.add_(1)"}, "a training step raised RuntimeError: .*inplace operation"),
        ({"body": "raise ValueError('not today')"}, "the first forward pass raised ValueError: not today .line 16."),
        (
            {"body": "if len(x) != 16:\n    raise ValueError('sixteen')\nreturn x"},
            "an evaluation raised ValueError: sixteen",
        ),
    ],
)  # fmt: skip
def test_each_fault_has_its_sentence(tmp_path, parts, sentence):
    assert re.search(sentence, problem(write(tmp_path, **parts)))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1", "it defines no class CustomActivation"),
        ("CustomActivation = abs", "its CustomActivation is no subclass of torch.nn.Module"),
        (
            "from torch import nn\nclass CustomActivation(nn.Module):\n    def __init__(self, channels):\n        pass",
            "CustomActivation(), which gets no arguments, raised TypeError",
        ),
    ],
)
def test_a_file_without_the_class_is_refused(tmp_path, text, sentence):
    path = tmp_path / "mine.py"
    path.write_text(text)
    assert sentence in problem(path)


def test_what_fits_images_may_not_fit_rows(tmp_path):
    path = write(tmp_path, "return x * torch.sigmoid(x.mean((2, 3), keepdim=True))")
    assert not problem(path)
    assert "the first forward pass raised IndexError" in problem(path, TABLE)


@pytest.mark.parametrize("body", ["return torch.relu_(x)", "return x / (1e-5 + x.square().mean().sqrt())"])
def test_in_place_and_across_the_batch_is_allowed(tmp_path, body):
    assert not problem(write(tmp_path, body))


def test_parameters_that_are_built_late_are_counted(tmp_path):
    found = examine(write(tmp_path, **LAZY), DIGITS, seed=0, stage=lambda _: None)
    plain = examine(write(tmp_path, name="plain"), DIGITS, seed=0, stage=lambda _: None)
    assert (plain["sites"], plain["activation_parameters"], plain["built_late"]) == (2, 0, 0)
    assert (found["activation_parameters"], found["built_late"]) == (16 + 32 + 2, 16 + 32)
    assert found["parameters"] == plain["parameters"] + 16 + 32 + 2


def test_torchs_own_lazy_modules_are_counted_too(tmp_path):
    path = write(tmp_path, "return torch.relu(self.norm(x))", init="self.norm = nn.LazyBatchNorm2d()")
    found = examine(path, DIGITS, seed=0, stage=lambda _: None)
    assert (found["activation_parameters"], found["built_late"]) == (2 * (16 + 32), 2 * (16 + 32))


def test_an_activation_inside_of_a_submission_is_no_place_of_the_model(tmp_path):
    path = write(tmp_path, "return self.activation(x)", init="self.activation = nn.PReLU()")
    found = examine(path, DIGITS, seed=0, stage=lambda _: None)
    assert (found["sites"], found["activation_parameters"]) == (2, 2)


def test_a_dry_pass_leaves_statistics_and_the_random_state_alone(tmp_path):
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.LazyLinear(2), nn.Dropout(0.5)).eval()
    state = torch.get_rng_state()
    build_lazy(model, shape=(3,), seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert model[1].running_mean.tolist() == [0] * 5
    assert model[1].num_batches_tracked == 0
    assert model[2].weight.shape == (2, 5)
    again = nn.Sequential(*list(model[:2]), nn.LazyLinear(2), nn.Dropout(0.5))
    build_lazy(again, shape=(3,), seed=4)
    assert torch.equal(again[2].weight, model[2].weight)


def test_the_example_and_the_page_show_files_that_pass(tmp_path):
    root = Path(__file__).parents[2]
    assert not problem(root / "examples" / "custom_activation.py")
    assert not problem(root / "examples" / "custom_activation.py", TABLE)
    _, _, code = root.joinpath("docs", "mls.md").read_text().partition("```python\n")
    path = tmp_path / "shown.py"
    path.write_text("import torch\nfrom torch import nn\n\n" + code.partition("```")[0])
    assert examine(path, DIGITS, seed=0, stage=lambda _: None)["built_late"] == 16 + 32
    assert not problem(path, TABLE)
