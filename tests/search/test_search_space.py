from __future__ import annotations

import pickle
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from softknee._errors import OptionError, UsageError
from softknee._expression.walk import call
from softknee._search.candidate import Candidate
from softknee._search.distinct import WITHIN, classes
from softknee._search.evaluation import values
from softknee._search.operations import BINARY, UNARY, Operation
from softknee._search.shapes import Shapes, shape_of
from softknee._search.space import Genotype, Space, space_of
from softknee.nn.formula import expression

GRAFS, ONE_CORE = space_of("grafs"), space_of("one-core")
X = torch.cat([torch.linspace(-50, 50, 301), torch.linspace(-3.9, 4.1, 120)]).double()
CUBED = Operation("cubed_sine", 1, lambda x, bound: x.sin() ** 3, lambda x, bound: call("**", call("sin", x), THREE))
THREE = expression("3").root


def unbatched(space, genotype, x, betas=None):
    """The cell as the specification writes it, one operation after the other."""

    def apply(kind, place, *inputs):
        operation = {"unary": UNARY, "binary": BINARY}[kind][getattr(genotype, kind)[place]]
        scalar = () if operation.beta is None else ((betas or {}).get((kind, place), operation.beta[0]),)
        return operation.function(*inputs, *scalar, bound=space.bound)

    y = apply("binary", 0, apply("unary", 0, x), apply("unary", 1, x))
    if space.cores == 2:
        y = apply("binary", 1, apply("unary", 2, y), apply("unary", 3, x))
    return y


def genotypes(space):
    return st.integers(0, 2**32).map(lambda seed: space.draw(np.random.default_rng(seed)))


def test_the_cell_of_the_specification():
    assert (GRAFS.slots, GRAFS.size, GRAFS.edges, GRAFS.vertices, GRAFS.bound) == (110, 22_667_121, 4, 2, 10.0)
    assert [group.name for group in GRAFS.groups] == ["U0", "U1", "B0", "U2", "U3", "B1"]
    assert (ONE_CORE.slots, ONE_CORE.size) == (55, 4761)
    assert len({*ONE_CORE.genotypes()}) == 4761
    assert space_of(ONE_CORE) is ONE_CORE
    assert pickle.loads(pickle.dumps(GRAFS)) == GRAFS != ONE_CORE


def test_draws_are_uniform_and_repeat():
    rng = np.random.default_rng(0)
    drawn = [GRAFS.draw(rng) for _ in range(4600)]
    for edge in range(4):
        counts = np.unique([one.unary[edge] for one in drawn], return_counts=True)[1]
        # 200 each, with a deviation of 14.
        assert len(counts) == 23
        assert 140 < counts.min() <= counts.max() < 260
    assert drawn[0] == GRAFS.draw(np.random.default_rng(0))


def test_mutations_change_one_place():
    rng = np.random.default_rng(1)
    parent = GRAFS.draw(rng)
    changed = set()
    for _ in range(300):
        child = GRAFS.mutate(parent, rng)
        pairs = zip(GRAFS.names(parent), GRAFS.names(child), strict=True)
        places = [place for place, (old, new) in enumerate(pairs) if old != new]
        assert len(places) == 1
        changed |= {*places}
    assert changed == set(range(6))
    only = Space(unary=["tanh"], binary=["left"], cores=1)
    assert only.mutate(only.draw(rng), rng) == Genotype(("tanh", "tanh"), ("left",))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([GRAFS, ONE_CORE]), st.data())
def test_values_of_many_are_those_of_each(space, data):
    chosen = data.draw(st.lists(genotypes(space), min_size=1, max_size=12))
    got = values(space, chosen, X)
    for genotype, row in zip(chosen, got, strict=True):
        torch.testing.assert_close(row, unbatched(space, genotype, X), rtol=1e-12, atol=1e-12)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([GRAFS, ONE_CORE]), st.data())
