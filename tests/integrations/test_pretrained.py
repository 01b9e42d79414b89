from __future__ import annotations

import copy

import pytest
import torch

import softknee as sk
from softknee.integrations.pretrained import RECIPE, from_pretrained, save_pretrained
from softknee.integrations.transformers import register

transformers = pytest.importorskip("transformers")
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TOKENS = {"input_ids": torch.arange(14).view(2, 7)}


def llama(**options):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SIZES, **options, vocab_size=50, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    return transformers.LlamaForCausalLM(config).eval()


def swapped(model, to="swish"):
    sk.swap(model, to, where="silu", example_inputs=TOKENS, per_channel=True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "act_fn" in name:
                parameter.copy_(1 + 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    return model


@pytest.mark.parametrize("variant", [None, "own"])
@pytest.mark.parametrize("shard", ["5GB", "20KB"])
def test_a_swapped_model_comes_back_with_its_activations(tmp_path, shard, variant):
    model = swapped(llama())
    save_pretrained(model, tmp_path, max_shard_size=shard, variant=variant)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "20KB")
    again = from_pretrained(transformers.AutoModelForCausalLM, tmp_path, variant=variant)
    assert torch.equal(again(**TOKENS).logits, model(**TOKENS).logits)
    assert again.state_dict().keys() == model.state_dict().keys()


def test_parameters_whose_names_were_there_before_come_back(tmp_path):
    register()
    model = llama(hidden_act="softknee:swish[trainable]")
    sk.swap(model, "x * sigmoid(beta * x) + 0.1[beta=1]", where="swish", example_inputs=TOKENS)
    with torch.no_grad():
        model.model.layers[1].mlp.act_fn.beta.fill_(1.25)
    save_pretrained(model, tmp_path)
    again = from_pretrained(transformers.AutoModelForCausalLM, tmp_path)
    assert torch.equal(again(**TOKENS).logits, model(**TOKENS).logits)


def test_it_comes_back_in_the_dtype_that_is_asked_for(tmp_path):
    model = swapped(llama())
    save_pretrained(model, tmp_path)
    again = from_pretrained(transformers.AutoModelForCausalLM, tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in again.parameters()} == {torch.bfloat16}
    ours, theirs = (one.get_submodule("model.layers.1.mlp.act_fn").beta for one in (again, model))
    assert torch.equal(ours, theirs.bfloat16())


def test_what_was_not_saved_so_is_refused(tmp_path):
    with pytest.raises(sk.UsageError, match="LlamaForCausalLM was not swapped, so there is nothing to write down"):
        save_pretrained(llama(), tmp_path)
    llama().save_pretrained(tmp_path)
    with pytest.raises(sk.UsageError, match=f"has no {RECIPE}; save the model with softknee.integrations.pretrained"):
        from_pretrained(transformers.AutoModelForCausalLM, tmp_path)
    sk.Recipe.of(swapped(llama())).save(tmp_path / RECIPE)
    with pytest.raises(sk.UsageError, match=r"lacks model.layers.0.mlp.act_fn.beta, model.* save both by softknee"):
        from_pretrained(transformers.AutoModelForCausalLM, tmp_path)


def test_adapters_train_the_activations_beside_them(tmp_path):
    peft = pytest.importorskip("peft")
    base = llama()
    model = swapped(copy.deepcopy(base))
    recipe = sk.Recipe.of(model)
    settings = peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["act_fn"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, settings)
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    names = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert {name.rpartition(".")[2] for name in names} == {"weight", "beta"}
    before = adapted(**TOKENS).logits
    adapted(**TOKENS, labels=TOKENS["input_ids"]).loss.backward()
    torch.optim.SGD(trained, lr=1.0).step()
    after = adapted.eval()(**TOKENS).logits
    assert not torch.equal(before, after)
    adapted.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(recipe.apply(copy.deepcopy(base)), tmp_path).eval()
    torch.testing.assert_close(again(**TOKENS).logits, after)
