from __future__ import annotations

from importlib import resources

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

import softknee
from softknee._catalogue import CATALOGUE, Choice, cite, create, families, get, list, parse_choice  # noqa: A004
from softknee._engine.select import engine
from softknee._errors import ExpressionError, OptionError, UnknownActivation, UsageError
from softknee._expression.parse import parse
from softknee.nn.options import can_be_trained

# Sources of what is no entry of the catalogue.
OTHER_SOURCES = {"formula"}


def test_names_titles_and_aliases_are_unique():
    names = [name for spec in CATALOGUE for name in (spec.name, *spec.aliases)]
    assert len(set(names)) == len(names)
    assert len({spec.title for spec in CATALOGUE}) == len(CATALOGUE)
    assert all(get(alias) is spec for spec in CATALOGUE for alias in spec.aliases)


def test_sources_and_bibliography_match():
    text = resources.files("softknee").joinpath("references.bib").read_text(encoding="utf-8")
    keys = [line.partition("{")[2].rstrip(",\n") for line in text.splitlines() if line.startswith("@")]
    assert len(set(keys)) == len(keys)
    assert set(keys) == {spec.source for spec in CATALOGUE} | OTHER_SOURCES
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize("spec", CATALOGUE, ids=lambda spec: spec.name)
def test_every_entry_can_be_cited(spec):
    entry = cite(spec.name)
    assert entry.startswith("@")
    assert f"{{{spec.source}," in entry
    assert entry.endswith("}")
    assert entry.count("\n@") == 0


@pytest.mark.parametrize("spec", [spec for spec in CATALOGUE if spec.statement is None], ids=lambda spec: spec.name)
def test_formulas_are_stated_in_primitives_alone(spec):
    """Else a formula could name the very function it is compared with."""
    assert parse(spec.formula).root
    if spec.surrogate:
        assert parse(spec.surrogate).root


def test_lists():
    assert set(list()) == {spec.name for spec in CATALOGUE}
    assert sorted(name for family in families() for name in list(family)) == sorted(list())
    with pytest.raises(UsageError, match=r"family must be one of rectifier, .*, got 'gate'"):
        list("gate")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gelo", r"no activation named 'gelo'; did you mean 'gelu'.* `softknee list` shows all \d+"),
        ("zzzz", r"no activation named 'zzzz'; `softknee list` shows all \d+"),
    ],
)
def test_unknown_names_are_reported_with_suggestions(name, message):
    for look_up in (get, create, cite, parse_choice):
        with pytest.raises(UnknownActivation, match=message):
            look_up(name)


def test_the_package_offers_it():
    assert softknee.create("swish", beta=1.2).beta.item() == pytest.approx(1.2)
    assert softknee.list is list
    assert repr(softknee.create("x * tanh(x)")) == "Formula('x * tanh(x)', engine=fused)"
    assert repr(softknee.create("x")) == "Formula('x', engine=eager)"


def values_of(param):
    """Numbers inside the range that float32 holds and does not round to its ends."""
    low = -100.0 if param.low is None else param.low + 2**-10
    high = 100.0 if param.high is None else param.high - 2**-10
    return st.floats(low, high).map(lambda value: round(value * 2**16) / 2**16)


@st.composite
def choices(draw):
    spec = draw(st.sampled_from([spec for spec in CATALOGUE if spec.kind == "elementwise"]))
    options = {}
    for param in spec.parameters:
        if not param.vector and draw(st.booleans()):
            options[param.name] = draw(values_of(param))
    for param in spec.parameters:
        lower = param.not_below or param.above
        if lower:
            pair = sorted(draw(st.lists(values_of(param), min_size=2, max_size=2, unique=bool(param.above))))
            options |= dict(zip((lower, param.name), pair, strict=True))
    trained = any(map(can_be_trained, spec.parameters))
    if trained and draw(st.booleans()):
        options["trainable"] = draw(st.booleans())
    if trained and draw(st.booleans()):
        options["per_channel"] = draw(st.one_of(st.just(True), st.integers(1, 9)))
    if spec.initializations and draw(st.booleans()):
        # No Hermite polynomial of the catalogue has a higher degree.
        options["terms"] = draw(st.integers(spec.fewest_terms, 7))
        options["initialization"] = draw(st.sampled_from(sorted(spec.initializations)))
    return Choice(spec.name, tuple(sorted(options.items())))