def test_formulas_are_the_functions_with_their_bounds(space, data):
    genotype = data.draw(genotypes(space))
    places = [("unary", place) for place in range(space.edges)] + [("binary", place) for place in range(space.cores)]
    betas = data.draw(st.dictionaries(st.sampled_from(places), st.floats(-3, 3, allow_subnormal=False), max_size=3))
    wanted = unbatched(space, genotype, X, betas)
    fixed = space.function(genotype, betas)
    assert (fixed.constants, fixed.trained) == ((), False)
    tree = expression(fixed.text)
    assert tree.parameters == ()
    torch.testing.assert_close(tree(X), wanted, rtol=1e-10, atol=1e-10)
    trained = space.function(genotype, betas, trained=True)
    tree, constants = expression(trained.text), dict(trained.constants)
    assert {*tree.parameters} == {*constants}
    assert trained.trained == bool(constants)
    assert [*constants] == list("abcdfg")[: len(constants)]
    torch.testing.assert_close(tree(X, *map(constants.get, tree.parameters)), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("unary", "binary", "text"),
    [
        (("identity", "exp"), "left", "x"),
        (("cube", "gelu"), "right", "gelu(x)"),
        (("identity", "identity"), "gate", "silu(x)"),
        (("identity", "max0"), "max", "relu(x)"),
        (("mul_beta", "negate"), "add", "0"),
        (("identity", "min0"), "sub", "relu(x)"),
        (("tanh", "const_beta"), "add", "tanh(x) + 1"),
        (("tanh", "abs"), "mul", "tanh(x) * min(abs(x), 3.1622776601683795)"),
        (("square", "elu"), "mix", "elu(x) / 2 + square(min(max(x, -3.1622776601683795), 3.1622776601683795)) / 2"),
    ],
)
def test_formulas_for_reading(unary, binary, text):
    assert ONE_CORE.function(Genotype(unary, (binary,))).text == text


def test_trained_scalars_become_parameters_without_gaps():
    genotype = Genotype(("add_beta", "mul_beta", "identity", "mul_beta"), ("right", "mix"))
    function = GRAFS.function(genotype, {("unary", 1): 0.5, ("binary", 1): -1.0}, trained=True)
    assert function.text == "a * x * sigmoid(c) + b * x * sigmoid(-c)"
    assert function.constants == (("a", 0.5), ("b", 1.0), ("c", -1.0))
    module = function.make()
    assert {name: value.item() for name, value in module.named_parameters()} == dict(function.constants)


def test_a_name_is_given_only_to_the_same_function_everywhere():
    # Within 20 of 0, where functions are compared first, both are the square.
    wide = Space(unary=["square", "identity"], binary=["left"], cores=1, bound=900.0)
    assert wide.function(Genotype(("square", "identity"), ("left",))).text == "square(min(max(x, -30), 30))"


def test_the_one_core_space_has_1251_functions_up_to_scale_and_shift():
    start = time.perf_counter()
    found = ONE_CORE.distinct()
    assert time.perf_counter() - start < 10
    assert len(found) == len({ONE_CORE.fingerprint(one) for one in found}) == 1251
    sizes = [len(ONE_CORE.function(one).text) for one in found]
    assert ONE_CORE.function(found[0]).text == "x"
    assert np.mean(sizes[:100]) < np.mean(sizes[-100:]) / 2
    everything = {ONE_CORE.fingerprint(one) for one in ONE_CORE.genotypes()}
    assert everything == {None} | {ONE_CORE.fingerprint(one) for one in found}


@settings(max_examples=60, deadline=None)
@given(genotypes(GRAFS))
def test_fingerprints_ignore_scale_and_shift(genotype):
    # The negative and half of the function with itself, by other operations.
    spelled = Space(unary=UNARY, binary=BINARY, cores=3)
    (u0, u1, u2, u3), binary = genotype.unary, genotype.binary
    own = GRAFS.fingerprint(genotype)
    other = [
        Genotype((u0, u1, u2, u3, "negate", "tanh"), (*binary, "left")),
        Genotype((u0, u1, u2, u3, "add_beta", "const_beta"), (*binary, "mix")),
    ]
    for one in other:
        assert spelled.fingerprint(one) == own
        assert hash(spelled.fingerprint(one)) == hash(own)


@settings(max_examples=60, deadline=None)
@given(genotypes(GRAFS), st.lists(genotypes(ONE_CORE), min_size=40, max_size=40, unique=True))
def test_fingerprints_are_equal_where_a_scale_and_a_shift_fit(genotype, others):
    (u0, u1, *_), (b0, _) = genotype.unary, genotype.binary
    others = [*others, Genotype((u0, u1), (b0,)), Genotype((u1, u0), (b0,))]
    first = GRAFS.fingerprint(genotype)
    y = values(GRAFS, [genotype], WITHIN)[0].numpy()
    for other, row in zip(others, values(ONE_CORE, others, WITHIN).numpy(), strict=True):
        second = ONE_CORE.fingerprint(other)
        if first is None or second is None:
            continue
        basis = np.stack([row, np.ones_like(row)], axis=1)
        rest = y - basis @ np.linalg.lstsq(basis, y, rcond=None)[0]
        assert (first == second) == (np.abs(rest).max() < 1e-6 * y.std())


