"""Whatever is wrong with an option is said in a sentence, before anything is built."""

from __future__ import annotations

import re

import pytest
import torch

from softknee import create, functional, get, nn
from softknee._catalogue import CATALOGUE, parse_choice
from softknee._errors import ExpressionError, OptionError, UnknownActivation, UsageError
from softknee.nn import fit_

NO_NUMBERS = {
    "a text": ("0.1", "'0.1'"),
    "a long text": ("1" * 100_000, f"'{'1' * 40}...'"),
    "none": (None, "None"),
    "a dictionary": ({}, "{}"),
    "an object": (object(), "<object object at"),
    "a complex number": (1j, "1j"),
    "a complex tensor": (torch.tensor([1j]), "a tensor of complex64 <1>"),
    "too large a number": (10**400, "a number of 1329 bits"),
    "a huge number in a list": ([10**5000], "a list"),
    "a ragged list": ([1, [2, 3]], "[1, [2, 3]]"),
    "a truth": (True, "True"),
    "truths": ([True, False], "[True, False]"),
}


@pytest.mark.parametrize(("value", "said"), NO_NUMBERS.values(), ids=NO_NUMBERS)
@pytest.mark.parametrize(
    ("name", "parameter"),
    [("swish", "beta"), ("leaky_relu", "negative_slope"), ("maxout", "group"), ("staf", "phase"), ("b * x", "b")],
)
def test_values_that_are_no_numbers(name, parameter, value, said):
    message = re.escape(f"{parameter} of {name} must be a number or a tensor, got {said}")
    with pytest.raises(OptionError, match=message):
        create(name, **{parameter: value})


