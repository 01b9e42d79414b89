"""Which of a model's activations a swap is about."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from torch import nn

from softknee._errors import UsageError, did_you_mean
from softknee.nn.names import BY_NAME
from softknee.nn.values import excerpt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from softknee._surgery.places import Site

Where = str | type[nn.Module] | Callable[..., Any]
# What is swapped where nothing is said: not the gates of attention, not what the model returns.
_USUAL = ("activation", "pair")


def select(where: Any, sites: Sequence[Site], modules: dict[str, nn.Module]) -> list[Site]:
    """Return the places meant.

    Args:
        where: None for all activations but gates, outputs and softmaxes; a kind (`"gelu"`), a role (`"gate"`), a path
            or a pattern of paths (`"layers.*.act"`), a class, a function of a site; or several of these.
        sites: All places.
        modules: Of the model, by their paths.

    Returns:
        Those of them that match one.

    Raises:
        UsageError: It is none of these, or a text that nothing matches.
    """
    wanted = list(where) if isinstance(where, list | tuple | set | frozenset) else [where]
    if not wanted:
        raise UsageError("where must not be an empty list")
    chosen = [_matching(one, sites, modules) for one in wanted]
    return [site for site in sites if any(site in some for some in chosen)]


def _is_meant(where: Callable[..., Any], site: Site) -> bool:
    """Return what a function says of a place.

    Raises:
        UsageError: It raises an error, as a function of a tensor does.
    """
    try:
        return bool(where(site))
    except Exception as error:  # anybody's function may raise anything
        raise UsageError(
            f"where was called with {site.name}, a Site, and raised {type(error).__name__}: {error}; activations that "
            f"are functions are meant by their kind, as in where={site.kind!r}"
        ) from error


def _matching(where: Any, sites: Sequence[Site], modules: dict[str, nn.Module]) -> list[Site]:
    if where is None:
        return [site for site in sites if site.role in _USUAL]
    if isinstance(where, type):
        return [site for site in sites if site.place.module and isinstance(modules.get(site.path), where)]
    if isinstance(where, nn.Module) or not (callable(where) or isinstance(where, str)):
        raise UsageError(f"where must be a kind, a path pattern, a class or a function of a site, got {excerpt(where)}")
    if callable(where):
        return [site for site in sites if _is_meant(where, site)]
    kind = BY_NAME[where].name if where in BY_NAME else where
    found = [site for site in sites if site.kind == kind]
    found = found or [site for site in sites if site.role == where]
    found = found or [site for site in sites if where in {site.path, site.name} or fnmatchcase(site.path, where)]
    if not found:
        kinds = list(dict.fromkeys(site.kind for site in sites))
        paths = [site.path for site in sites if site.path]
        hint = did_you_mean(where, dict.fromkeys([*kinds, *paths])) or ";"
        there = f"the model has {', '.join(kinds)}" if kinds else "the model has none that could be seen"
        raise UsageError(f"where={where!r} matches no activation{hint} {there}")
    return found