def test_candidates_are_the_same_where_functions_of_a_space_are():
    # The products by "mul" and by "gate" differ beyond 11 alone, where arsinh is above the root of the bound.
    unary = ("identity", "negate", "asinh", "sigmoid", "max0", "mul_beta")
    space = Space(unary=unary, binary=("add", "mul", "gate", "left"), cores=1)
    met = Shapes()
    for genotype in space.genotypes():
        candidate = Candidate((space.function(genotype),), "asked")
        if shape_of(candidate.functions[0]) is not None:
            met.add(candidate)
    assert len(met._keys) == len(space.distinct()) == 39


def test_neighbouring_roundings_are_one_class():
    rng = np.random.default_rng(0)
    base = rng.standard_normal((40, len(WITHIN)))
    copies = np.concatenate([base, -base * (1 + 1e-12), base + 1e-11 * rng.standard_normal(base.shape)])
    found = [*classes([*copies, None])]
    assert sorted(map(sorted, found)) == [[row, row + 40, row + 80] for row in range(40)]


def test_constants_and_overflows_have_no_fingerprint():
    assert ONE_CORE.fingerprint(Genotype(("const_beta", "tanh"), ("left",))) is None
    assert ONE_CORE.fingerprint(Genotype(("identity", "negate"), ("add",))) is None
    steep = Operation("steep", 1, lambda x, bound: (1e3 * x).exp(), lambda x, bound: x)
    assert Space(unary=[steep], binary=["left"], cores=1).fingerprint(Genotype(("steep", "steep"), ("left",))) is None


def test_operations_of_ones_own():
    space = Space(unary=["tanh", CUBED], binary=["add", "left"], cores=1)
    genotype = Genotype(("cubed_sine", "tanh"), ("add",))
    assert space.function(genotype).text == "tanh(x) + sin(x)**3"
    torch.testing.assert_close(values(space, [genotype], X)[0], X.sin() ** 3 + X.tanh())
    # The two, and their sum; twice one of them is that one.
    assert len(space.distinct()) == 3


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"unary": []}, UsageError, "a space needs at least one unary and one binary operation"),
        ({"binary": []}, UsageError, "a space needs at least one unary and one binary operation"),
        ({"unary": ["tahn"]}, OptionError, "no unary operation named 'tahn'; did you mean 'tanh'"),
        ({"binary": ["plus"]}, OptionError, "no binary operation named 'plus'; there are add, sub, mul"),
        ({"unary": "tanh"}, OptionError, "unary operations must be a list, got 'tanh'"),
        ({"unary": [7]}, OptionError, "no unary operation named 7; there are identity, negate"),
        ({"unary": ["tanh", "erf", "tanh"]}, OptionError, "unary operation 'tanh' is given twice"),
        ({"unary": [BINARY["add"]]}, OptionError, "unary operations have the arity 1, 'add' has 2"),
        ({"cores": 0}, OptionError, "cores must be a whole number from 1 on, got 0"),
        ({"cores": 1.5}, OptionError, "cores must be a whole number from 1 on, got 1.5"),
        ({"cores": True}, OptionError, "cores must be a whole number from 1 on, got True"),
        ({"bound": 0}, OptionError, "bound must be a finite number above 0, got 0"),
        ({"bound": float("inf")}, OptionError, "bound must be a finite number above 0, got inf"),
        ({"bound": float("nan")}, OptionError, "bound must be a finite number above 0, got nan"),
        ({"bound": "10"}, OptionError, "bound must be a finite number above 0, got '10'"),
    ],
)
def test_what_is_no_space_is_refused(options, error, sentence):
    with pytest.raises(error, match=sentence):
        Space(**options)


def test_unknown_and_too_large_spaces():
    with pytest.raises(UsageError, match="no space named 'one_core'; did you mean 'one-core'"):
        space_of("one_core")
    with pytest.raises(UsageError, match="no space named 3; there are grafs, one-core, and softknee.Space"):
        space_of(3)
    with pytest.raises(UsageError, match="a space of 22,667,121 genotypes is too large to enumerate, 200,000 "):
        GRAFS.distinct()