ONES = torch.ones(3)
CASES = [
    # Shapes.
    ("swish", {"beta": [1, 2]}, "beta of swish has 2 entries; say per_channel=2"),
    ("swish", {"beta": ONES}, "beta of swish has 3 entries; say per_channel=3"),
    ("swish", {"beta": ONES, "per_channel": 4}, "beta of swish has 3 entries, but there are 4 channels; give one numb"),
    ("swish", {"beta": torch.ones(3, 3), "per_channel": 3}, "beta of swish must be one number or one for each channel"),
    ("swish", {"beta": []}, "beta of swish must be one number or one for each channel, got <0>"),
    ("maxout", {"group": [2, 2]}, "group of maxout must be one number, got <2>"),
    ("maxout", {"group": 0}, "group of maxout must be a whole number of at least 1, got 0"),
    ("maxout", {"group": 1.5}, "group of maxout must be a whole number of at least 1, got 1.5"),
    ("meta_acon", {"channels": 4, "p1": ONES}, "p1 of meta_acon has 3 entries, but there are 4 channels"),
    ("meta_acon", {"channels": 4, "per_channel": 4}, "meta_acon has parameters for each channel as it is"),
    ("gdn", {"channels": 4, "beta": ONES}, "beta of gdn must be 4 entries with channels=4, got 3 entries"),
    ("gdn", {"channels": 4, "beta": 1.0}, "beta of gdn must be 4 entries with channels=4, got one number"),
    ("gdn", {"channels": 4, "gamma": torch.ones(4, 3)}, "gamma of gdn must be 4 x 4 with channels=4, got 4 x 3"),
    ("householder", {"channels": 4, "theta": ONES}, "theta of householder must be 2 entries with channels=4, got 3"),
    # Lengths of vectors.
    ("staf", {"amplitude": [1.0, 2.0]}, "amplitude of staf has 2 entries, frequency 5; give all of them or terms=2"),
    ("staf", {"amplitude": [1.0]}, "amplitude of staf has 1 entry, frequency 5; give all of them or terms=1"),
    ("staf", {"amplitude": [1.0], "phase": [1.0, 2.0]}, "amplitude of staf has 1 entry, frequency 5"),
    ("rowdy", {"amplitude": [1.0], "frequency": [1.0, 2.0]}, "frequency 2; they must be of the same number of terms"),
    ("staf", {"amplitude": [1.0, 2.0], "terms": 3}, "amplitude of staf must have 3 entries with terms=3, got 2"),
    ("staf", {"amplitude": 1.0}, "amplitude of staf must be a vector or one for each channel, got 1"),
    ("staf", {"amplitude": []}, "amplitude of staf must have at least 1 entry, got 0"),
    ("staf", {"amplitude": torch.ones(5, 2)}, "amplitude of staf has entries for 2 channels; say per_channel=2"),
    ("staf", {"amplitude": torch.ones(5, 2), "per_channel": 3}, "amplitude of staf has entries for 2 channels, but"),
    ("linear_spline", {"values": [1.0]}, "values of linear_spline must have at least 2 entries, got 1"),
    ("hermite", {"coefficients": [1] * 20}, "coefficients of hermite must have at most 8 entries, got 20"),
    ("hermite", {"terms": 8}, "terms of hermite must be an integer of at least 1 and at most 7, got 8"),
    ("opau", {"numerator": [1] * 9}, "numerator of opau must have at most 8 entries, got 9"),
    ("opau", {"numerator": [0, 1]}, "denominator of opau must have fewer entries than numerator, got 3 and 2"),
    ("rational", {"numerator": [1]}, "numerator of rational must have at least 2 entries, got 1"),
    ("rational", {"denominator": []}, "denominator of rational must have at least 1 entry, got 0"),
    ("rational_32", {"denominator": [1.0, 0.0, 0.0, 0.0]}, "denominator of rational_32 has 4 entries, numerator 4"),
    # Options of classes.
    ("frelu", {"channels": 4, "slope": 1}, "frelu has no parameter 'slope'; it has none"),
    ("frelu", {"channels": 4, "spatial": [1]}, "spatial of frelu must be 1, 2 or 3, got [1]"),
    ("frelu", {"channels": 4, "spatial": True}, "spatial of frelu must be 1, 2 or 3, got True"),
    ("dynamic_relu", {"channels": 4, "slope": 1}, "dynamic_relu has no parameter 'slope'"),
    ("dynamic_relu", {"channels": 4, "shared": "yes"}, "shared of dynamic_relu must be True or False, got 'yes'"),
    ("atac", {"channels": 4, "per_channel": 4}, "atac has no parameters that could be trained or set per channel"),
    ("gated_mix", {"channels": 4, "slope": 1}, "gated_mix has no parameter 'slope'"),
    ("meta_acon", {"channels": 4, "initialization": [1]}, "initialization of meta_acon must be normal or swish, got"),
    ("meta_acon", {"channels": 4, "generator": 3}, "generator of meta_acon must be a torch.Generator, got 3"),
    ("poly_norm", {"per_channel": 4}, "poly_norm takes no per_channel: it looks at all entries along a dimension"),
    ("norm_relu", {"per_channel": 4}, "norm_relu takes no per_channel: it looks at all entries along a dimension"),
    ("poly_norm", {"terms": 4}, "poly_norm takes no terms: it looks at all entries along a dimension"),
    ("gdn", {"channels": 4, "per_channel": 4}, "gdn takes no per_channel; its parameters go by channels, as in"),
    ("householder", {"channels": 4, "terms": 4}, "householder takes no terms; its parameters go by channels"),
    ("gdn", {"channels": 0}, "channels of gdn must be an integer of at least 1, got 0"),
    ("gdn", {"channels": "a"}, "channels of gdn must be an integer of at least 1, got 'a'"),
    ("softmax", {"dim": "a"}, "dim of softmax must be an integer, got 'a'"),
    ("softmax", {"dim": 1.5}, "dim of softmax must be an integer, got 1.5"),
    ("geglu", {"dim": "a"}, "dim of geglu must be an integer, got 'a'"),
    ("geglu", {"interleaved": "yes"}, "interleaved of geglu must be True or False, got 'yes'"),
    ("geglu", {"gate_first": 1}, "gate_first of geglu must be True or False, got 1"),
    ("swish", {"channel_dim": 1.5}, "channel_dim of swish must be an integer, got 1.5"),
    ("swish", {"trainable": 3}, "trainable of swish must be True, False or names of its parameters, got 3"),
    ("swish", {"trainable": [3]}, "trainable of swish must be True, False or names of its parameters, got [3]"),
    ("swish", {"trainable": "bet"}, "swish has no parameter 'bet'; did you mean 'beta'"),
    ("swish", {"trainable": ONES}, "trainable of swish must be True, False or names of its parameters, got a tensor"),
    ("swish", {"reach": 3}, "reach of Swish must be two finite numbers in order, got 3"),
    ("swish", {"reach": ("a", 3)}, "reach of Swish must be two finite numbers in order, got 'a', 3"),
    ("swish", {"reach": (0, 10**400)}, "reach of Swish must end within 2**42, got 0, a number of 1329 bits"),
    ("swish", {"generator": 3}, "generator of swish must be a torch.Generator, got 3"),
    ("staf", {"initialization": [1]}, "initialization of staf must be one of theorem, code, normal, got [1]"),
    ("swish", {"engine": [1]}, "engine must be one of auto, eager, fused, table, got [1]"),
    ("swish", {"a" * 100_000: 1}, f"swish has no parameter '{'a' * 40}...'; it has beta"),
    ("swish", {"self": 1}, "'swish' has no parameter 'self'"),
    (
        "gdn",
        {"channels": 10**400},
        "channels of gdn must be an integer of at least 1 and at most 2147483648",
    ),
    ("gdn", {"channels": 4, "beta": 2**70}, "beta of gdn must be 4 entries with channels=4, got one number"),
    ("taaf", {"candidates": ["relu"]}, "taaf takes base in place of candidates"),
    ("blend", {"candidates": ["relu"]}, "blend takes old and new in place of candidates"),
    ("b * x", {"b": 1, "text": 1}, "'b * x' has no parameter 'text'"),
]


