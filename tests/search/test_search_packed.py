"""Models that are trained side by side do as each does alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import softknee
from softknee._errors import UsageError
from softknee._search.candidate import Candidate, Function
from softknee._search.packed import train_packed
from softknee._search.packed_chunks import chunks
from softknee._search.packed_lookup import Lookup, can_be_tabulated
from softknee._search.packed_table import tabulated
from softknee._search.task import Task
from softknee._search.train import Training

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# A clamp at sqrt(10), two crossings off the nodes of tables, and a kink at a node.
TEXTS = ("gelu", "min(max(x, -3.1622776601683795), 3.1622776601683795)**2", "min(x**2, elu(x) + 1)", "relu")
CPU = torch.device("cpu")


class Shuffled:
    """Batches in an order that torch's global random state decides."""

    def __init__(self, x: Tensor, y: Tensor, size: int = 16) -> None:
        self.x, self.y, self.size = x, y, size

    def __len__(self) -> int:
        return len(self.x) // self.size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(len(self.x)).split(self.size):
            yield self.x[rows], self.y[rows]


def mean_squares(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.mse_loss(model(batch[0]), batch[1])


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))


def dropping() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))


class Convolutions(nn.Module):
    """Batch norms, whose statistics are buffers, and an activation that is no module.

    Without biases before the norms: their gradients are rounding alone, which Adam makes steps of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, bias=False), nn.Conv2d(4, 4, 3, 2, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))
        self.head = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norms[0](self.first(x.view(-1, 1, 8, 8))))
        found: Tensor = self.head(F.relu(self.norms[1](self.second(x))).mean((2, 3)))
        return found


def task_of(
    make: Callable[[], nn.Module] = mlp,
    *,
    features: int = 4,
    step: Callable[[nn.Module, Any], Tensor] = mean_squares,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] = lambda ps: torch.optim.Adam(ps, 1e-2),
    test: bool = False,
) -> Task:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(160, features, generator=generator)
    y = (x[:, :1] * 2).sin() + x[:, 1:2] ** 2
    held = [(x[96:128], y[96:128])]
    rest = [(x[128:], y[128:])] if test else None
    return Task(make, step, Shuffled(x[:96], y[:96]), held, rest, optimizer=optimizer, epochs=5)


def candidates_of(*texts: str) -> list[Candidate]:
    return [Candidate((Function(text),), "asked") for text in texts]


def alone(task: Task, candidate: Candidate, run: int, part: float = 1.0) -> Training:
    training = Training(task, candidate, run)
    training.advance(math.ceil(part * task.run_steps), lambda _: None)
    return training


def loss_alone(task: Task, candidate: Candidate, run: int, part: float = 1.0) -> float:
    return float(task.evaluate(alone(task, candidate, run, part).model, task.val_batches).mean())


def assert_as_alone(task: Task, candidates: Sequence[Candidate], runs: Sequence[int], *, rtol: float = 1e-5) -> None:
    found = train_packed(task, candidates, runs).validation[..., 0]
    expected = [[loss_alone(task, candidate, run) for run in runs] for candidate in candidates]
    np.testing.assert_allclose(found, expected, rtol=rtol)


def test_losses_are_those_of_each_model_alone() -> None:
    assert_as_alone(task_of(), candidates_of(*TEXTS), (0, 3))


def test_convolutions_with_batch_norm() -> None:
    task = task_of(Convolutions, features=64)
    assert_as_alone(task, candidates_of("gelu", "tanh", "relu"), (1,), rtol=1e-4)


def test_dropout_leaves_out_the_same_units() -> None:
    task = task_of(dropping)
    assert_as_alone(task, candidates_of("gelu", "relu"), (0, 1))


def test_functions_with_constants_that_are_trained() -> None:
    swish = [
        Candidate((Function("x * sigmoid(a * x)", (("a", start),), trained=True),), "asked") for start in (0.5, 2.0)
    ]
    task = task_of(optimizer=lambda ps: torch.optim.AdamW(ps, 1e-2, weight_decay=0.1))
    candidates = [*candidates_of("prelu", "swish", "gelu"), *swish]
    # Those of one formula go together.
    assert sorted(len(chunk.rows) for chunk in chunks(task, candidates)) == [1, 1, 1, 2]
    assert_as_alone(task, candidates, (2,))


def test_models_start_from_the_weights_of_their_run() -> None:
    task = task_of()
    (chunk,) = chunks(task, candidates_of("gelu", "tanh"))
    pack = chunk.pack(task, 7)
    expected = task.fresh(7).state_dict()
    assert len(expected) == 6
    for name, value in expected.items():
        for one in pack.model.get_parameter(name):
            torch.testing.assert_close(one, value, rtol=0, atol=0)


def test_parts_and_test_losses() -> None:
    task = task_of(test=True)
    candidates = candidates_of("gelu", "tanh")
    found = train_packed(task, candidates, (0,), parts=(0.3, 1.0), test=True)
    for row, candidate in enumerate(candidates):
        expected = [loss_alone(task, candidate, 0, part) for part in (0.3, 1.0)]
        np.testing.assert_allclose(found.validation[row, 0], expected, rtol=1e-5)
        tested = task.evaluate(alone(task, candidate, 0).model, task.test_batches or ()).mean()
        assert found.test is not None
        np.testing.assert_allclose(found.test[row, 0], tested, rtol=1e-5)


def test_a_model_that_diverges_leaves_the_others_alone() -> None:
    task = task_of()
    # Not a number wherever an input is negative.
    candidates = candidates_of("gelu", "sqrt(x)", "tanh")
    found = train_packed(task, candidates, (0,)).validation[:, 0, 0]
    assert found[1] == math.inf
    np.testing.assert_array_equal(
        found[[0, 2]], train_packed(task, candidates_of("gelu", "tanh"), (0,)).validation[:, 0, 0]
    )


def test_what_is_drawn_elsewhere_is_as_before() -> None:
    before = torch.get_rng_state()
    train_packed(task_of(dropping), candidates_of("gelu"), (0,))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("text", [*TEXTS, "sqrt(max(x, 0.001))", "exp(min(x, 2.302585092994046))", "x", "max(-x, 2)"])
def test_tables_are_as_good_as_the_formula(text: str) -> None:
    function = softknee.create(text)
    lookup = Lookup([function], [tabulated(function)], CPU)
    # Inside, at the ends of its parts, and outside.
    x = torch.cat((torch.linspace(-12, 12, 40001), torch.tensor([-300.0, -64.0, -8.0, 8.0, 64.0, 65.0, 1e6])))[None]
    exact = x.double().requires_grad_()
    y = function(exact)
    (slopes,) = torch.autograd.grad(y.sum(), exact)
    torch.testing.assert_close(lookup.value(x).double(), y.detach(), rtol=1e-6, atol=1e-5)
    found = lookup.gradient(x, torch.ones_like(x)).double()
    # Next to a kink, float32 cannot tell the side.
    assert ((found - slopes).abs() > 1e-3).sum() <= 2
    assert (found - slopes).abs().median() < 1e-5


def test_each_model_has_its_own_function_whatever_the_layout() -> None:
    functions = [softknee.create(text) for text in TEXTS]
    lookup = Lookup(functions, [tabulated(function) for function in functions], CPU)
    x = torch.randn(5, len(TEXTS), 3, 7, generator=torch.Generator().manual_seed(1)).mul(40)
    for moved in (x.movedim(1, 0), x.movedim(1, 0).contiguous(), x.movedim(1, 0).transpose(1, 3)):
        expected = torch.stack([function(one.double()) for function, one in zip(functions, moved, strict=True)])
        torch.testing.assert_close(lookup.value(moved).double(), expected, rtol=1e-5, atol=1e-5)


def test_values_that_are_not_finite() -> None:
    functions = [softknee.create("gelu"), softknee.create("tanh")]
    lookup = Lookup(functions, [tabulated(function) for function in functions], CPU)
    x = torch.tensor([[math.nan, 1.0, 100.0], [2.0, math.inf, -100.0]])
    expected = torch.tensor([[math.nan, F.gelu(torch.tensor(1.0)), 100.0], [math.tanh(2.0), math.nan, -1.0]])
    torch.testing.assert_close(lookup.value(x), expected, equal_nan=True)
    assert lookup.gradient(x, torch.ones_like(x)).isnan().sum() == 2


def test_what_can_be_tabulated() -> None:
    assert all(can_be_tabulated(softknee.create(text)) for text in TEXTS)
    for text in ("prelu", "swish", "rrelu", "softmax"):
        assert not can_be_tabulated(softknee.create(text))


def looks_at_data(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    loss = mean_squares(model, batch)
    return loss * 2 if loss.item() > 1e6 else loss


class Normed(torch.optim.SGD):
    """Looks at the norm of a parameter's gradient."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for one in group["params"]:
                one.grad /= one.grad.norm()
        return super().step(closure)


def decayed_by_shape(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    matrices = [one for one in parameters if one.dim() > 1]
    others = [one for one in parameters if one.dim() <= 1]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": 0.5}, {"params": others, "weight_decay": 0.0}], 1e-2)


@pytest.mark.parametrize(
    ("task", "options", "sentence"),
    [
        (lambda: task_of(step=looks_at_data), {}, "train_step cannot be run for many models at once"),
        (
            lambda: task_of(optimizer=lambda ps: Normed(ps, 1e-2)),
            {},
            "Normed, as optimizer makes it, cannot train many",
        ),
        (lambda: task_of(optimizer=decayed_by_shape), {}, "AdamW, as optimizer makes it, cannot train many"),
        (task_of, {"parts": (0.5, 0.25)}, r"ascend, above 0 and at most 1, got \(0.5, 0.25\)"),
        (task_of, {"test": True}, "no test losses of fully trained models: the task has no test_batches"),
    ],
)
def test_what_cannot_be_done(task: Callable[[], Task], options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        train_packed(task(), candidates_of("gelu"), (0,), **options)
