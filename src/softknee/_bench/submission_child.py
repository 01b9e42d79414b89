"""The child process of a submission: `python -m softknee._bench.submission_child`.

It reads one request from standard input, a JSON line, and answers on standard output with JSON lines. A request is a
check of a file, or a run. This is no sandbox: the code may do what its user may. It only cannot harm other runs by
dying or hanging.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softknee._bench.course import train
from softknee._bench.protocol import Recipe
from softknee._bench.runs import Job
from softknee._bench.submission_faults import examine
from softknee._bench.submission_guard import READY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def main() -> None:
    """Serve one request."""
    # Nothing but answers may reach the parent's pipe, whatever the submission prints.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def send(**answer: object) -> None:
        try:
            print(json.dumps(answer), file=answers, flush=True)
        except BrokenPipeError:
            os._exit(1)

    send(**READY)
    request = json.loads(sys.stdin.readline())
    _leave_with_parent()
    # A copy of the file is run, so that modules beside it are not there: neither here nor on another machine.
    here = Path.cwd()
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != here]
    _serve(request, send)


def _serve(request: Mapping[str, Any], send: Callable[..., None]) -> None:
    if "job" in request:
        job = Job.model_validate(request["job"])
        try:
            status = train(job, lambda epoch, score: send(event="epoch", epoch=epoch, score=score))
        except OSError as error:  # the disk's, whatever else is raised is the run's
            send(event="storage", error=[error.errno, error.strerror, str(error.filename or job.folder)])
        else:
            send(event="end", status=status)
        return
    recipe = Recipe.model_validate(request["recipe"])
    found = examine(Path(request["path"]), recipe, seed=request["seed"], stage=lambda name: send(stage=name))
    send(found=found)


def _leave_with_parent() -> None:
    """End when the parent is gone, and with it the other end of standard input, whatever the submission does."""
    pipe = sys.stdin.fileno()
    if sys.platform != "win32":
        import fcntl

        # A signal to the whole group, which ends also what the submission started, and code that never lets go of the
        # interpreter's lock, as long as a loop in C runs.
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=_leave_at_the_end_of, args=(pipe,), daemon=True).start()


def _leave_at_the_end_of(pipe: int) -> None:
    while os.read(pipe, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