@settings(max_examples=150, deadline=None)
@given(choices())
def test_a_choice_is_read_back_from_its_label(choice):
    assert parse_choice(choice.label) == choice


@settings(max_examples=30, deadline=None)
@given(choices())
def test_a_choice_can_be_built(choice):
    count = dict(choice.options).get("per_channel")
    channels = 3 if count is True or count is None else count
    module = choice.build(channels=channels, generator=torch.Generator().manual_seed(0)).eval()
    # As it is written, for making kernels of all that is drawn takes long.
    with engine("eager"):
        assert module(torch.zeros(2, channels)).shape == (2, channels)


def test_a_choice_of_a_formula():
    choice = parse_choice(" x*sigmoid(b*x) [b=1.25, fixed]")
    assert choice.label == "x * sigmoid(b * x)[b=1.25,fixed]"
    assert parse_choice(choice.label) == choice
    assert choice.build(channels=3).b == 1.25


def test_spellings_of_a_choice():
    assert parse_choice("swish[trainable=false]") == parse_choice("swish[fixed]")
    assert parse_choice("swish[trainable=TRUE]") == parse_choice("swish[trainable]")
    assert parse_choice("hard_swish").what == "hardswish"
    assert parse_choice("staf[terms=3]").build(channels=2).amplitude.shape == (3,)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", OptionError, "names no activation; write a name"),
        ("[beta=1]", OptionError, "names no activation; write a name"),
        ("swish[beta]", OptionError, "option 'beta' of .* is not of the form name=number"),
        ("swish[beta=]", OptionError, "not of the form name=number"),
        ("swish[beta=one]", OptionError, "not of the form name=number"),
        ("swish[beta=1,beta=2]", OptionError, "option 'beta' of .* is given twice"),
        ("swish[fixed,trainable]", OptionError, "option 'trainable' of .* is given twice"),
        ("swish[per_channel=1.5]", OptionError, "not of the form name=number"),
        ("swish[trainable=maybe]", OptionError, "not of the form name=number"),
        ("swish[bta=1]", OptionError, "swish has no parameter 'bta'; did you mean 'beta'"),
        ("swish[beta=nan]", OptionError, "beta of swish must be finite, got nan"),
        ("celu[alpha=-1]", OptionError, "alpha of celu must be above 0, got -1"),
        (
            "hardtanh[min_value=2]",
            OptionError,
            "max_value of hardtanh must not be below min_value, got min_value=2 and",
        ),
        ("relu[terms=2]", OptionError, "relu has no terms"),
        ("staf[initialization=mine]", OptionError, "must be one of theorem, code, normal"),
        ("b*x", OptionError, "'b' in 'b . x' is neither x nor a function"),
        ("swish[beta=1", ExpressionError, "no formula"),
        ("x*tanh(", ExpressionError, "no formula"),
    ],
)
def test_bad_choices_are_refused(text, error, message):
    with pytest.raises(error, match=message):
        parse_choice(text)


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("staf[terms=5]", "create('staf', terms=5)"),
        (" swish [beta=1.5,fixed]", "create('swish', beta=1.5, trainable=False)"),
        ("swish[per_channel,trainable]", "create('swish', per_channel=channels, trainable=True)"),
        ("relu[]", "create('relu')"),
    ],
)
def test_create_says_how_options_in_brackets_are_written(text, call):
    with pytest.raises(OptionError) as caught:
        create(text)
    assert str(caught.value) == f"options of an activation are arguments: {call}, not {text!r}"
    assert isinstance(eval(call, {"create": create, "channels": 3}), softknee.nn.Activation)


def test_brackets_behind_anything_else_are_no_formula():
    for text in ("nothing[terms=5]", "2 * x[beta=1]"):
        with pytest.raises(ExpressionError):
            create(text)
