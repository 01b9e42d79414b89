"""A search as it goes: baselines once, a method or proposals from outside, and the proof by training anew."""

from __future__ import annotations

import json
import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from softknee._errors import DataError, UsageError
from softknee._extras import require
from softknee._report.files import write_atomic
from softknee._search.arguments import baselines_of, budget_of, seeds_of, settings_of
from softknee._search.candidate import Candidate
from softknee._search.judge import Judge
from softknee._search.ledger import Ledger
from softknee._search.meter import Meter
from softknee._search.method import FIRST_RUN, PARTS, method_of
from softknee._search.outcome import outcome
from softknee._search.proposals import ASKED, Asked, asked, proposal
from softknee._search.result import Result
from softknee._search.rows import BASELINES
from softknee._search.shapes import Shapes
from softknee._search.space import Space, space_of
from softknee._search.task import Task
from softknee._search.verdict import decide, title
from softknee._search.verify import LADDER, SHARE, finals, heats, places_for, price, test_losses

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from softknee._search.judge import Score
    from softknee._search.task import MakeModel, MakeOptimizer, TrainStep
    from softknee._search.verify import Places

USUAL = ("relu", "gelu", "silu", "mish", "prelu", "swish")
COURSE = "course"
# Files in the folder of a search.
RESULT, PAGE, MODULE = "result.json", "report.html", "best.py"


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
        self._meter = Meter(self._task.run_steps, self._budget)
        self._judge = Judge(self._task, self._meter, self._ledger)
        self._progress = progress or (lambda _: None)
        self._found: list[Candidate] = []
        self._result: Result | None = None
        self._check_budget(1.0)
        self._settings = settings_of(
            self._task, self._space, scope, self._baselines, budget=self._budget, seeds=self._seeds
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
        self._check_budget(chosen.least)
        with self._ledger.held():
            self._note(method=method)
            finished = self._finished(method)
            if finished is None:
                self._begin()
                runs = self._for_search()
                self._progress(f"{method}: {runs:.1f} training runs to search with")
                rng = np.random.default_rng([self._task.seed, zlib.crc32(method.encode())])
                with self._meter.limited(runs):
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
        return asked(self._judge, self._space, int(self._for_proposals() / self._judge.price(phase=ASKED)))

    def tell(self, proposed: str | Mapping[str, str], /, **constants: float) -> Score:
        """Try a proposal in one full run, judged as all others are.

        Args:
            proposed: A formula, or a name of the catalogue; or one for each group of sites by its name.
            **constants: Values of names in the formula, which stay as they are.

        Returns:
            How it did in run 0; what was tried before under another name costs nothing.

        Raises:
            UsageError: Or a subclass: it is no formula of single elements, is constant, or the rest of the budget is
                needed for verification. Nothing was spent.
        """
        self._check_going()
        candidate = proposal(proposed, constants, self._task)
        with self._ledger.held():
            self._begin()
            same = Shapes([*self._baselines, *self._told]).find(candidate)
            if same is None:
                left = self._for_proposals()
                if self._judge.price(phase=ASKED) > left:
                    raise UsageError(
                        f"{left:.1f} training runs are left beside those for verification, and a proposal costs "
                        f"{self._judge.price(phase=ASKED):.1f}; result() verifies what there is"
                    )
                self._told.append(candidate)
                self._note(method=None)
            return self._judge.score(same or candidate, FIRST_RUN, phase=ASKED)

    def result(self) -> Result:
        """Verify what was found, at the first call.

        Returns:
            The outcome.
        """
        if self._result is None:
            with self._ledger.held():
                self._note(method=ASKED)
                finished = self._finished(ASKED)
                if finished is None:
                    self._begin()
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

    def _begin(self) -> None:
        """Train the baselines, and proposals from before an interruption, once each."""
        for number, candidate in enumerate(self._baselines, 1):
            if (candidate.key, FIRST_RUN, 1.0) not in {
                (one.candidate.key, one.run, one.part) for one in self._judge.scores
            }:
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

    def _for_search(self) -> float:
        """Return the runs that a method may spend."""
        return self._meter.left - price(
            self._judge, self._places(SHARE * self._meter.left, LADDER[-1].candidates), self._seeds
        )

    def _places(self, runs: float, candidates: int) -> Places:
        """Return who can take part in a verification."""
        known = len(self._known())
        return places_for(self._judge, runs, self._seeds, candidates=candidates, baselines=known)

    def _for_proposals(self) -> float:
        """Return the runs that proposals may spend: all but the smallest verification."""
        return self._meter.left - price(self._judge, LADDER[0], self._seeds)

    def _verify(self, method: str) -> Result:
        """Hold the finals and write down what they show."""
        known, notes = self._known(), []
        met = Shapes(known)
        found: list[Candidate] = []
        for candidate in self._ranked():
            same = met.add(candidate)
            if same is None:
                found.append(candidate)
            elif same in known:
                notes.append(f"{candidate.name}, which was found, is {title(same)} up to a scale and a shift")
        places = self._places(self._meter.left, len(found))
        chosen = heats(self._judge, found[: places.candidates], self._progress)
        ended = finals(self._judge, chosen, known[: places.baselines], self._seeds, self._progress)
        reads = self._test_losses if self._task.test_steps else None
        verdict = decide(ended, known[0], reads)
        result = outcome(self._judge, self._baselines, ended, verdict, notes, self._settings, method)
        self._progress(result.verdict)
        self._write(result)
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

    def _note(self, *, method: str | None) -> None:
        """Write down the course of the search.

        Raises:
            UsageError: It was begun by another method.
        """
        before = self._course()
        if before["method"] is not None and before["method"] != method:
            raise UsageError(
                f"the search in {self._ledger.folder} goes by method={before['method']!r}, now it is {method!r}; "
                "give the same to go on, or another folder as out"
            )
        now = {"told": [one.to_json() for one in self._told], "method": method}
        if now != before:
            self._ledger.write(COURSE, now)

    def _finished(self, method: str) -> Result | None:
        """Return the result that was written, None if there is none or it was of a smaller budget.

        Raises:
            DataError: It is damaged.
        """
        path = None if self._ledger.folder is None else self._ledger.folder / RESULT
        if path is None or not path.is_file():
            return None
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path} is damaged; delete it, and it is made again") from error
        result = Result.from_json(data)
        return result if result.cost.budget == self._budget and result.settings["method"] == method else None

    def _write(self, result: Result) -> None:
        """Write the files; the result comes last, for it says that all is done."""
        folder = self._ledger.folder
        if folder is not None:
            write_atomic(folder / MODULE, result.best.source())
            result.to_html(folder / PAGE)
            result.save(folder / RESULT)
