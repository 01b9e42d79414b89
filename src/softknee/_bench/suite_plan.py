"""A suite as it was asked for: a plan for each of its protocols."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softknee._bench.protocols import get_protocol
from softknee._bench.tasks import TASKS
from softknee._errors import OptionError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from softknee._bench.plan import Plan
    from softknee._bench.protocol import Protocol
    from softknee._bench.suite import Suite


def suite_plans(
    suite: Suite,
    folder: Path,
    asked: Callable[..., Plan],
    *,
    data: str | Path | None,
    final: bool,
    options: Mapping[str, Any],
) -> dict[str, Plan]:
    """Return a plan for each protocol of a suite, by name; nothing is written.

    Args:
        suite: It.
        folder: Of the suite; each study has one in it.
        asked: Makes a plan of a protocol, with all else that was asked for.
        data: Where the data come from; it goes to the protocols that can be told.
        final: Whether hidden protocols are among them.
        options: Each goes to the protocols that have it.

    Raises:
        UsageError: Or a subclass: no protocol takes data, there are no hidden ones, or a request cannot be met.
        OptionError: No protocol has an option.
    """
    if final and not suite.hidden:
        raise UsageError(f"final is for suites with hidden protocols; {suite.name} has none")
    protocols = [get_protocol(name) for name in suite.members(final=final)]
    theirs = divide_options(suite, protocols, options)
    given = {protocol.name: TASKS[protocol.recipe.task].given for protocol in protocols}
    if data is not None and not any(given.values()):
        raise UsageError(f"the protocols of {suite.name} make their data themselves; leave data out, got {str(data)!r}")
    return {
        protocol.name: asked(
            protocol.name,
            data=data if given[protocol.name] else None,
            out=folder / protocol.name,
            options=theirs[protocol.name],
        )
        for protocol in protocols
    }


def divide_options(
    suite: Suite, protocols: Sequence[Protocol], options: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return for each protocol of a suite, by name, those options that it has.

    Args:
        suite: It.
        protocols: Some of its protocols.
        options: What was asked for.

    Raises:
        OptionError: No protocol has an option.
    """
    known = {name for protocol in protocols for name in protocol.options}
    unknown = [name for name in options if name not in known]
    if unknown:
        raise OptionError(f"{unknown[0]!r} is no option of {suite.name}; it has {', '.join(sorted(known)) or 'none'}")
    return {
        protocol.name: {name: value for name, value in options.items() if name in protocol.options}
        for protocol in protocols
    }
