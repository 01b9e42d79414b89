"""Small models of transformers with random weights."""

from __future__ import annotations

import os

import pytest
import torch
from torch.nn import functional as F
from written import linear, numbers, state

import softknee as sk
from softknee import UsageError

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers")

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXT = {**SIZES, "vocab_size": 100}
EXPERTS = {**TEXT, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2}
IDS = {"input_ids": torch.randint(0, 100, (2, 7), generator=torch.Generator().manual_seed(0))}


def build(name, **options):
    torch.manual_seed(0)
    made = {
        "bert": lambda: transformers.BertForSequenceClassification(transformers.BertConfig(**TEXT, **options)),
        "gpt2": lambda: transformers.GPT2LMHeadModel(
            transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=100, **options)
        ),
        "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT, **options)),
        "vit": lambda: transformers.ViTForImageClassification(
            transformers.ViTConfig(**SIZES, image_size=32, patch_size=8, **options)
        ),
        "mixtral": lambda: transformers.MixtralForCausalLM(transformers.MixtralConfig(**EXPERTS, **options)),
        "gptoss": lambda: transformers.GptOssForCausalLM(transformers.GptOssConfig(**EXPERTS, head_dim=8, **options)),
    }
    return made[name]().eval()


def example(name):
    return {"pixel_values": numbers(2, 3, 32, 32)} if name == "vit" else IDS


# The default activation, what part it plays; and a configuration that writes another one in its place.
MODELS = {
    "bert": ("gelu", "activation", {"hidden_act": "silu"}),
    "gpt2": ("gelu_tanh", "activation", {"activation_function": "silu"}),
    "llama": ("silu", "pair", {"hidden_act": "gelu"}),
    "vit": ("gelu", "activation", {"hidden_act": "silu"}),
    "mixtral": ("silu", "pair", {"hidden_act": "gelu"}),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_swap_makes_the_model_that_another_configuration_makes(name):
    kind, role, options = MODELS[name]
    model, inputs = build(name), example(name)
    found = [site for site in sk.sites(model, **inputs) if site.kind == kind]
    assert [site.role for site in found] == [role] * 2
    paths = [site.path for site in found]
    # Names differ from version to version of transformers, but there is one in each layer.
    assert paths == [paths[0], paths[0].replace(".0.", ".1.")]
    assert paths[0] != paths[1]
    before, text = state(model), repr(model)
    (to,) = options.values()
    _, report = sk.swap(model, to, where=kind, example_inputs=inputs)
    wanted = build(name, **options)
    same(model, wanted, inputs)
    assert report.difference > 0
    sk.unswap(model).zero_grad()
    assert state(model) == before
    assert repr(model) == text


def same(model, wanted, inputs):
    """Values and gradients of all weights."""
    results = []
    for one in (model, wanted):
        one.zero_grad()
        logits = one(**inputs).logits
        (logits * torch.arange(logits.numel()).view_as(logits).cos()).sum().backward()
        results.append((logits.detach(), {name: value.grad for name, value in one.named_parameters()}))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-6)
    for name, gradient in results[1][1].items():
        torch.testing.assert_close(
            results[0][1][name], gradient, rtol=1e-3, atol=1e-6, msg=lambda text, name=name: name
        )


def test_normalisers_and_gates_of_attention_are_named_and_left():
    model = build("gptoss")
    found = sk.sites(model, **IDS)
    assert {(site.kind, site.role) for site in found} == {("softmax", "normaliser"), ("quick_gelu", "pair")}
    _, report = sk.swap(model, "swish", example_inputs=IDS)
    assert {site.kind for site in report.left} == {"softmax"}
    assert len(report.changed) == 2


def by_hand(experts, act, x, index, weights):
    """What experts make of tokens, one token after another; `act(expert, gate)` is the activation."""
    rows = []
    for token, chosen, share in zip(x, index, weights, strict=True):
        row = torch.zeros_like(token)
        for one, weight in zip(chosen.tolist(), share, strict=True):
            if hasattr(experts, "limit"):
                both = token @ experts.gate_up_proj[one] + experts.gate_up_proj_bias[one]
                gate, up = both[::2].clamp(max=experts.limit), both[1::2].clamp(-experts.limit, experts.limit)
                out = (act(one, gate) * (up + 1)) @ experts.down_proj[one] + experts.down_proj_bias[one]
            else:
                gate, up = (experts.gate_up_proj[one] @ token).chunk(2)
                out = experts.down_proj[one] @ (act(one, gate) * up)
            row = row + weight * out
        rows.append(row)
    return torch.stack(rows)


def calls_of(model):
    """The experts of each layer with what they were called with and what they returned."""
    calls = []
    hooks = [
        module.register_forward_hook(lambda *call: calls.append(call))
        for module in model.modules()
        if type(module).__name__.endswith("Experts") and hasattr(module, "gate_up_proj")
    ]
    model(**IDS)
    for hook in hooks:
        hook.remove()
    return calls


