"""The child process of one slot: `python -m softknee._bench.worker`.

It reads jobs from standard input, a JSON line each, and answers on standard output with a JSON line per event. It stays
warm between jobs: a run's numbers depend on its specification alone, never on the process.
"""

from __future__ import annotations

import json
import os
import sys

from softknee._bench.runs import Job
from softknee._bench.train import execute


def main() -> None:
    """Serve jobs until standard input ends."""
    # Nothing but events may reach the parent's pipe, whatever libraries print.
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def send(**event: object) -> None:
        try:
            print(json.dumps(event), file=events, flush=True)
        except BrokenPipeError:
            # The parent is gone. The run goes on from its checkpoint in the next call; it has not failed,
            # and this process must not write into its folder any more.
            os._exit(1)

    for line in sys.stdin:
        job = Job.model_validate_json(line)
        status = execute(job, lambda epoch, score: send(event="epoch", epoch=epoch, score=score))
        send(event="end", status=status)


if __name__ == "__main__":
    main()
