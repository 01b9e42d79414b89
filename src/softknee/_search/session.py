"""A search as it goes: baselines once, a method or proposals from outside, and the proof by training anew."""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from softknee._errors import UsageError
from softknee._extras import require
from softknee._search.arguments import baselines_of, budget_of, seeds_of, settings_of
from softknee._search.candidate import Candidate
from softknee._search.checks import check_callable
from softknee._search.judge import Judge
from softknee._search.ledger import Ledger
from softknee._search.meter import SLACK, Meter
from softknee._search.method import FIRST_RUN, PARTS, method_of
from softknee._search.outcome import outcome, stored, write
from softknee._search.proposals import ASKED, Asked, asked, proposal
from softknee._search.rows import BASELINES
from softknee._search.shapes import Shapes
from softknee._search.space import Space, space_of
from softknee._search.task import Task
from softknee._search.verdict import decide, title
from softknee._search.verify import LADDER, SHARE, check_paid, finals, heats, places_for, price, test_losses

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from softknee._search.judge import Score
    from softknee._search.result import Result
    from softknee._search.task import MakeModel, MakeOptimizer, TrainStep
    from softknee._search.verify import Places

USUAL = ("relu", "gelu", "silu", "mish", "prelu", "swish")
COURSE = "course"


class Search:
    """A search that is made step by step: by a method, or by proposals from outside. See `softknee.search`.

    Args:
        make_model: Makes a new model, freshly initialised.
        train_step: Takes the model and a batch and returns the loss, one number.
        train_batches: Batches that can be read again and again: a list, a DataLoader.
        val_batches: The same, to select by.
        test_batches: The same, for the one final reading. Without them the claim is on validation data.
        optimizer: Makes the optimizer of a list of parameters.
        epochs: Of a full run.
        space: `"one-core"`, `"grafs"` or a `softknee.Space`.
        scope: One function for `"all"` sites, for each `"site"`, or for groups by name with where each acts.
        where: Which activations, as `softknee.swap` takes it.
        budget: What may be spent, in training runs; verification and failed runs count.
        seeds: Paired runs of verification, 2 at least.
        seed: Of everything.
        baselines: What is to be beaten, as `softknee.create` or the command line take it. What the model has
            joins them.
        out: Folder for the result, its page and all that is needed to go on after an interruption.
        progress: Is told what goes on, in short texts.

    Raises:
        UsageError: Or a subclass: something cannot be searched for or is out of range; nothing has been trained.
    """

    def __init__(
        self,
        make_model: MakeModel,
        train_step: TrainStep,
        train_batches: Iterable[Any],
        val_batches: Iterable[Any],
        test_batches: Iterable[Any] | None = None,
        *,
        optimizer: MakeOptimizer,
        epochs: int = 20,
        space: str | Space = "one-core",
        scope: str | Mapping[str, Any] = "all",
        where: Any = None,
        budget: float = 20.0,
        seeds: int = 3,
        seed: int = 0,
        baselines: Sequence[str] = USUAL,
        out: str | os.PathLike[str] | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        for module in ("scipy.special", *(() if out is None else ("jinja2",))):
            require(module, extra="bench")
        self._progress = progress or (lambda _: None)
        check_callable(progress=self._progress)
        self._space, self._seeds, self._budget = space_of(space), seeds_of(seeds), budget_of(budget)
        self._task = Task(
            make_model,
            train_step,
            train_batches,
            val_batches,
            test_batches,
            optimizer=optimizer,
            epochs=epochs,
            where=where,
            scope=scope,
            seed=seed,
        )
        self._baselines = baselines_of(baselines, self._task)
        self._ledger = Ledger(out)
        self._judge = self._fresh_judge()
        self._found: list[Candidate] = []
        self._result: Result | None = None
        self._check_budget(1.0)
        self._settings = settings_of(
            self._task, self._space, scope, self._baselines, where=where, budget=self._budget, seeds=self._seeds
        )
        with self._ledger.held():
            self._ledger.settle(self._settings)
            self._told = [Candidate.from_json(one) for one in self._course()["told"]]

    def run(self, method: str = "auto") -> Result:
        """Search by a method with all that verification leaves of the budget, and verify.

        Args:
            method: `"auto"`, `"grafs"`, `"enumerate"`, `"halving"`, `"evolve"` or `"random"`.

        Returns:
            What was found.

        Raises:
            UsageError: There is no such method, the budget is too small for it, or this search has ended or goes on by
                another method.
        """
        chosen = method_of(method)
        self._check_going()
        chosen.check(self._task, self._space)
        least = chosen.least_for(self._task)
        self._check_budget(least)
        with self._ledger.held():
            self._note(self._told, method=method)
            finished = self._finished(method)
            if finished is None:
                self._afresh()
                runs = self._for_search(least)
                self._progress(f"{method}: {runs:.1f} training runs to search with")
                rng = np.random.default_rng([self._task.seed, zlib.crc32(method.encode())])
                with self._judge.meter.limited(runs):
                    self._found = chosen.find(self._judge, self._space, self._known(), runs, rng)
                finished = self._verify(method)
            self._result = finished
        return finished

    def ask(self) -> Asked:
        """Say what has been tried and what may be proposed, for a person or a program.

        Returns:
            What was tried, best first; how many proposals can be tried; and what formulas may use.

        Raises:
            UsageError: This search has ended.
        """
        self._check_going()
        with self._ledger.held():
            self._begin()
        trials = int(self._for_proposals() / self._judge.price(phase=ASKED) + SLACK)
        return asked(self._judge, self._space, max(trials, 0))

    def tell(self, proposed: str | Mapping[str, str], /, **constants: float) -> Score:
        """Try a proposal in one full run, judged as all others are.

        Args:
            proposed: A formula, or a name of the catalogue; or one for each group of sites by its name.
            **constants: Values of names in the formula, which stay as they are.

        Returns:
            How it did in run 0; what was tried before under another name costs nothing.

        Raises:
            UsageError: Or a subclass: it is no formula of single elements, is constant, comes behind a method, or the
                rest of the budget is needed for verification. Nothing was spent.
        """
        self._check_going()
        candidate = proposal(proposed, constants, self._task)
        with self._ledger.held():
            self._begin()
            self._checked_course(None)
            same = Shapes([*self._baselines, *self._told]).find(candidate)
            if same is None:
                left = self._for_proposals()
                if self._judge.price(phase=ASKED) > left + SLACK:
                    raise UsageError(
                        f"{left:.1f} training runs are left beside those for verification, and a proposal costs "
                        f"{self._judge.price(phase=ASKED):.1f}; result() verifies what there is"
                    )
                self._note([*self._told, candidate], method=None)
            return self._judge.score(same or candidate, FIRST_RUN, phase=ASKED)

    def result(self) -> Result:
        """Verify what was found, at the first call.

        Returns:
            The outcome.
        """
        if self._result is None:
            with self._ledger.held():
                self._note(self._told, method=ASKED)
                finished = self._finished(ASKED)
                if finished is None:
                    self._afresh()
                    finished = self._verify(ASKED)
                self._result = finished
        return self._result

    def _check_going(self) -> None:
        """Refuse to go on behind the end.

        Raises:
            UsageError: This search has ended.
        """
        if self._result is not None:
            raise UsageError("this search has ended, and its test data are read; result() is its outcome")

    def _check_budget(self, least: float) -> None:
        """See that everything can be paid.

        Args:
            least: Full runs that the search itself needs.

        Raises:
            UsageError: It cannot; the message says what would do.
        """
        count, least_runs = len(self._baselines), least * self._screening_price()
        smallest = count * self._screening_price() + price(self._judge, LADDER[0], self._seeds) + least_runs
        if self._budget < smallest:
            raise UsageError(
                f"a budget of {self._budget:g} runs is too small for one verification; the smallest that works here is "
                f"{math.ceil(10 * smallest - 1e-6) / 10:g} ({count} baselines once, one of them and one candidate with "
                f"{self._seeds} seeds, and the least of the search)"
            )

    def _screening_price(self) -> float:
        """Return what one full run costs that is looked at on its way."""
        before = (0.0, *PARTS[:-1])
        return sum(
            self._judge.price(part, phase=BASELINES, after=done) for part, done in zip(PARTS, before, strict=True)
        )

    def _fresh_judge(self) -> Judge:
        return Judge(self._task, Meter(self._task.run_steps, self._budget, self._progress), self._ledger)

    def _afresh(self) -> None:
        """Begin again, so that it makes no difference whether all this was interrupted before; nothing is lost."""
        self._judge, self._found = self._fresh_judge(), []
        self._begin()

    def _begin(self) -> None:
        """Train the baselines, and proposals from before an interruption, once each."""
        trained = {one.candidate.key for one in self._judge.scores}
        for number, candidate in enumerate(self._baselines, 1):
            if candidate.key not in trained:
                self._progress(f"baseline {number} of {len(self._baselines)}: {candidate.name}")
            for part in PARTS:
                self._judge.score(candidate, FIRST_RUN, part, phase=BASELINES)
        for candidate in self._told:
            self._judge.score(candidate, FIRST_RUN, phase=ASKED)

    def _known(self) -> list[Candidate]:
        """Return the baselines that did not fail, best first.

        Raises:
            UsageError: All have failed.
        """
        losses = {one: self._judge.score(one, FIRST_RUN, phase=BASELINES) for one in self._baselines}
        good = sorted((one for one in losses if losses[one].failure is None), key=lambda one: losses[one].loss)
        if not good:
            first = self._baselines[0]
            raise UsageError(
                f"every baseline failed, so there is nothing to beat; {title(first)}: {losses[first].failure}"
            )
        return good

    def _for_search(self, least: float) -> float:
        """Return the runs that a method may spend, of which it needs so many full ones."""
        left = self._judge.meter.left
        spare = min(SHARE * left, left - least * self._screening_price())
        return left - price(self._judge, self._places(spare, LADDER[-1].candidates), self._seeds)

    def _places(self, runs: float, candidates: int) -> Places:
        """Return who can take part in a verification."""
        known = len(self._known())
        return places_for(self._judge, runs, self._seeds, candidates=candidates, baselines=known)

    def _for_proposals(self) -> float:
        """Return the runs that proposals may spend: all but the smallest verification."""
        return self._judge.meter.left - price(self._judge, LADDER[0], self._seeds)

    def _verify(self, method: str) -> Result:
        """Hold the finals and write down what they show.

        Raises:
            UsageError: The search has left too little for them.
        """
        known, notes = self._known(), []
        met = Shapes(known)
        found: list[Candidate] = []
        for candidate in self._ranked():
            same = met.add(candidate)
            if same is None:
                found.append(candidate)
            elif same in known:
                notes.append(f"{candidate.name}, which was found, is {title(same)} up to a scale and a shift")
        places = self._places(self._judge.meter.left, len(found))
        check_paid(self._judge, places, self._seeds)
        chosen = heats(self._judge, found[: places.candidates], self._progress)
        if found and not chosen:
            notes.append(f"all {places.candidates} candidates failed in the runs that choose one for the finals")
        if places.baselines < len(self._baselines):
            best = "the best" if places.baselines == 1 else f"the {places.baselines} best"
            notes.append(f"of {len(self._baselines)} baselines, only {best} of one run each came to the finals")
        earlier = stored(self._ledger.folder) if self._task.test_steps else None
        if earlier is not None:
            notes.append(f"the test data had been read before, with a budget of {earlier.cost.budget:g} runs")
        ended = finals(self._judge, chosen, known[: places.baselines], self._seeds, self._progress)
        reads = self._test_losses if self._task.test_steps else None
        verdict = decide(ended, known[0], reads)
        result = outcome(self._judge, self._baselines, ended, verdict, notes, self._settings, method)
        self._progress(result.verdict)
        if self._ledger.folder is not None:
            write(result, self._ledger.folder)
        return result

    def _test_losses(self, candidate: Candidate) -> NDArray[np.float64]:
        return test_losses(self._judge, candidate, self._seeds)

    def _ranked(self) -> list[Candidate]:
        """Return what was found in the order of the method, with each proposal before the first that did worse."""
        full = {one.candidate.key: one.loss for one in self._judge.scores if (one.run, one.part) == (FIRST_RUN, 1.0)}
        order = [*self._found]
        for candidate in [one for one in self._told if full[one.key] < math.inf]:
            worse = (index for index, other in enumerate(order) if full.get(other.key, math.inf) > full[candidate.key])
            order.insert(next(worse, len(order)), candidate)
        return order

    def _course(self) -> dict[str, Any]:
        """Return what was done so far: proposals, and the method once it has begun."""
        return self._ledger.read(COURSE) or {"told": [], "method": None}

    def _checked_course(self, method: str | None) -> dict[str, Any]:
        """Return what was done so far.

        Args:
            method: That goes on now, None for a proposal.

        Raises:
            UsageError: It was begun by another method.
        """
        before, folder = self._course(), self._ledger.folder
        if before["method"] not in {None, method}:
            where, other = ("", "a new Search") if folder is None else (f" in {folder}", "another folder as out")
            given = "a proposal comes too late" if method is None else f"now it is {method!r}"
            raise UsageError(
                f"the search{where} goes by method={before['method']!r}, {given}; give the same to go on, or {other}"
            )
        return before

    def _note(self, told: list[Candidate], *, method: str | None) -> None:
        """Write down the course of the search."""
        before = self._checked_course(method)
        now = {"told": [one.to_json() for one in told], "method": method}
        if now != before:
            self._ledger.write(COURSE, now)
        self._told = told

    def _finished(self, method: str) -> Result | None:
        """Return the result that was written, None if there is none or it was of a smaller budget."""
        result = stored(self._ledger.folder)
        same = result is not None and result.cost.budget == self._budget and result.settings["method"] == method
        return result if same else None