def spread(model):
    """Weights of experts with which activations differ from straight lines."""
    with torch.no_grad():
        for name, one in model.named_parameters():
            if "experts" in name:
                one.copy_(numbers(*one.shape, seed=len(name)) / 2)
    return model


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
@pytest.mark.parametrize("name", ["mixtral", "gptoss"])
def test_experts_however_they_run(name, implementation):
    model = spread(build(name))
    model.set_experts_implementation(implementation)
    plain = {"mixtral": F.silu, "gptoss": lambda gate: gate * torch.sigmoid(1.702 * gate)}[name]
    kind = {"mixtral": "silu", "gptoss": "quick_gelu"}[name]
    for act in (plain, torch.tanh):
        calls = calls_of(model)
        assert len(calls) == 2
        for experts, inputs, output in calls:
            wanted = by_hand(experts, lambda _, gate, act=act: act(gate), *inputs)
            torch.testing.assert_close(output, wanted, rtol=1e-4, atol=1e-4)
        if act is plain:
            sk.swap(model, "tanh", where=kind, example_inputs=IDS)


@pytest.mark.parametrize("name", ["mixtral", "gptoss"])
def test_one_activation_for_each_expert(name):
    model = spread(build(name))
    model.set_experts_implementation("eager")
    before = state(model)
    kind = {"mixtral": "silu", "gptoss": "quick_gelu"}[name]
    _, report = sk.swap(model, "swish[beta=1.702]", where=kind, example_inputs=IDS, per_expert=True)
    assert report.added_parameters == 8
    parts = [model.get_submodule(change.path) for change in report.changed]
    betas = torch.tensor([[0.1, 0.5, 1.7, 5.0], [2.0, 1.0, 0.3, 0.7]])
    with torch.no_grad():
        for one, row in zip(parts, betas, strict=True):
            for activation, beta in zip(one, row, strict=True):
                activation.beta.fill_(beta)
    calls = calls_of(model)
    for row, one, (experts, inputs, output) in zip(betas, parts, calls, strict=True):
        wanted = by_hand(experts, lambda index, gate, row=row: gate * torch.sigmoid(row[index] * gate), *inputs)
        torch.testing.assert_close(output, wanted, rtol=1e-4, atol=1e-4)
        output.sum().backward(retain_graph=True)
        used = set(inputs[1].flatten().tolist())
        assert {index for index in range(4) if one[index].beta.grad is not None} == used
        model.zero_grad()
    sk.unswap(model)
    assert state(model) == before


def test_tokens_may_take_other_ways_after_a_swap():
    sizes = {**EXPERTS, "num_local_experts": 16, "num_experts_per_tok": 1, "head_dim": 8}
    more = []
    for seed in range(6):
        torch.manual_seed(seed)
        model = spread(transformers.GptOssForCausalLM(transformers.GptOssConfig(**sizes)).eval())
        model.set_experts_implementation("eager")
        inputs = {"input_ids": torch.randint(0, 100, (1, 5))}
        times = [site.times for site in sk.sites(model, **inputs) if site.role == "pair"]
        sk.swap(model, "tanh", where="quick_gelu", example_inputs=inputs)
        more.append([site.times for site in sk.sites(model, **inputs) if site.role == "pair"][1] > times[1])
    # In some of them more experts of the second layer run than before, which is no error.
    assert any(more)


def test_experts_that_do_not_run_one_by_one_are_refused():
    model = build("mixtral")
    model.set_experts_implementation("grouped_mm")
    before = state(model)
    with pytest.raises(UsageError, match=r'set_experts_implementation\("eager"\)'):
        sk.swap(model, "swish", where="silu", example_inputs=IDS, per_expert=True)
    assert state(model) == before


def test_a_swapped_model_generates_saves_and_loads(tmp_path):
    model = build("llama")
    sk.swap(model, "tanh", example_inputs=IDS)
    tokens = model.generate(**IDS, max_new_tokens=4, do_sample=False, pad_token_id=0)
    wanted = build("llama", hidden_act="tanh").generate(**IDS, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert torch.equal(tokens, wanted)
    model.save_pretrained(tmp_path)
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path).eval()
    sk.swap(again, "tanh", example_inputs=IDS)
    torch.testing.assert_close(again(**IDS).logits, model(**IDS).logits)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant):
    model, wanted = build("gpt2"), build("gpt2", activation_function="silu")
    sk.swap(model, "silu", where="gelu_tanh", example_inputs=IDS)
    for one in (model, wanted):
        for module in one.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.train(), wanted.train()
    if reentrant:
        model.enable_input_require_grads()
    same(model, wanted, IDS)


def test_a_function_looked_up_by_name_is_found():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = linear(4, 4)

        def forward(self, x):
            return transformers.activations.ACT2FN["gelu_new"](self.layer(x)) + 1

    model, x = Model(), numbers(3, 4)
    (site,) = sk.sites(model, x)
    assert (site.path, site.kind, site.how) == ("", "gelu_tanh", "expression")
    sk.swap(model, "softplus", example_inputs=x)
    torch.testing.assert_close(model(x), F.softplus(model.layer(x)) + 1)
