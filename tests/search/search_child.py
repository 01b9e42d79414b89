"""Scores a candidate in a folder, slowly, to be killed."""

from __future__ import annotations

import time

from search_task import candidate, task, train_step

from softknee._search import train
from softknee._search.judge import Judge
from softknee._search.ledger import Ledger
from softknee._search.meter import Meter

EPOCHS = 6


def slow_step(model, batch):
    time.sleep(0.01)
    return train_step(model, batch)


def score(folder, step=slow_step):
    of = task(train_step=step, epochs=EPOCHS)
    judge = Judge(of, Meter(of.run_steps), Ledger(folder))
    # The second begins in the middle of an epoch.
    return [judge.score(candidate("x * tanh(a * x)", a=1.0), 1, part, phase="draw") for part in (0.25, 1.0)], judge


def score_and_save(folder):
    train.PATIENCE = 0.0
    score(folder)
