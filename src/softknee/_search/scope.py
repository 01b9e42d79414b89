"""Which sites get one function together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from softknee._errors import UsageError
from softknee._surgery.find import look
from softknee._surgery.select import select
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from torch import nn

    from softknee._surgery.find import Look
    from softknee._surgery.places import Site


@dataclass(frozen=True)
class Group:
    """Sites that one function acts at.

    Attributes:
        name: Of the group.
        sites: In the order of their calls.
    """

    name: str
    sites: tuple[Site, ...]


def check_scope(scope: Any, where: Any) -> None:
    """Refuse what is no scope.

    Raises:
        UsageError: Saying what is one.
    """
    if isinstance(scope, Mapping):
        if not scope or not all(isinstance(name, str) and name for name in scope):
            raise UsageError("scope must name its groups, as in {'encoder': 'encoder.*', 'decoder': 'decoder.*'}")
        if where is not None:
            raise UsageError("where goes with scope='all' or 'site'; a scope of groups says itself where each acts")
    elif scope not in {"all", "site"}:
        raise UsageError(f"scope must be 'all', 'site' or groups by name with where each acts, got {excerpt(scope)}")


def find_groups(
    model: nn.Module, example: Any, scope: str | Mapping[str, Any], where: Any
) -> tuple[tuple[Group, ...], tuple[str, ...]]:
    """Find the sites of a model and put them into groups.

    Args:
        model: It runs once if there is an example.
        example: Its arguments and named arguments, None if they are not known.
        scope: `"all"`, `"site"`, or what is meant by name, as `softknee.swap` takes it.
        where: Which sites, for the first two.

    Returns:
        The groups; and what could not be seen or is left, as texts.

    Raises:
        UsageError: There is no site, or a group is empty, or shares a site with another, or one cannot be changed.
    """
    inputs, keywords = example or ((), {})
    seen = look(model, inputs, keywords)
    if isinstance(scope, Mapping):
        groups = tuple(Group(name, _chosen(model, seen, one, f"group {name!r}")) for name, one in scope.items())
        _check_apart(groups)
    else:
        sites = _chosen(model, seen, where, "the model")
        groups = (Group("all", sites),) if scope == "all" else tuple(Group(site.name, (site,)) for site in sites)
    return groups, tuple(f"{one.path or 'the model'}: {one.reason}" for one in seen.sites.unseen)


def _chosen(model: nn.Module, seen: Look, where: Any, what: str) -> tuple[Site, ...]:
    stuck = {one.site: one.reason for one in seen.sites.unseen if one.site is not None}
    asked = select(where, [*seen.sites, *stuck], dict(model.named_modules(remove_duplicate=False)))
    if not asked:
        others = f"; there are {len(seen.sites)} others, such as {_described(seen.sites[0])}" if len(seen.sites) else ""
        notes = "".join(f"; not seen: {one.path or 'the model'}: {one.reason}" for one in seen.sites.unseen)
        raise UsageError(f"{what} has no activation to search for{others}{notes}")
    blocked = [site for site in asked if site in stuck]
    if blocked:
        raise UsageError(
            f"{len(blocked)} of {len(asked)} activations cannot be changed, first {blocked[0].name}: "
            f"{stuck[blocked[0]]}; name the others by where"
        )
    return tuple(asked)


def _check_apart(groups: tuple[Group, ...]) -> None:
    owners: dict[Site, str] = {}
    for group in groups:
        for site in group.sites:
            if site in owners:
                raise UsageError(f"{site.name} is in two groups of scope, {owners[site]!r} and {group.name!r}")
            owners[site] = group.name


def _described(site: Site) -> str:
    return f"{site.name} ({site.kind}, {site.role})"
