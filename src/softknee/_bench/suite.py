"""Suites: several protocols that make one claim, each with a study of its own."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from softknee._bench.protocol import Frozen

if TYPE_CHECKING:
    from collections.abc import Mapping


class Suite(Frozen):
    """Protocols whose results are read together.

    Attributes:
        name: What `bench` and the command line take.
        title: For people.
        description: One or two sentences for the report.
        protocols: Their names; the first is ranked first.
        hidden: Of those that are left out while one iterates, and evaluated at the end.
        baselines: What a submission is compared with where nothing else is asked for.
    """

    name: str
    title: str
    description: str
    protocols: tuple[str, ...]
    hidden: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ("relu",)

    def members(self, *, final: bool) -> tuple[str, ...]:
        """Return the names of the protocols, the hidden ones too if `final`."""
        return (*self.protocols, *(self.hidden if final else ()))


SUITES: Mapping[str, Suite] = MappingProxyType(
    {
        suite.name: suite
        for suite in (
            Suite(
                name="mls",
                title="MLS-Bench: activation functions",
                description="The public benchmark's three settings with its recipe, ranked by the accuracy after the "
                "last epoch; the public tables show that of the best epoch on the test set.",
                protocols=("mls-resnet20-cifar10", "mls-vgg16bn-cifar100"),
                hidden=("mls-mobilenetv2-fmnist",),
                baselines=("mls-baselines",),
            ),
            Suite(
                name="transfer",
                title="Does a ranking transfer?",
                description="Activations ranked on small grey digits by a plain network, and on articles of clothing "
                "by a residual one.",
                protocols=("digits-cnn", "fashion-resnet8"),
            ),
        )
    }
)
