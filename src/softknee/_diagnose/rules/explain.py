"""What each rule of a diagnosis means: definition, why it matters, what to do, how to check that it helped."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from softknee._errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        id: By which it is named and silenced.
        title: A few words.
        definition: When it holds, in one or two sentences.
        why: Why it matters, in one line.
        reference: Where that is shown; empty for what follows from the definition.
        fix: What to do.
        check: How to see whether it helped.
    """

    id: str
    title: str
    definition: str
    why: str
    reference: str
    fix: str
    check: str


_AGAIN = "Diagnose again with the same seed and sample; the share should fall."
_HANIN = "Hanin, arXiv 1801.03744"
_POOLE = "Poole et al., arXiv 1606.05340; Schoenholz et al., arXiv 1611.01232"

_ALL = (
    Rule(
        "fresh-statistics",
        "batch norms that have seen no data",
        "The running mean of a batch norm is 0 and its running variance 1, as they are made. The states of units are "
        "measured in eval mode, which uses them.",
        "Nothing is normalized, so units may look dead or saturated that are not in training.",
        "",
        "Run some batches in training mode, under torch.no_grad(), and diagnose then; or load the trained weights.",
        "The rule is gone. The states of units now are those of a normalized network.",
    ),
    Rule(
        "dead-units",
        "dead units",
        "The slope of the activation is exactly 0 at every sample seen, so no gradient reaches the weights before the "
        "unit. It is a statement about the samples: N without a slope bound the rate of slopes at 1 - 0.05^(1/N); if "
        "that is over 10 %, it is a note only.",
        "A dead unit does not learn, and its output is that of a constant; it may revive when layers before it move.",
        "Lu et al., arXiv 1903.06733",
        "First match the gain (softknee.calibrate) and lower the learning rate; then try an activation with a slope "
        "on both sides at this place (softknee.swap), or a normalization before it.",
        "Diagnose with more samples: a unit that is only rare stops being counted. Then compare the shares.",
    ),
    Rule(
        "dead-layer",
        "a whole site is dead",
        "Every unit of the site is dead, so no gradient passes it, at any sample seen.",
        "All layers before it stop learning, unless there is a way around it.",
        "Lu et al., arXiv 1903.06733",
        "Initialize again at the matched gain (softknee.calibrate) with zero bias, or change the activation here.",
        "The share of dead units at this site is below 1.",
    ),
    Rule(
        "silent-units",
        "silent units",
        "The output is exactly 0 at every sample seen, while the slope is not (where there is one).",
        "A silent unit carries nothing forward; weights after it get no gradient.",
        "",
        "See whether the samples cover the data; else as for dead units.",
        _AGAIN,
    ),
    Rule(
        "constant-units",
        "constant units",
        "The output hardly varies over the samples (variance at most 1e-6 of the mean variance of the layer), and is "
        "not 0.",
        "A constant unit tells nothing about the input; it acts as a bias.",
        "",
        "Match the gain (softknee.calibrate): a bounded function is driven too far, or its input hardly varies.",
        _AGAIN,
    ),
    Rule(
        "saturated-units",
        "saturated units",
        "The size of the slope is under 1 % of its largest value at 95 % of the samples or more; dead units are left "
        "out.",
        "At those samples gradients through the unit shrink by a hundred or more; those of a ReLU vanish.",
        "Glorot and Bengio 2010",
        "Match the gain (softknee.calibrate), add a normalization before the activation, or lower the learning rate.",
        _AGAIN,
    ),
    Rule(
        "dormant-units",
        "dormant units",
        "The mean size of the output is at most 2.5 % of the mean over the units of the site.",
        "Dormant units hardly take part; in reinforcement learning their share grows with training.",
        "Sokar et al., arXiv 2302.12902",
        "Watch the share over training (softknee.watch) before you act on it: sparse units are not a fault by "
        "themselves.",
        _AGAIN,
    ),
    Rule(
        "gradient-dormant-units",
        "gradient-dormant units",
        "The mean size of the gradient of the loss by the output is at most 2.5 % of the mean over the units of the "
        "site.",
        "What such a unit does hardly changes the loss, so its weights hardly learn.",
        "arXiv 2505.24061",
        "Watch the share over training (softknee.watch); compare with another seed.",
        _AGAIN,
    ),
    Rule(
        "nearly-linear",
        "an activation that is nearly linear",
        "A line explains more than 99 % of the variance of the output (linear R² from the sums of z, h and z·h).",
        "Layers around it act as one linear layer: depth adds nothing here.",
        "",
        "The input varies too little around one point, or stays on one side: match the gain (softknee.calibrate) and "
        "look at the bias of the layer before.",
        "Linear R² of the site; a ReLU on N(0, 1) has 0.733.",
    ),
    Rule(
        "no-activation",
        "no activation was seen",
        "The model has several layers with weights, and no place of an activation was seen.",
        "Layers without an activation between them act as one.",
        "",
        "If the model has activations, see what was not seen; else add some.",
        "softknee.sites(model, example) lists them.",
    ),
    Rule(
        "activations-in-a-row",
        "two activations in a row",
        "The input of one activation is the output of another, with nothing but reshaping between.",
        "The second acts on a range that the first has already bent; most often one of them is left over by mistake.",
        "",
        "Remove one, unless it is meant.",
        "softknee.sites(model, example) shows one of them.",
    ),
    Rule(
        "activation-before-loss",
        "an activation before a loss that takes logits",
        "The model returns the output of an activation, and the loss applies its own softmax or sigmoid.",
        "The loss then sees scores in a narrow or one-sided range: gradients shrink, and probabilities are not those "
        "of the model. A loss by name is known to take logits, your own function is not judged.",
        "torch.nn.functional.cross_entropy: the input contains the unnormalized logits",
        "Return the logits, and apply the activation only where probabilities are wanted.",
        "The rule is gone, and the loss of an untrained model is near log(number of classes).",
    ),
    Rule(
        "dtype-risk",
        "slopes that vanish in another precision",
        "The share of inputs at which the gradient is exactly 0 in bfloat16 or float16, but not in the precision of "
        "the model, is over 1 %.",
        "tanh has no gradient beyond 3.47 in bfloat16, GELU none below -6.16 in float32: units die by rounding.",
        "table of death thresholds, softknee.card",
        "Keep these activations in float32 under autocast, or match the gain so that inputs stay inside.",
        "The share beyond the threshold of the precision you train in.",
    ),
    Rule(
        "non-finite",
        "numbers that are not finite",
        "Outputs, inputs of activations or gradients hold infinities or NaN.",
        "One of them spoils every mean, and a training step makes all weights NaN.",
        "",
        "Find the first site that has them (the table lists sites in order); look at the data, the learning rate and "
        "the precision.",
        "Diagnose again: shares of non-finite values are 0.",
    ),
    Rule(
        "chi-product",
        "gradients that grow or shrink with depth",
        "The product over layers of χ = σ_w² E[φ'(z)²], at the mean squares measured, lies outside 0.01 to 100.",
        "In wide networks the squared gradient changes by χ a layer: under 1 it vanishes, over 1 it explodes.",
        _POOLE,
        "Scale the weights to the gain of the activation (softknee.calibrate), then tune the learning rate again.",
        "The product is near 1. The theory assumes wide layers with independent weights: see the measured ratios.",
    ),
    Rule(
        "collapse",
        "samples that become alike",
        "The mean cosine between the pre-activations of different samples exceeds 0.99 in the last layer measured.",
        "Layers after it can hardly tell inputs apart; an untrained network of this kind trains slowly or not at all.",
        _POOLE,
        "Match the gain (softknee.calibrate) with zero bias, shorten the way (residual branches), or center the "
        "activation.",
        "Cosine against depth beside its theory.",
    ),
    Rule(
        "gain-mismatch",
        "weights that do not fit the activation",
        "σ_w = sqrt(fan-in · Var W) of layers lies more than a quarter off the forward gain of the activation that "
        "feeds them. Layers after the last activation are left out.",
        "Below the gain the signal shrinks with each layer, above it it grows. In trained weights a difference is no "
        "fault by itself.",
        "He et al., arXiv 1502.01852",
        "softknee.calibrate(model, batch) scales the weights to the data. Do this before you try another activation, "
        "then tune the learning rate again.",
        "Ratios near 1 in the table of gains; compare by a trial with the control 'same activation, matched gain'.",
    ),
    Rule(
        "gradient-spread",
        "gradients of very different size",
        "The root mean squares of the weight gradients of two layers differ by more than a factor of 1000.",
        "One learning rate then moves some layers hardly or others too far; adaptive optimizers hide it in part.",
        _HANIN,
        "Match the gain (softknee.calibrate), add normalization or residual branches.",
        "Gradient norms by layer.",
    ),
    Rule(
        "no-gradient",
        "parameters without a gradient",
        "The loss does not depend on a parameter that is meant to be trained, or its gradient is exactly 0 everywhere.",
        "It does not learn.",
        "",
        "See whether the layer is used, detached, or behind a dead site.",
        "Gradient norms by layer.",
    ),
    Rule(
        "outlier-ratio",
        "outliers",
        "The largest output is more than 127 times the root mean square (a note from 32 on).",
        "One scale for all values in int8 then leaves less than one step for the usual ones; FP8 has the same trouble.",
        "Fishman et al., arXiv 2409.12517",
        "Quantize by channel or block, or swap for a function that bounds or smooths the product.",
        "Outlier ratio of the site.",
    ),
    Rule(
        "shared-parameters",
        "one trainable activation at several sites",
        "The same instance with trained parameters acts at several sites.",
        "Its parameters get the sum of the gradients of all sites, and one shape must fit all.",
        "",
        "Give each site its own instance, unless sharing is meant; softknee.swap makes one a site.",
        "The table of trainable activations shows none as shared.",
    ),
    Rule(
        "not-optimised",
        "activation parameters that the optimizer does not have",
        "A parameter of an activation requires gradients, but no group of the optimizer holds it.",
        "It stays what it was.",
        "",
        "Make the optimizer after the swap, or add the parameters: softknee.parameter_groups(model).",
        "The table says optimised.",
    ),
    Rule(
        "activation-decay",
        "weight decay on activation parameters",
        "A parameter of an activation lies in a group of the optimizer with weight decay.",
        "Decay pulls it to 0, which for most activations is a particular function and not the simplest one: PReLU's "
        "slope is pulled to that of ReLU.",
        "He et al., arXiv 1502.01852 (no weight decay on PReLU)",
        "softknee.parameter_groups(model) puts them into a group without decay.",
        "The table says no decay.",
    ),
    Rule(
        "parameter-at-bound",
        "an activation parameter at the end of its range",
        "A parameter of an activation lies at an end of the range it is allowed.",
        "There it may have no gradient, or the formula stops making sense beyond.",
        "",
        "Lower its learning rate, or choose a function whose range fits.",
        "Its trajectory (softknee.watch).",
    ),
    Rule(
        "parameter-not-finite",
        "an activation parameter that is not finite",
        "A parameter of an activation is NaN or infinite.",
        "Everything after it is as well.",
        "",
        "Lower the learning rate of activation parameters; look at the step at which it happened (softknee.watch).",
        "Its trajectory.",
    ),
    Rule(
        "sharpness",
        "a learning rate above the stable one",
        "The learning rate is above 2/λ_max of the Hessian, 2(1 + β)/λ_max with momentum β: gradient descent on the "
        "quadratic model then grows along the steepest direction.",
        "Whole-batch descent hovers at this edge by itself; far above it the loss diverges. It does not hold for "
        "adaptive optimizers, and is not tested for them.",
        "Cohen et al., arXiv 2103.00065",
        "Lower the learning rate, warm it up, or match the gain.",
        "λ_max after some steps of training.",
    ),
    Rule(
        "nondeterministic",
        "outputs that differ from run to run",
        "Two runs in eval mode on the same batch gave different outputs.",
        "Measurements carry noise, and deployment is not reproducible.",
        "",
        "Look for dropout or noise that acts in eval mode, or random activations.",
        "Diagnose again.",
    ),
    Rule(
        "not-seen",
        "activations that may be hidden",
        "Parts of the model may hold activations that were not seen, or were seen and not measured.",
        "Nothing is said about them.",
        "",
        "Where possible use the form written out: the module before scripting or compiling, a cell in place of a "
        "fused RNN.",
        "The list of what was not seen is empty.",
    ),
    Rule(
        "not-measured",
        "a part that could not be measured",
        "A measurement failed on this model; the others are not affected.",
        "Nothing is said about it.",
        "",
        "The text says why.",
        "The part is there.",
    ),
)
RULES: Mapping[str, Rule] = MappingProxyType({rule.id: rule for rule in _ALL})


def rule(name: str) -> Rule:
    """Return a rule.

    Args:
        name: Its id.

    Returns:
        The rule.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in RULES:
        raise UsageError(f"no rule named {name!r}; there are {', '.join(RULES)}{did_you_mean(name, RULES)}")
    return RULES[name]


def explain(name: str) -> str:
    """Return a rule in words.

    Args:
        name: Its id, such as `"dead-units"`.

    Returns:
        Some lines: definition, reference, what to do, how to check.

    Raises:
        UsageError: There is none of that name.
    """
    one = rule(name)
    lines = [
        f"{one.id}: {one.title}",
        f"  when   {one.definition}",
        f"  why    {one.why}",
        f"  do     {one.fix}",
        f"  check  {one.check}",
    ]
    return "\n".join([*lines, f"  source {one.reference}"] if one.reference else lines)
