import json

import numpy as np
import pytest
import torch
from search_task import adam, data, loader, make_model, task, train_step
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from softknee._errors import DataError, UsageError
from softknee._search.candidate import Candidate, Function
from softknee.nn import Elementwise


def weights(model):
    return {name: one.detach().clone() for name, one in model.named_parameters() if "slope" not in name}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def taken(of, run=0, epoch=0, **options):
    return [torch.cat([x, y], 1) for x, y in of.batches(run, epoch, **options)]


def same(one, other):
    return len(one) == len(other) and all(map(torch.equal, one, other))


class Noisy(nn.Module):
    """Draws from the global random state as it is made and as it runs."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.rand(1))

    def forward(self, x):
        torch.rand(3)
        return torch.tanh(self.slope * x)


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(3, 8), nn.Linear(8, 1)

    def forward(self, x, *, scale):
        return self.two(F.relu(self.one(x))) * scale


class Rows:
    """Batches without a length."""

    def __iter__(self):
        yield from loader(40, 0)


def test_functions_become_modules():
    assert Function("x * sigmoid(a * x)", (("a", 1.5),), trained=True).make().a.requires_grad
    fixed = Function("x * sigmoid(a * x)", (("a", 1.5),)).make()
    assert list(fixed.parameters()) == []
    x = torch.linspace(-3, 3, 7)
    torch.testing.assert_close(fixed(x), x * torch.sigmoid(1.5 * x))
    assert sum(one.numel() for one in Function("prelu").make().parameters()) == 1
    assert isinstance(Function("swish[beta=1.5]").make(), Elementwise)
    with pytest.raises(UsageError, match="neither x nor a function"):
        Function("a * x").make()


def test_functions_know_the_channels_of_their_site():
    site = task().groups[0].sites[0]
    assert Function("prelu[per_channel]").make(site).slope.shape == (8,)


def test_a_candidate_is_what_it_does_whoever_found_it():
    functions = (Function("a * x", (("a", 1e-7),)), Function("gelu"))
    one = Candidate(functions, "random")
    assert Candidate.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert Candidate(functions, "asked").key == one.key
    assert Candidate(functions[::-1], "random").key != one.key
    assert Candidate((Function("a * x", (("a", 2e-7),)), Function("gelu")), "random").key != one.key
    assert one.name == "a * x[a=1e-07,fixed] | gelu"
    assert Candidate((Function("gelu"),) * 3, "random").name == "gelu"


def test_all_candidates_of_a_run_begin_with_the_same_weights():
    of = task()
    made = [of.model(4, lambda *_, one=one: one() if one is Noisy else one) for one in ("tanh", Noisy, "prelu")]
    assert equal(weights(made[0]), weights(made[1]))
    assert equal(weights(made[0]), weights(made[2]))
    assert not equal(weights(made[0]), weights(of.model(5, lambda *_: "tanh")))
    assert not equal(weights(made[0]), weights(task(seed=1).model(4, lambda *_: "tanh")))
    torch.manual_seed(of.seed_of(0, 4))
    assert equal(weights(make_model()), weights(made[0]))


def test_what_activations_draw_repeats_and_differs_between_runs():
    of = task()
    drawn = [of.model(run, lambda *_: Noisy())[1].slope.item() for run in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    "batches",
    [
        loader(40, 0),
        DataLoader(data(40, 0), 16, shuffle=True, generator=torch.Generator()),
        DataLoader(data(40, 0), 16, sampler=torch.utils.data.RandomSampler(data(40, 0), generator=torch.Generator())),
        Rows(),
    ],
    ids=["loader", "generator", "sampler", "stream"],
)
def test_batches_repeat_whatever_else_draws(batches):
    of = task(train_batches=batches)
    assert of.steps == 3
    first = taken(of)
    noisy = []
    for x, y in of.batches(0, 0):
        torch.rand(7)
        noisy.append(torch.cat([x, y], 1))
    assert same(first, noisy)
    assert same(first[2:], taken(of, skip=2))
    assert not same(first, taken(of, epoch=1))
    assert not same(first, taken(of, run=1))


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    of = task()
    of.model(0, lambda *_: Noisy())
    of.evaluate(of.fresh(0), of.val_batches)
    for _ in of.batches(0, 0):
        assert torch.equal(torch.get_rng_state(), before)
    next(of.batches(0, 0))
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_is_the_same_for_all_models_and_leaves_the_modes():
    seen = []

    def step(model, batch):
        seen.append((batch[0], torch.rand(()), torch.is_grad_enabled(), model.training))
        return train_step(model, batch)

    of = task(train_step=step)
    model = of.fresh(0)
    model[2].eval()
    del seen[:]
    torch.manual_seed(0)
    one = of.evaluate(model, of.val_batches)
    torch.manual_seed(1)
    other = of.evaluate(model, of.val_batches)
    assert one.dtype == np.float64
    assert one.shape == (2,)
    assert (one == other).all()
    assert torch.equal(seen[0][0], seen[2][0])
    assert seen[0][1] == seen[2][1]
    assert not any(grad or training for _, _, grad, training in seen)
    assert model.training
    assert not model[2].training
    model.eval()
    x, y = zip(*data(32, 1), strict=True)
    assert one.mean() == pytest.approx(F.mse_loss(model(torch.stack(x)), torch.stack(y)).item(), rel=1e-6)


def test_a_step_may_differentiate_by_its_inputs():
    def step(model, batch):
        x = batch[0].clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return slope.square().mean()

    of = task(train_step=step)
    assert np.isfinite(of.evaluate(of.fresh(0), of.val_batches)).all()


def test_functions_in_the_code_are_found_by_what_the_step_calls_the_model_with():
    of = task(make_model=Functional, train_step=lambda model, batch: model(batch[0], scale=batch[1]).square().mean())
    assert [site.kind for site in of.groups[0].sites] == ["relu"]
    model = of.model(0, lambda *_: Noisy())
    assert any(isinstance(one, Noisy) for one in model.modules())


def test_scopes():
    assert [(group.name, len(group.sites)) for group in task().groups] == [("all", 2)]
    assert [group.name for group in task(scope="site").groups] == ["1", "4"]
    assert [site.path for site in task(where="4").groups[0].sites] == ["4"]
    of = task(scope={"late": "4", "early": "1"})
    model = of.model(0, lambda _, group: ["tanh", "softplus"][group])
    assert [of.groups[0].name, of.groups[1].name] == ["late", "early"]
    assert "softplus" in repr(model[1]).lower()
    assert "tanh" in repr(model[4]).lower()


def test_optimizers_get_all_parameters_and_spare_activations_weight_decay():
    got = []

    def optimizer(parameters):
        got.append(parameters)
        return torch.optim.AdamW(parameters, 1e-2, weight_decay=0.5)

    of = task(optimizer=optimizer)
    model = of.model(0, lambda *_: "prelu")
    made = of.optimizer_of(model)
    assert list(map(id, got[-1])) == list(map(id, model.parameters()))
    decay = {id(one): group["weight_decay"] for group in made.param_groups for one in group["params"]}
    assert decay[id(model[1].slope)] == 0
    assert decay[id(model[0].weight)] == 0.5


def test_facts_are_plain_and_tell_tasks_apart():
    facts = task().facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts == task().facts()
    assert facts["parameters"] == 3 * 8 + 8 + 8 * 8 + 8 + 8 + 1
    assert facts["groups"] == {"all": ["1", "4"]}
    others = (
        {"optimizer": lambda parameters: torch.optim.Adam(parameters, 2e-2)},
        {"train_batches": loader(80, 5)},
        {"epochs": 4},
    )
    for other in others:
        assert task(**other).facts() != facts


SINGLE = make_model()
WRONG = {
    "no function": ({"make_model": SINGLE}, "make_model must be a function, got .*; give what makes it"),
    "no model": ({"make_model": lambda: 3}, "make_model must return a torch.nn.Module, got int"),
    "one model": ({"make_model": lambda: SINGLE}, "make_model returned the same parameters twice"),
    "no step": ({"train_step": None}, "train_step must be a function, got None"),
    "no loss": (
        {"train_step": lambda model, batch: 0.3},
        "train_step must return the loss as a tensor of one number, it returned 0.3",
    ),
    "several losses": (
        {"train_step": lambda model, batch: model(batch[0])},
        r"a tensor of one number, it returned a tensor of shape \(16, 1\)",
    ),
    "no gradient": (
        {"train_step": lambda model, batch: train_step(model, batch).detach()},
        "the loss that train_step returns does not depend on the model's parameters",
    ),
    "another model": (
        {"train_step": lambda model, batch: train_step(SINGLE, batch)},
        "the loss that train_step returns does not depend on the model's parameters",
    ),
    "backward": (
        {"train_step": lambda model, batch: (train_step(model, batch).backward(), train_step(model, batch))[1]},
        "train_step calls backward itself; it must return the loss only",
    ),
    "nan": (
        {"train_step": lambda model, batch: train_step(model, batch) * float("nan")},
        "train_step returned nan on the first batch of train_batches, with the model as it was made",
    ),
    "nan in validation": (
        {"val_batches": [tuple(one * float("inf") for one in data(4, 0).tensors)]},
        "train_step returned (nan|inf) on the first batch of val_batches",
    ),
    "generator": (
        {"train_batches": iter([data(4, 0).tensors])},
        r"train_batches can be read only once \(list_iterator\); give a list or a DataLoader",
    ),
    "generator of validation": (
        {"val_batches": (one for one in [data(4, 0).tensors])},
        r"val_batches can be read only once \(generator\)",
    ),
    "text": (
        {"test_batches": "mnist"},
        "test_batches must be a list of batches, a DataLoader or the like, got 'mnist'",
    ),
    "dictionary": ({"train_batches": {"x": 1}}, "train_batches must be a list of batches"),
    "empty": ({"train_batches": []}, "train_batches is empty: it yields no batch"),
    "empty validation": ({"val_batches": DataLoader(data(3, 0), 16, drop_last=True)}, "val_batches is empty"),
    "no optimizer": (
        {"optimizer": lambda parameters: None},
        "optimizer must return a torch.optim.Optimizer, it returned None",
    ),
    "other optimizer": (
        {"optimizer": lambda parameters: adam(make_model().parameters())},
        "optimizer returned an optimizer of other parameters than the ones it was given",
    ),
    "no epochs": ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
    "part of an epoch": ({"epochs": 1.5}, "epochs must be a whole number of at least 1, got 1.5"),
    "seed": ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
    "scope": ({"scope": "layer"}, "scope must be 'all', 'site' or groups by name with where each acts, got 'layer'"),
    "empty scope": ({"scope": {}}, "scope must name its groups"),
    "scope and where": ({"scope": {"one": "1"}, "where": "4"}, "where goes with scope='all' or 'site'"),
    "groups that overlap": ({"scope": {"one": "1", "two": "gelu"}}, "1 is in two groups of scope, 'one' and 'two'"),
    "group of nothing": (
        {"scope": {"one": "1", "two": lambda site: False}},
        "group 'two' has no activation to search for",
    ),
    "where matches nothing": ({"where": "relu"}, "where='relu' matches no activation"),
    "no sites": (
        {"make_model": lambda: nn.Sequential(nn.Linear(3, 8), nn.Softmax(-1), nn.Linear(8, 1))},
        r"the model has no activation to search for; there are 1 others, such as 1 \(softmax, normaliser\)",
    ),
    "not called": (
        {"make_model": Functional, "train_step": lambda model, batch: model.forward(batch[0], scale=1.0).mean()},
        "the model has no activation to search for; not seen: the model: functions are only seen with an example",
    ),
}


@pytest.mark.parametrize(("changes", "sentence"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_before_any_training(changes, sentence, monkeypatch):
    monkeypatch.setattr(torch.optim.Adam, "step", lambda *_: pytest.fail("it trains"))
    with pytest.raises(UsageError, match=sentence):
        task(**changes)


def test_a_model_that_is_built_otherwise_each_time_is_refused():
    sizes = iter([2, 2, 2, 1])

    def make():
        return nn.Sequential(nn.Linear(3, 8), *[nn.GELU() for _ in range(next(sizes))], nn.Linear(8, 1))

    of = task(make_model=make)
    with pytest.raises(UsageError, match="made a model with 1 of the 2 activations that the first one had"):
        of.model(0, lambda *_: "tanh")


def test_an_epoch_that_is_shorter_than_the_first_is_refused():
    class Fading:
        left = 5

        def __len__(self):
            return 5

        def __iter__(self):
            return iter([data(4, 0).tensors] * self.left)

    fading = Fading()
    of = task(train_batches=fading)
    fading.left = 3
    with pytest.raises(DataError, match="train_batches yielded 3 batches in epoch 2, and 5 at first"):
        list(of.batches(0, 1))
