from __future__ import annotations

import json
import math
import re
import runpy
from pathlib import Path

import pytest
import torch

from softknee._diagnose.dynamics.demo import activation_potential, dynamics_demo
from softknee._diagnose.dynamics.dynamics import fokker_planck, langevin, prelu_student
from softknee._errors import UsageError


def parabola(curvature):
    return lambda w: curvature * w.square() / 2


def test_t21_langevin_on_a_parabola_has_its_exact_variance_at_a_finite_rate():
    # The rate is large enough that the answer of rate 0, 0.125, would be refused.
    curvature, beta, rate = 2.0, 4.0, 0.125
    exact = 1 / (beta * curvature * (1 - rate * curvature / 2))
    assert exact == pytest.approx(0.142857, abs=1e-6)
    chains = langevin(
        parabola(curvature), torch.zeros(2000, dtype=torch.float64), rate=rate, beta=beta, steps=340, every=20, burn=40
    )
    assert chains.shape == (15, 2000)
    # 30,000 nearly independent states: the standard error of the variance is 0.8 %.
    assert float(chains.var()) == pytest.approx(exact, rel=0.025)
    assert float(chains.mean()) == pytest.approx(0, abs=0.01)


def test_langevin_repeats_by_its_seed_and_draws_nothing_else():
    before = torch.get_rng_state()
    options = {"rate": 0.1, "beta": 1.0, "steps": 5}
    first, second, other = (langevin(parabola(1.0), torch.ones(3), seed=seed, **options) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_langevin_without_noise_is_gradient_descent():
    found = langevin(parabola(1.0), torch.ones(1), rate=0.1, beta=math.inf, steps=10)
    assert float(found[-1]) == pytest.approx(0.9**10)


def test_t22_fokker_planck_on_a_parabola_has_its_exact_variance_and_keeps_its_mass():
    curvature, beta, start = 2.0, 10.0, 0.5
    times = (0.0, 0.1, 0.3, 1.0, 5.0)
    found = fokker_planck(parabola(curvature), beta=beta, times=times, low=-4, high=4, start=(0.3, start))
    decay = torch.tensor([math.exp(-2 * curvature * time) for time in times], dtype=torch.float64)
    exact = start**2 * decay + (1 - decay) / (beta * curvature)
    assert torch.allclose(found.variance, exact, rtol=2e-3)
    assert torch.allclose(found.mean, 0.3 * decay.sqrt(), atol=3e-4)
    assert (found.mass - 1).abs().max() < 1e-12
    assert (found.density >= 0).all()


def test_t22_the_error_falls_with_the_square_of_the_cells_width():
    errors = []
    for cells in (50, 100, 200):
        found = fokker_planck(parabola(2.0), beta=10, times=[0.2], low=-4, high=4, start=(0.0, 0.5), cells=cells)
        decay = math.exp(-0.8)
        errors.append(abs(float(found.variance) - (0.25 * decay + (1 - decay) / 20)))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("cells", [20, 200])
def test_t22_the_boltzmann_density_stays_as_it_is_on_any_grid(cells):
    def rough(w):
        return 3 * torch.sin(3 * w) + w.abs()

    def boltzmann(w):
        return torch.exp(-5 * rough(w))

    found = fokker_planck(rough, beta=5.0, times=[0.0, 1.0, 50.0], low=-3, high=2, start=boltzmann, cells=cells)
    assert torch.allclose(found.density, found.stationary.expand(3, -1), rtol=1e-9, atol=0)
    assert (found.mass - 1).abs().max() < 1e-12


def test_t22_anything_ends_at_the_boltzmann_density():
    found = fokker_planck(
        activation_potential("gelu"), beta=3.0, times=[400.0], low=-3, high=3, start=(-1.0, 0.2), cells=120
    )
    assert torch.allclose(found.density[0], found.stationary, rtol=1e-6)


def test_t27_the_slope_of_a_prelu_student_approaches_its_teachers_at_half_the_rate():
    start, teacher, rate, steps = 0.25, 0.5, 0.05, 30
    found = prelu_student(start=start, teacher=teacher, rate=rate, steps=steps, runs=4000)
    for step in (1, 10, steps):
        distance = found[step] - teacher
        exact = (start - teacher) * (1 - rate / 2) ** step
        assert abs(float(distance.mean()) - exact) < 4 * float(distance.std()) / math.sqrt(4000)
    # The exact factor of a step is told from the rate's own.
    assert abs((start - teacher) * (1 - rate) ** steps - float((found[steps] - teacher).mean())) > 0.05


def test_the_loss_of_one_weight_is_flat_where_its_activation_is():
    weights = torch.tensor([-2.0, -0.5, 0.5, 2.0], dtype=torch.float64)
    assert activation_potential("relu")(weights).tolist() == pytest.approx([0.125, 0.125, 0, 1.125])
    two = activation_potential(torch.tanh, inputs=(1.0, -2.0), targets=(0.5, 0.0))(weights)
    wanted = ((weights.tanh() - 0.5).square() + (-2 * weights).tanh().square()) / 4
    assert torch.allclose(two, wanted)


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_chains_have_the_density_of_the_equation(name, tmp_path):
    found = dynamics_demo(name, chains=3000)
    # 50 bins of 3000 samples differ from the truth by about 4 %, of which a wrong temperature would make 15 and more.
    assert float(found.distance().max()) < 0.08
    hotter = dynamics_demo(name, chains=3000, beta=8.0)
    off = (hotter.histogram - found.histogram).abs().sum(1) * 0.2 / 2
    assert float(off[-1]) > 0.12
    found.write_svg(tmp_path / "demo.svg")
    assert (tmp_path / "demo.svg").read_text().count("<title>") >= 7
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_example_draws_and_says_what_escaped(tmp_path, monkeypatch, capsys):
    example = Path(__file__).parents[2] / "examples" / "dynamics.py"
    monkeypatch.setattr("sys.argv", ["dynamics.py", "-a", "relu", "--out", str(tmp_path)])
    runpy.run_path(str(example), run_name="__main__")
    assert re.search(r"relu +0.5: 0.00  2: 0.04  8: 0.23", capsys.readouterr().out)
    assert (tmp_path / "dynamics-relu.svg").exists()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: langevin(parabola(1), torch.zeros(1), rate=0.0, beta=1, steps=1), "rate must be a positive number"),
        (lambda: langevin(parabola(1), torch.zeros(1), rate=1, beta=1, steps=0), "steps must be a whole number"),
        (lambda: langevin(parabola(1), torch.zeros(1), rate=1, beta=1, steps=3, burn=3), "burn must be below the 3"),
        (lambda: langevin(parabola(9e9), torch.ones(1), rate=1, beta=1, steps=9), "diverged within 9 steps"),
        (lambda: fokker_planck(parabola(1), beta=1, times=[2, 1], low=0, high=1, start=(0, 1)), "times must ascend"),
        (lambda: fokker_planck(parabola(1), beta=1, times=[1], low=1, high=1, start=(0, 1)), "low must be below high"),
        (lambda: fokker_planck(parabola(1), beta=1, times=[1], low=0, high=1, start=(99, 1)), "must be a density"),
        (lambda: fokker_planck(torch.log, beta=1, times=[1], low=-1, high=1, start=(0, 1)), "potential must return a"),
        (
            lambda: fokker_planck(parabola(1), beta=1, times=[1], low=0, high=1, start=(0, 1), cells=5000),
            "from 10 to 2000, got 5000",
        ),
        (lambda: activation_potential("softmax"), "single elements; softmax is not one"),
        (lambda: activation_potential("relu", targets=()), "as many targets as inputs"),
    ],
)
def test_options_are_checked(call, sentence):
    with pytest.raises(UsageError, match=sentence):
        call()
