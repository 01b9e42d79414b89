"""Activations of softknee in configurations of real models, made small."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.testing import assert_close

import softknee as sk
from softknee import integrations

transformers = pytest.importorskip("transformers")
ACT2FN = pytest.importorskip("transformers.activations").ACT2FN
get_activation = transformers.activations.get_activation
register = integrations.transformers.register
register()

TOKENS = torch.arange(12).reshape(2, 6) % 40
TEXT = {"input_ids": TOKENS, "labels": TOKENS}
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def bert(activation):
    config = transformers.BertConfig(vocab_size=40, hidden_act=activation, **SIZES)
    return transformers.BertForMaskedLM(config), TEXT


def gpt2(activation):
    config = transformers.GPT2Config(vocab_size=40, n_positions=8, n_embd=16, n_layer=2, n_head=2, n_inner=24)
    config.activation_function = activation
    return transformers.GPT2LMHeadModel(config), TEXT


def llama(activation):
    config = transformers.LlamaConfig(vocab_size=40, hidden_act=activation, num_key_value_heads=2, **SIZES)
    return transformers.LlamaForCausalLM(config), TEXT


def vit(activation):
    config = transformers.ViTConfig(image_size=8, patch_size=4, hidden_act=activation, **SIZES)
    pixels = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
    return transformers.ViTForImageClassification(config), {"pixel_values": pixels, "labels": torch.tensor([0, 1])}


MODELS = [bert, gpt2, llama, vit]
SWISH = "softknee:swish[beta=1.5,trainable]"


def activations(model):
    return [module for module in model.modules() if isinstance(module, sk.nn.Activation)]


def logits(model, inputs):
    with torch.no_grad():
        return model.eval()(**inputs).logits


@pytest.mark.parametrize("text", [SWISH, "softknee:x*sigmoid(1.2*b*x)[b=1]"])
@pytest.mark.parametrize("make", MODELS)
def test_models_train_save_and_load(make, text, tmp_path):
    torch.manual_seed(0)
    model, inputs = make(text)
    layers = activations(model)
    assert len({id(layer) for layer in layers}) == len(layers) >= 2
    before = [parameter.detach().clone() for layer in layers for parameter in layer.parameters()]
    model.train()(**inputs).loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.5).step()
    after = [parameter.detach() for layer in layers for parameter in layer.parameters()]
    assert all(start != end for start, end in zip(before, after, strict=True))

    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert_close(logits(again, inputs), logits(model, inputs), rtol=0, atol=0)
    names = ("hidden_act", "activation_function")
    assert text in {getattr(again.config, name, None) for name in names}


@pytest.mark.parametrize(("text", "own"), [("softknee:silu", "silu"), ("softknee:gelu_tanh", "gelu_new")])
@pytest.mark.parametrize("make", MODELS)
def test_softknees_and_the_librarys_own_agree(make, text, own):
    torch.manual_seed(0)
    mine, inputs = make(text)
    torch.manual_seed(0)
    its, _ = make(own)
    assert_close(logits(mine, inputs), logits(its, inputs))


@pytest.mark.parametrize(
    ("text", "start"),
    [(SWISH, 1.5), ("softknee:prelu[per_channel=24]", 0.25), ("softknee:x*sigmoid(sqrt(2)*b*x)[b=2]", 2.0)],
)
def test_parameters_that_a_checkpoint_lacks_get_their_starting_values(text, start, tmp_path):
    model, _ = gpt2("gelu_new")
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, activation_function=text)
    parameters = [parameter.detach() for layer in activations(loaded) for parameter in layer.parameters()]
    assert len(parameters) == 2
    for parameter in parameters:
        assert_close(parameter, torch.full_like(parameter, start))


def test_drawn_vectors_that_a_checkpoint_lacks_are_drawn(tmp_path):
    model, inputs = gpt2("gelu_new")
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, activation_function="softknee:staf[terms=3]")
    assert loaded.transformer.h[0].mlp.act.amplitude.shape == (3,)
    assert logits(loaded, inputs).isfinite().all()
    # Fitted to a function, so what they are is known.
    loaded = type(model).from_pretrained(tmp_path, activation_function="softknee:rational")
    expected = sk.nn.Rational()
    for layer in activations(loaded):
        assert_close(layer.numerator, expected.numerator)
        assert_close(layer.denominator, expected.denominator)


DRAWN = [spec for spec in map(sk.get, sk.list()) if spec.initializations and spec.kind == "elementwise"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    gpt2("gelu_new")[0].save_pretrained(folder)
    return folder


@pytest.mark.parametrize("spec", DRAWN, ids=lambda spec: spec.name)
def test_all_vectors_are_made_where_the_library_makes_models_without_memory(spec, plain):
    """It has most of torch's functions, but not all, make tensors without values meanwhile."""
    loaded = transformers.GPT2LMHeadModel.from_pretrained(plain, activation_function=f"softknee:{spec.name}")
    wanted = sk.create(spec.name).state_dict()
    for layer in activations(loaded):
        for name, value in layer.state_dict().items():
            assert value.shape == wanted[name].shape
            assert value.isfinite().all()


