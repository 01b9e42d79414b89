"""A process that does runs: of a study's folder, or those that the process which started it asks for.

`python -m softknee._bench.worker FOLDER` helps with the study in that folder, beside any number of others on any number
of machines, until it is finished. Without a folder it reads shares of runs from standard input, a JSON line each, and
answers on standard output with a JSON line per event. It stays warm between them: a run's numbers depend on its
specification alone, never on the process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from softknee._bench.attempts import Watch
from softknee._bench.runs import SHARE
from softknee._bench.work import attempt, say, work_off
from softknee._errors import SoftkneeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from softknee._bench.runs import Job

EXIT_REFUSED = 2
EXIT_STOPPED = 75  # try again: it goes on where it was


def main(arguments: Sequence[str]) -> None:
    """Help with the study in a folder, or serve jobs until standard input ends.

    Args:
        arguments: The folder, if there is one.

    Raises:
        SystemExit: With 2 and one line where that cannot be done, with 75 after SIGTERM.
    """
    signal.signal(signal.SIGTERM, _stop)
    if not arguments:
        _serve()
        return
    try:
        work_off(Path(arguments[0]), say)
    except SoftkneeError as error:
        sys.stderr.write(f"softknee: {error}\n")
        raise SystemExit(EXIT_REFUSED) from None


def _serve() -> None:
    # Nothing but events may reach the parent's pipe, whatever libraries print.
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def send(**event: object) -> None:
        try:
            print(json.dumps(event), file=events, flush=True)
        except BrokenPipeError:
            # The parent is gone. The run has not failed: it is given up here, and goes on in the next call.
            raise SystemExit(1) from None

    watch = Watch()
    send(event="ready")
    for line in sys.stdin:
        jobs = SHARE.validate_json(line)
        try:
            statuses = attempt(jobs, watch, partial(_send_epoch, send, jobs))
        except SoftkneeError as error:
            send(event="refused", message=str(error))
        else:
            send(event="end", statuses=statuses)


def _send_epoch(send: Callable[..., None], jobs: Sequence[Job], job: Job, epoch: int, score: float) -> None:
    send(event="epoch", run=jobs.index(job), epoch=epoch, score=score)


def _stop(*_: object) -> NoReturn:
    # By an exception, so that the run is given up and another process need not wait for its lease to age.
    raise SystemExit(EXIT_STOPPED)


if __name__ == "__main__":
    main(sys.argv[1:])
