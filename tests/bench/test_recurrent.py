"""The gated cell against torch's own, and where its activation stands."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from softknee._bench.model import activation_sites, build_model, count_costs, site_width
from softknee._bench.protocols import PROTOCOLS, with_options
from softknee._catalogue import parse_choice
from softknee._errors import OptionError

PLACES = {
    "candidate": ["cell.candidate.activation_0"],
    "gates": ["cell.update.activation_0", "cell.reset.activation_0"],
}
USUAL = {"candidate": "tanh", "gates": "sigmoid"}


def built(text="relu", place="candidate", seed=0):
    recipe = with_options(PROTOCOLS["rnn-digits"], {"place": place}).recipe
    return build_model(recipe, parse_choice(text), seed=seed)


def images(number=5):
    return torch.randn(number, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("reset", [0.0, 1.0])
def test_the_cell_is_torchs_where_the_two_forms_agree(place, reset):
    """Torch multiplies by the reset gate behind the layer; with a gate of 0 or 1 that is the same."""
    model = built(USUAL[place], place)
    cell = model.cell
    torchs = nn.GRU(8, 32, batch_first=True)
    with torch.no_grad():
        cell.reset[0].weight.zero_()
        cell.reset[0].bias.fill_(200 * reset - 100)
        update, candidate = cell.update[0], cell.candidate[0]
        # The update gate of torch is the share of the old state, ours that of the new one.
        gates = [cell.reset[0].weight, -update.weight, candidate.weight]
        torchs.weight_ih_l0.copy_(torch.cat([weight[:, :8] for weight in gates]))
        torchs.weight_hh_l0.copy_(torch.cat([weight[:, 8:] for weight in gates]))
        torchs.bias_ih_l0.copy_(torch.cat([cell.reset[0].bias, -update.bias, candidate.bias]))
        torchs.bias_hh_l0.zero_()
    x = images()
    _, last = torchs(x.view(-1, 8, 8))
    torch.testing.assert_close(model(x), model.linear_1(last[0]), atol=1e-5, rtol=1e-5)


def test_the_reset_gate_takes_from_the_state_before_the_layer():
    """One step from a given state, written out in float64."""
    cell = built("tanh").cell.double()
    row = torch.randn(3, 2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    state = torch.zeros(3, 32, dtype=torch.float64)
    for x in (row[:, 0], row[:, 1]):
        both = torch.cat([x, state], 1)
        z, r = (torch.sigmoid(both @ gate[0].weight.T + gate[0].bias) for gate in (cell.update, cell.reset))
        new = torch.tanh(torch.cat([x, r * state], 1) @ cell.candidate[0].weight.T + cell.candidate[0].bias)
        state = (1 - z) * state + z * new
    torch.testing.assert_close(cell(row), state)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", ["prelu[per_channel]", "glu", "crelu"])
def test_activations_stand_in_their_place_alone_and_may_change_the_width(place, text):
    model = built(text, place)
    sites = activation_sites(model)
    assert list(sites) == PLACES[place]
    model(images()).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    width = {"glu": 64, "crelu": 16}.get(text, 32)
    assert [site_width(model, site) for site in sites] == [width] * len(sites)


@pytest.mark.parametrize("place", PLACES)
def test_weights_depend_on_the_seed_alone_and_the_callers_random_state_on_nothing(place):
    state = torch.get_rng_state()
    plain, other, again = built("relu", place), built("staf", place), built("relu", place, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name))
        assert not torch.equal(parameter, again.get_parameter(name))


def test_the_usual_functions_in_either_place_are_one_network():
    one, other = built("tanh", "candidate"), built("sigmoid", "gates")
    torch.testing.assert_close(one(images()), other(images()))


def test_costs_count_every_row():
    costs = count_costs(built(), shape=(64,))
    assert costs["activation_inputs"] == 8 * 32
    assert costs["multiply_adds"] == 8 * 3 * 40 * 32 + 320


def test_there_is_no_other_place():
    with pytest.raises(OptionError, match="option 'place' got 'output': Input should be 'candidate' or 'gates'"):
        built(place="output")