def test_a_checkpoint_loads_in_half_precision(tmp_path):
    model, inputs = bert(SWISH)
    with torch.no_grad():
        for layer in activations(model):
            layer.beta.fill_(0.75)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert all(layer.beta.dtype == torch.bfloat16 and layer.beta.item() == 0.75 for layer in activations(loaded))
    assert logits(loaded, inputs).isfinite().all()


def test_channels_are_in_the_last_dimension():
    for text in ("softknee:prelu[per_channel=5]", "softknee:softmax", "softknee:group_sort", "softknee:poly_norm"):
        activation = ACT2FN[text]
        x = torch.randn(2, 3, 5) if "group" not in text else torch.randn(2, 3, 6)
        moved = sk.create(text[9:].partition("[")[0], **({"per_channel": 5} if "prelu" in text else {"dim": 1}))
        assert_close(activation(x), moved(x.transpose(1, 2)).transpose(1, 2))


def test_the_librarys_table_is_otherwise_as_it_was():
    register()
    # Once more changed nothing.
    assert [kind.__name__ for kind in type(ACT2FN).__mro__].count("ClassInstantier") == 2
    assert "gelu" in ACT2FN
    assert "nope" not in ACT2FN
    assert SWISH in ACT2FN
    assert SWISH not in list(ACT2FN)
    assert isinstance(ACT2FN["relu"], torch.nn.ReLU)
    assert ACT2FN[SWISH] is not ACT2FN[SWISH]
    assert get_activation("softknee:mish").spec.name == "mish"
    with pytest.raises(KeyError, match="nope"):
        _ = ACT2FN["nope"]
    with pytest.raises(KeyError, match="function nope not found in ACT2FN"):
        get_activation("nope")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("swsh", "no activation named 'swsh'; did you mean 'swish'"),
        ("swish[bta=1]", "swish has no parameter 'bta'; did you mean 'beta'"),
        ("x*", "this is no formula"),
        ("prelu[per_channel]", r"per_channel in a configuration needs the number of channels, as in per_channel=3072"),
        ("swiglu", "swiglu changes the shape of its input, and an activation in a configuration must keep it"),
        ("crelu", "crelu changes the shape of its input"),
        ("frelu", "frelu must know the number of channels, and a configuration cannot say it"),
        ("gdn", "gdn must know the number of channels"),
    ],
)
def test_bad_texts_end_in_clear_errors(text, sentence):
    for use in (lambda key: key in ACT2FN, lambda key: ACT2FN[key], get_activation, lambda key: bert(key)):
        with pytest.raises(sk.UsageError, match=sentence):
            use(f"softknee:{text}")


def test_configurations_that_check_their_activations_take_them():
    # Some configurations look names up at once.
    validators = pytest.importorskip("transformers.utils.type_validators")
    check = validators.activation_fn_key().metadata["validator"][0]
    check(SWISH)
    check("gelu")
    with pytest.raises(sk.UsageError, match="did you mean 'swish'"):
        check("softknee:swsh")
    with pytest.raises(ValueError, match="Value must be one of"):
        check("nope")


def test_models_and_their_activations_can_be_copied():
    model, inputs = llama(SWISH)
    assert_close(logits(copy.deepcopy(model), inputs), logits(model, inputs))
