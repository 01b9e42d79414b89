from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import softknee as sk


class Block(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.up, self.down, self.act = nn.Linear(8, 16), nn.Linear(16, 8), act

    def forward(self, x):
        h = self.act(self.up(x))
        return self.act(self.down(F.gelu(h)) + x)


def build():
    torch.manual_seed(0)
    shared = nn.ReLU()
    return nn.Sequential(Block(shared), Block(shared), nn.Linear(8, 8), nn.GLU(), nn.SiLU())


def example():
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(0))


def swapped():
    model, x = build(), example()
    sk.swap(model, "swish[beta=1.3]", where="0.act", example_inputs=x, per_channel=True)
    sk.swap(model, "rational[terms=6]", where="gelu", like="original", example_inputs=x, shared=True)
    sk.swap(model, "x * sigmoid(b*x) + a[b=1,a=0]", where="1.act", example_inputs=x)
    sk.swap(model, "leaky_relu[negative_slope=0.3]", where="silu", example_inputs=x)
    sk.swap(model, "swiglu", where="glu", example_inputs=x)
    # A place that a swap has changed can be changed again.
    sk.swap(model, "tanh", where="leaky_relu", example_inputs=x)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def test_a_model_built_anew_becomes_the_same(tmp_path):
    model, x = swapped(), example()
    recipe = sk.Recipe.of(model)
    recipe.save(tmp_path / "softknee.json")
    assert [path.name for path in tmp_path.iterdir()] == ["softknee.json"]
    again = sk.Recipe.load(tmp_path / "softknee.json")
    assert again == recipe
    fresh = again.apply(build())
    assert fresh.state_dict().keys() == model.state_dict().keys()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(x), model(x))
    assert str(fresh) == str(model)
    assert sk.Recipe.of(fresh) == recipe
    # One instance where there was one, several where there were several.
    gelus = [fresh.get_submodule(f"{index}.softknee_0") for index in range(2)]
    assert gelus[0] is gelus[1]
    assert len(list(fresh.parameters())) == len(list(model.parameters()))


def test_it_can_be_undone_as_the_swap_can():
    model = swapped()
    fresh = sk.Recipe.of(model).apply(build())
    for _ in range(6):
        sk.unswap(fresh)
    plain, x = build(), example()
    assert fresh.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(fresh(x), plain(x))
    with pytest.raises(sk.UsageError, match="Sequential was not swapped, so there is nothing to undo"):
        sk.unswap(fresh)


def test_a_copy_has_the_recipe_too():
    model = swapped()
    assert sk.Recipe.of(copy.deepcopy(model)) == sk.Recipe.of(model)


def test_any_gate_is_written_down():
    model, x = build(), example()
    sk.swap(model, lambda: sk.nn.GatedBy("swish", limit=2.0), where="glu", example_inputs=x)
    fresh = sk.Recipe.of(model).apply(build())
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(x), model(x))


def test_what_recipes_cannot_say_is_refused():
    with pytest.raises(sk.UsageError, match="Sequential was not swapped, so there is nothing to write down"):
        sk.Recipe.of(build())
    model, _ = sk.swap(build(), nn.PReLU, where="silu", example_inputs=example())
    with pytest.raises(
        sk.UsageError, match="PReLU at 4 cannot be written into a recipe, which holds names and formulas"
    ):
        sk.Recipe.of(model)
    with pytest.raises(sk.UsageError, match="the model has no module '0.act', at which the recipe puts swish"):
        sk.Recipe.of(swapped()).apply(nn.Sequential(nn.Linear(2, 2)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "is no recipe of softknee: 'schema'"),
        ("no JSON", "is no recipe of softknee: Expecting value"),
        (json.dumps({"schema": 2, "swaps": []}), "has schema 2, and this version of softknee reads 1"),
        (json.dumps({"schema": 1, "swaps": [[{"place": {}}]]}), "is no recipe of softknee: 'source'"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "softknee.json").write_text(content)
    with pytest.raises(sk.UsageError, match=message):
        sk.Recipe.load(tmp_path / "softknee.json")
