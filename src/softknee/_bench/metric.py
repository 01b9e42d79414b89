"""What runs are ranked by, and its words. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from softknee._report.table import number, signed

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Metric:
    """A score of which more is better.

    Attributes:
        name: In the names of fields: `test_accuracy`, `best_test_accuracy`.
        title: In sentences.
        plural: Of several of it.
        sign: Behind a value of it, in sentences and heads: `"%"`, or empty where it is a plain number.
        noun: A difference of one, or empty where that is a plain number.
        adjective: Set before `noun` where there is room.
        digits: Decimals of a value in tables.
        coarse: Decimals of a difference in sentences.
        margin: Differences within it count as equivalent, unless asked for otherwise.
        low: Smallest value there is.
        high: Largest value there is.
        loss: What training minimizes.
        evaluated_on: What the score is taken over.
        sampled: Whether intervals are for new examples as well; otherwise they are for new seeds on the same examples.
    """

    name: str
    title: str
    plural: str
    sign: str
    noun: str
    adjective: str
    digits: int
    coarse: int
    margin: float
    low: float
    high: float
    loss: str
    evaluated_on: str
    sampled: bool

    @property
    def train(self) -> str:
        """Field of the score of each epoch's own batches."""
        return f"train_{self.name}"

    @property
    def test(self) -> str:
        """Field of the score after each epoch."""
        return f"test_{self.name}"

    @property
    def best(self) -> str:
        """Field of the best of these."""
        return f"best_test_{self.name}"

    @property
    def capital(self) -> str:
        """The title at the start of a sentence."""
        return self.title[0].upper() + self.title[1:]

    @property
    def head(self) -> str:
        """Head of a column of values."""
        return f"{self.capital} {self.sign}".strip()

    @property
    def axis(self) -> str:
        """Title of an axis or gallery of values."""
        return f"{self.title}, {self.sign}" if self.sign else self.title

    @property
    def unit(self) -> str:
        """Of a difference, in full: `"percentage points"`, or the metric itself."""
        return f"{self.adjective}{self.noun}s" if self.noun else self.title

    def value(self, score: float | None) -> str:
        """Return a score for a table."""
        return number(score, self.digits)

    def change(self, difference: float | None) -> str:
        """Return a difference for a table, with its sign."""
        return signed(difference, self.digits)

    def amount(self, difference: float | None, *, exact: bool = False) -> str:
        """Return the size of a difference for a sentence: `"1.3 points"`, `"0.12"`.

        Args:
            difference: It.
            exact: Whether to give it as it is, without rounding.

        Returns:
            The words.
        """
        text = f"{difference:g}" if exact else number(difference, self.coarse)
        return f"{text} {self.noun}s" if self.noun else text


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric(
                name="accuracy",
                title="accuracy",
                plural="accuracies",
                sign="%",
                noun="point",
                adjective="percentage ",
                digits=2,
                coarse=1,
                margin=0.5,
                low=0.0,
                high=100.0,
                loss="cross entropy",
                evaluated_on="the test set",
                sampled=True,
            ),
            Metric(
                name="r2",
                title="R²",
                plural="values of R²",
                sign="",
                noun="",
                adjective="",
                digits=3,
                coarse=3,
                margin=0.01,
                low=float("-inf"),
                high=1.0,
                loss="mean squared error",
                evaluated_on="the grid",
                sampled=False,
            ),
            Metric(
                name="saving",
                title="saving",
                plural="savings",
                sign="bits",
                noun="bit",
                adjective="",
                digits=3,
                coarse=3,
                margin=0.02,
                low=float("-inf"),
                high=8.0,
                loss="cross entropy",
                evaluated_on="the files held out for it",
                sampled=False,
            ),
        )
    }
)