@pytest.mark.parametrize(("name", "options", "message"), CASES)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(OptionError, match=re.escape(message)):
        create(name, **options)


LIST = rf"`softknee list` shows all {len(CATALOGUE)}"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: create(None), UnknownActivation, r"an activation is a name or a formula, as in .*; got None"),
        (lambda: create(3), UnknownActivation, r"an activation is a name or a formula, as in .*; got 3"),
        (lambda: create(""), ExpressionError, "the expression is empty"),
        (lambda: create("a" * 100_000), UnknownActivation, rf"no activation named '{'a' * 40}\.\.\.'; {LIST}"),
        (lambda: get(None), UnknownActivation, r"an activation is named by a text, as in 'gelu'; got None"),
        (lambda: get(["gelu"]), UnknownActivation, r"an activation is named by a text, as in 'gelu'; got \['gelu'\]"),
        (lambda: parse_choice(3), OptionError, r"an activation is a name, name\[options\] or a formula in x, got 3"),
        (
            lambda: parse_choice(f"swish[{'b' * 99}]"),
            OptionError,
            rf"option '{'b' * 40}\.\.\.' of 'swish\[b{{34}}\.\.\.",
        ),
        (lambda: nn.Formula(3), OptionError, r"a formula is a text, as in .*; got 3"),
        (lambda: nn.LinearMix("relu"), UsageError, r"candidates of linear_mix must be a list of .*, got 'relu'"),
        (lambda: nn.LinearMix(get("relu")), UsageError, r"candidates of linear_mix must be a list of"),
        (lambda: nn.LinearMix([3]), UsageError, r"an activation is given by its name, as in .*; got 3"),
        (lambda: nn.LinearMix(["gelo"]), UnknownActivation, rf"named 'gelo'; did you mean 'gelu'.*\? {LIST}"),
        (lambda: create("taaf", base=3), UsageError, r"an activation is given by its name, as in .*; got 3"),
        (lambda: create("blend", new=[3]), UsageError, r"an activation is given by its name, as in .*; got \[3\]"),
        (lambda: nn.GatedMix(4, candidates="relu"), OptionError, r"candidates of gated_mix must be a list .*'relu'$"),
        (lambda: nn.GatedMix(4, candidates=3), OptionError, r"candidates of gated_mix must be a list of names"),
        (lambda: nn.GatedMix(4, candidates=[["relu"]]), OptionError, r"must be a list of names.*got \[\['relu'\]\]"),
        (lambda: nn.GatedMix(4, candidates=["zzzz"]), OptionError, rf"named 'zzzz' for gated_mix; {LIST}"),
        (lambda: fit_(nn.SLAF(), "zzzz"), UnknownActivation, rf"no activation named 'zzzz'; {LIST}"),
    ],
)
def test_what_is_no_activation_is_refused(make, error, message):
    with pytest.raises(error, match=message) as caught:
        make()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["kwta", "sparsemax", "entmax15", "squash"])
def test_empty_dimensions_are_refused(name):
    message = rf"{name} needs entries in dimension 1, got an input of shape \(3, 0\)"
    for function in (getattr(functional, name), create(name, dim=-1)):
        with pytest.raises(UsageError, match=message):
            function(torch.ones(3, 0))
        assert function(torch.ones(0, 3)).shape == (0, 3)


def test_what_fits_is_taken():
    """Vectors of other lengths than those drawn, one number for all channels, a name on its own."""
    assert nn.STAF(amplitude=[1.0, 2.0], terms=2).frequency.shape == (2,)
    assert nn.STAF(amplitude=[1.0], frequency=(2,), phase=torch.zeros(1)).amplitude.shape == (1,)
    assert nn.STAF(amplitude=torch.ones(5, 1), per_channel=3).amplitude.shape == (5, 3)
    assert nn.LinearSpline(values=[0.0, 1.0, 2.0]).values.shape == (3,)
    assert nn.Hermite(coefficients=[1] * 8).coefficients.shape == (8,)
    assert nn.GDN(channels=2, gamma=[[1, 0], [0, 1]]).gamma.shape == (2, 2)
    assert nn.Swish(beta=[2], per_channel=3).beta.tolist() == [2.0] * 3
    assert nn.Maxout(group=torch.tensor(3)).group == 3
    srelu = nn.SReLU(trainable="left_slope")
    assert [name for name, _ in srelu.named_parameters()] == ["left_slope"]
    assert nn.Swish(beta=2**70).beta.item() == 2**70


def test_degrees_of_a_quotient_are_free():
    module = nn.Rational(numerator=[0.0, 1.0, 0.5], denominator=[0.1])
    x = torch.linspace(-2, 2, 9)
    assert torch.allclose(module(x), (x + 0.5 * x**2) / (1 + (0.1 * x).abs()))
    assert fit_(module, "gelu") < 0.5
    assert nn.OPAU(numerator=[0.0, 1.0, 0.0, 0.0], denominator=[0.1]).denominator.shape == (1,)
