"""Models made on the meta device get their values afterwards."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys

import pytest
import torch
from networks import CASES, Network, batch, named

import softknee as sk
from softknee.nn.options import needs_channels

CHANNELS = 8


def made(name, device="cpu"):
    with torch.device(device):
        return sk.create(name, **({"channels": CHANNELS} if needs_channels(sk.get(name)) else {}))


def spoiled(module):
    """Memory with nothing in it."""
    module = module.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.fill_(math.nan if tensor.is_floating_point() else -1)
    return module


def reset(model):
    """What trainers do."""
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return model


@pytest.mark.parametrize("name", sk.list())
def test_every_activation_starts_as_if_it_had_been_made_with_memory(name):
    module = made(name, "meta")
    assert all(tensor.is_meta for tensor in (*module.parameters(), *module.buffers()))
    torch.manual_seed(0)
    module = reset(spoiled(module))
    wanted = made(name)
    torch.manual_seed(0)
    reset(wanted)
    assert module.state_dict().keys() == wanted.state_dict().keys()
    for key, value in wanted.state_dict().items():
        torch.testing.assert_close(module.state_dict()[key], value, rtol=0, atol=0, msg=named(key))


@pytest.mark.parametrize("name", sk.list())
def test_resetting_brings_back_what_a_module_started_from(name):
    spec = sk.get(name)
    if spec.kind == "contextual" and name != "gated_mix":
        pytest.skip("its network is drawn")
    options = {"channels": CHANNELS} if needs_channels(spec) else {}
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    module = sk.create(name, **options, generator=generators[0]) if spec.initializations else sk.create(name, **options)
    start = copy.deepcopy(module.state_dict())
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 1
    module = pickle.loads(pickle.dumps(copy.deepcopy(module)))
    module.reset_parameters(generator=generators[1])
    for key, value in start.items():
        if not key.startswith("fc1"):
            torch.testing.assert_close(
                module.state_dict()[key], value + key.startswith("fc2"), rtol=0, atol=0, msg=named(key)
            )


GIVEN = {
    "number": ("swish", {"beta": 1.5}),
    "number-per-channel": ("swish", {"beta": 1.5, "per_channel": 4}),
    "tensor": ("swish", {"beta": torch.tensor([1.0, 2.0, 3.0, 4.0]), "per_channel": 4}),
    "fixed-tensor": ("elu", {"alpha": torch.tensor([1.0, 2.0, 3.0, 4.0]), "per_channel": 4}),
    "vector": ("linear_spline", {"values": torch.linspace(-1, 2, 9), "terms": 9}),
    "terms": ("rational", {"terms": 7, "per_channel": 4}),
    "initialization": ("rational", {"initialization": "silu"}),
    "reach": ("staf", {"terms": 3, "reach": (-5, 20), "generator": torch.Generator()}),
    "formula": ("a * tanh(x) + b", {"a": 0.5, "b": torch.tensor(2.0)}),
    "gate": ("swiglu", {"beta": 0.5, "trainable": True}),
}


@pytest.mark.parametrize("case", GIVEN)
def test_given_values_come_back(case):
    name, options = GIVEN[case]
    wanted = sk.create(name, **options)
    with torch.device("meta"):
        module = sk.create(name, **{key: value for key, value in options.items() if key != "generator"})
    spoiled(module).reset_parameters()
    for key, value in wanted.state_dict().items():
        if name == "staf" and key != "table_reach":  # drawn
            assert torch.isfinite(module.state_dict()[key]).all()
        else:
            torch.testing.assert_close(module.state_dict()[key], value, rtol=0, atol=0, msg=named(key))


def test_what_was_given_is_not_what_is_trained():
    given = torch.tensor([1.0, 2.0])
    module = sk.create("swish", beta=given, per_channel=2)
    given += 1
    with torch.no_grad():
        module.beta += 5
    module.reset_parameters()
    assert module.beta.tolist() == [1.0, 2.0]


def test_a_given_tensor_without_values_is_said_so():
    with torch.device("meta"):
        module = sk.create("swish", beta=torch.ones(3), per_channel=3)
    module.to_empty(device="cpu")
    with pytest.raises(sk.UsageError, match="beta of swish was given as a tensor on the meta device, which has no val"):
        module.reset_parameters()


@pytest.mark.parametrize("assign", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_state_dicts_fill_them(case, assign):
    trained = Network(case)
    with torch.device("meta"):
        network = Network(case)
    if not assign:
        network.to_empty(device="cpu")
    network.load_state_dict(trained.state_dict(), assign=assign)
    assert torch.equal(network(batch()), trained(batch()))
    assert getattr(network.act, "reach", None) == getattr(trained.act, "reach", None)


def test_the_library_may_be_loaded_there():
    """Whoever first uses it on the meta device gets the same library."""
    code = (
        "import torch\n"
        "with torch.device('meta'):\n"
        "    import softknee as sk\n"
        "    modules = [sk.create('rational'), sk.create('x * sigmoid(2 * x)'), sk.create('blend')]\n"
        "    sk.recognise\n"
        "assert str(sk.recognise('x * sigmoid(x)')) == 'silu'\n"
        "print(float(modules[1](torch.ones(()))))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) == pytest.approx(1 / (1 + math.exp(-2)))
