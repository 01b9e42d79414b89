"""What a diagnosis sees of usual models: every activation, or a list of what it does not see."""

from __future__ import annotations

import itertools
import os

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from softknee._bench.resnet import build_resnet20
from softknee._diagnose.run import diagnose

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def labelled(*shape, classes=5):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(4, *shape, generator=generator), torch.randint(classes, (4,), generator=generator))]


def mlp():
    widths = (784, 256, 192, 128, 64)
    hidden = [layer for pair in itertools.pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    sites = [(str(2 * index + 1), "relu", width) for index, width in enumerate(widths[1:])]
    return nn.Sequential(*hidden, nn.Linear(64, 10)), labelled(784), sites, []


def resnet20():
    model = build_resnet20(lambda _: nn.ReLU(inplace=True), seed=0)
    blocks = [f"block_{stage}_{index}.activation_{k}" for stage in range(3) for index in range(3) for k in range(2)]
    widths = [16] * 7 + [32] * 6 + [64] * 6
    sites = [(name, "relu", width) for name, width in zip(["activation", *blocks], widths, strict=True)]
    return model, labelled(3, 32, 32), sites, []


def gpt2():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    ids = torch.randint(50, (4, 8), generator=torch.Generator().manual_seed(0))
    sites = [(f"transformer.h.{index}.mlp.act", "gelu_tanh", 128) for index in range(2)]
    return transformers.GPT2LMHeadModel(config), [{"input_ids": ids, "labels": ids}], sites, []


def vit():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8
    )
    ((pixels, labels),) = labelled(3, 32, 32, classes=2)
    # Names differ from version to version of transformers.
    sites = [(None, "gelu", 64)] * 2
    return transformers.ViTForImageClassification(config), [{"pixel_values": pixels, "labels": labels}], sites, []


class Written(nn.Module):
    """Activations in the code."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(16, 12), nn.Linear(12, 5)

    def forward(self, x):
        z = self.b(F.relu(self.a(x)))
        return self.c((z * torch.sigmoid(z)).tanh())


def functions():
    sites = [("model#0", "relu", 16), ("model#1", "silu", 12), ("model#2", "tanh", 12)]
    return Written(), labelled(8), sites, []


def shared():
    act = nn.PReLU()
    model = nn.Sequential(nn.Linear(8, 16), act, nn.Linear(16, 12), act, nn.Linear(12, 5))
    return model, labelled(8), [("1", "prelu", 16), ("3", "prelu", 12)], []


class Checkpointed(nn.Module):
    def __init__(self, *, reentrant):
        super().__init__()
        self.reentrant = reentrant
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 5)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(16, 16), nn.GELU()) for _ in range(2))

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return self.last(F.relu(x))


def checkpointed(*, reentrant):
    sites = [("blocks.0.1", "gelu", 16), ("blocks.1.1", "gelu", 16), ("model#0", "relu", 16)]
    return Checkpointed(reentrant=reentrant), labelled(8), sites, []


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.act, self.head, self.spare = nn.LSTM(8, 16), nn.GELU(), nn.Linear(16, 5), nn.ReLU()

    def forward(self, x):
        return self.head(self.act(self.rnn(x)[0]))


def recurrent():
    return Recurrent(), labelled(8), [("act", "gelu", 16)], ["rnn", "spare"]


MODELS = {
    "mlp": mlp,
    "resnet20": resnet20,
    "gpt2": gpt2,
    "vit": vit,
    "functions": functions,
    "shared": shared,
    "checkpointed": lambda: checkpointed(reentrant=False),
    "checkpointed reentrant": lambda: checkpointed(reentrant=True),
    "recurrent": recurrent,
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_all_activations_are_seen_and_measured_or_listed(name):
    torch.manual_seed(0)
    model, loader, sites, unseen = MODELS[name]()
    data = diagnose(model, loader).to_dict()
    assert [one["path"] for one in data["coverage"]] == unseen
    found = [(one["name"], one["kind"], one["units"]) for one in data["sites"]]
    assert [
        (known and seen, kind, units) for (known, _, _), (seen, kind, units) in zip(sites, found, strict=True)
    ] == sites
    assert len({seen for seen, _, _ in found}) == len(sites)
    for one in data["sites"]:
        measured = {state for state, its in one["states"].items() if its}
        assert measured >= {"dead", "silent", "linear", "saturated", "dormant"}
        # Each sample gives a unit at least one value, and each value counts once.
        assert one["samples"] % 4 == 0 or name == "recurrent"
        assert one["slopes"] == one["samples"]
