"""Changes the activations of any model in one call, and tells what came of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from softknee._catalogue import parse_choice
from softknee._errors import UsageError
from softknee._surgery.build import build, fit_in, place_of
from softknee._surgery.example import arguments, check_unwrapped
from softknee._surgery.find import Look, checked, is_compiled, look
from softknee._surgery.install import SWAPS, Changes, Installer, undo
from softknee._surgery.mimic import Mimic
from softknee._surgery.observe import tensors_of
from softknee._surgery.places import Misfit, Site, Unseen, aligned
from softknee._surgery.redirect import NOT_ONE_BY_ONE, Experts
from softknee._surgery.select import select
from softknee._surgery.untouched import gradients_on_demand, untouched

if TYPE_CHECKING:
    from collections.abc import Mapping

    from softknee._surgery.build import Replacement
    from softknee._surgery.places import Place
    from softknee._surgery.select import Where


@dataclass(frozen=True)
class Change:
    """One activation that was replaced.

    Attributes:
        site: Where, and what was there.
        path: Of the new activation.
        activation: The new activation, as text.
        error: Largest distance from the function that it imitates in the range seen, None if it imitates none.
    """

    site: Site
    path: str
    activation: str
    error: float | None = None


@dataclass(frozen=True, repr=False)
class Report:
    """What a swap has changed, and what not.

    Attributes:
        changed: What was replaced, in the order of calls.
        left: Activations that were not asked for.
        missed: What could not be seen or not be changed, with the reasons.
        added_parameters: How many numbers the model has to train more than before.
        difference: Largest difference of the model's outputs from before, None without an example or on `meta`.
    """

    changed: tuple[Change, ...]
    left: tuple[Site, ...]
    missed: tuple[Unseen, ...]
    added_parameters: int
    difference: float | None

    def __repr__(self) -> str:
        rows = [("place", "was", "is now", "at", "error"), *map(_row, self.changed)]
        return "\n".join([*(aligned(rows) if self.changed else []), *self._notes()])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{one}</th>" for one in ("place", "was", "is now", "at", "error"))
        rows = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in _row(change))}</tr>" for change in self.changed
        )
        return f"<table><tr>{head}</tr>{rows}</table>{''.join(f'<p>{escape(note)}</p>' for note in self._notes())}"

    def _notes(self) -> list[str]:
        counts = f"{len(self.changed)} changed, {len(self.left)} left, {len(self.missed)} not seen or not changed"
        notes = [f"{counts}; {self.added_parameters:+,} parameters"]
        if self.difference is not None:
            notes.append(f"largest difference of the outputs: {self.difference:.3g}")
        notes += [f"left: {site.name}: {site.kind} ({site.role})" for site in self.left]
        return notes + [f"not seen or not changed: {one.path or 'the model'}: {one.reason}" for one in self.missed]


# Parameters that are made in inference mode could not be trained.
@torch.inference_mode(mode=False)
def swap(
    model: nn.Module,
    to: Replacement,
    where: Where | list[Where] | None = None,
    like: str | None = None,
    example_inputs: Any = None,
    per_channel: bool = False,
    shared: bool = False,
    *,
    per_expert: bool = False,
    strict: bool = True,
) -> tuple[nn.Module, Report]:
    """Replace activations of a model, in place.

    Functions are replaced as well as modules, without a change of the model's code: the module that calls them calls a
    new submodule instead. Names in the state dict of what is not replaced stay. The model can be trained, moved, saved,
    copied, compiled and exported as before; `unswap` undoes the swap. Swap before compiling or wrapping a model.

    Args:
        model: Any module. Nothing of it is changed if an error is raised.
        to: What to put in: a name, a formula, either with options in brackets (`"swish[beta=1.5]"`); a module, of which
            copies are made; a class or function without arguments that makes one; a function of a `Site` that returns
            one of these.
        where: Which activations: None for all but gates, outputs and softmaxes; a kind (`"gelu"`), a path or a pattern
            of paths (`"layers.*.act"`), a role (`"gate"`), a class, a function of a `Site`; or a list of these.
        like: The function that trainable activations begin as, on the range that each sees: a name, a formula, or
            `"original"` for the one replaced.
        example_inputs: What the model is called with: a tensor, a tuple, or a dictionary of named inputs. Without it
            only modules are found.
        per_channel: Whether each channel gets parameters of its own.
        shared: Whether one instance serves all places; otherwise each place has its own, also where one served several.
        per_expert: Whether each expert of a mixture of experts gets an activation of its own.
        strict: Whether to raise an error if nothing was changed, or not all that was asked for.

    Returns:
        The model, another one only if it was itself replaced; and the report.

    Raises:
        UsageError: Nothing matches, or what matches cannot be changed, or a replacement does not fit.
    """
    _check(model)
    if isinstance(to, str):
        parse_choice(to)
    mimic = None if like is None else Mimic(like)
    inputs, keywords = arguments(example_inputs)
    seen = look(model, inputs, keywords)
    blocked = [one.site for one in seen.sites.unseen if one.site is not None]
    asked = select(where, [*seen.sites, *blocked], dict(model.named_modules(remove_duplicate=False)))
    chosen = [site for site in asked if site not in blocked]
    if strict:
        _check_all(asked, blocked, seen)
    made, misfits = _make(model, to, chosen, shared=shared, per_channel=per_channel, per_expert=per_expert)
    errors = _imitate(mimic, made, chosen, seen, misfits) if mimic else {}
    if strict and misfits:
        raise UsageError(f"{misfits[0].reason}; limit where, or leave it by strict=False")
    chosen = [site for site in chosen if site.place in made]
    count = _parameters(model)
    outputs = seen.outputs
    if (inputs or keywords) and any(site.place.in_place for site in (*seen.sites, *blocked)):
        # What is overwritten was not, while the model was looked at.
        with untouched(model), gradients_on_demand(inputs, keywords):
            outputs = model(*inputs, **keywords)
    installer = Installer(model)
    places = {place_of(made[site.place], site): site.place for site in chosen}
    difference = None
    try:
        installed = installer.install({place: made[before] for place, before in places.items()})
        paths = {before: installed[place] for place, before in places.items()}
        model = installer.model
        if inputs or keywords:
            after = look(model, inputs, keywords)
            _check_effect(chosen, paths, after)
            difference = _difference(outputs, after.outputs)
        changed = tuple(
            Change(site, paths[site.place], _text(made[site.place]), errors.get(site.place)) for site in chosen
        )
        stuck = [one.site for one in misfits]
        left = tuple(site for site in seen.sites if site not in chosen and site not in stuck)
        return model, Report(changed, left, (*seen.sites.unseen, *misfits), _parameters(model) - count, difference)
    except BaseException:
        installer.undo()
        raise


def unswap(model: nn.Module) -> nn.Module:
    """Undo the last swap of a model, in place: the activations from before are there again, with their parameters.

    Args:
        model: That was swapped, or a copy of it.

    Returns:
        The model, another one only if it was itself replaced.

    Raises:
        UsageError: It was not swapped, or was wrapped since.
    """
    swaps: list[Changes] = model.__dict__.get(SWAPS, []) if isinstance(model, nn.Module) else []
    if not swaps:
        raise UsageError(f"{type(model).__name__} was not swapped, so there is nothing to undo")
    restored = undo(model, swaps[-1])
    if len(swaps) > 1:
        restored.__dict__[SWAPS] = swaps[:-1]
    elif SWAPS in restored.__dict__:
        del restored.__dict__[SWAPS]
    return restored


def _check(model: Any) -> None:
    """Refuse what cannot be changed.

    Raises:
        UsageError: Saying what to do.
    """
    checked(model)
    compiled = next((path or "the model" for path, module in model.named_modules() if is_compiled(module)), None)
    if compiled:
        raise UsageError(f"{compiled} is compiled already; swap first, then compile")
    check_unwrapped(model, "swap")


def _check_all(asked: list[Site], blocked: list[Site], seen: Look) -> None:
    """Refuse to change nothing, or less than asked for.

    Raises:
        UsageError: Saying why.
    """
    stuck = [site for site in asked if site in blocked]
    if stuck:
        reasons = {one.site: one.reason for one in seen.sites.unseen if one.site is not None}
        raise UsageError(
            f"{len(stuck)} of {len(asked)} activations cannot be changed, first {stuck[0].name}: {reasons[stuck[0]]}; "
            "strict=False changes the others"
        )
    if not asked:
        notes = "".join(f"; not seen: {one.path or 'the model'}: {one.reason}" for one in seen.sites.unseen)
        left = f"; there are {len(seen.sites)} others, such as {seen.sites[0].name}" if len(seen.sites) else ""
        raise UsageError(f"no activation to change was found{left}{notes}")


def _make(
    model: nn.Module, to: Replacement, chosen: list[Site], *, shared: bool, per_channel: bool, per_expert: bool
) -> tuple[dict[Place, nn.Module], list[Unseen]]:
    """Make the activation for each place, and try it; return also where it does not fit.

    Raises:
        UsageError: It cannot be made, or there are no experts.
    """
    made: dict[Place, nn.Module] = {}
    misfits: list[Unseen] = []
    for site in chosen:
        if per_expert and not site.place.experts:
            raise UsageError(f"{site.name} is not in a mixture of experts that run one by one; {NOT_ONE_BY_ONE}")
        try:
            one = next(iter(made.values())) if shared and made else build(to, site, per_channel=per_channel)
            fit_in(one, model, site)
            if per_expert and not isinstance(one, Experts):
                others = [build(to, site, per_channel=per_channel) for _ in range(site.place.experts - 1)]
                for other in others:
                    fit_in(other, model, site)
                one = Experts([one, *others])
        except Misfit as error:
            misfits.append(Unseen(site.path, str(error), site))
            continue
        made[site.place] = one
    return made, misfits


def _imitate(
    mimic: Mimic, made: dict[Place, nn.Module], chosen: list[Site], seen: Look, misfits: list[Unseen]
) -> dict[Place, float]:
    """Fit all activations to the function they are to begin as, and return how far they are from it.

    What cannot be fitted is taken out of what was made, and put to what does not fit.
    """
    errors: dict[Place, float] = {}
    for site in [site for site in chosen if site.place in made]:
        activation = made[site.place]
        parts = activation if isinstance(activation, Experts) else [activation]
        try:
            errors[site.place] = max(mimic.fit(part, site, seen.functions[site.place]) for part in parts)
        except Misfit as error:
            misfits.append(Unseen(site.path, str(error), site))
            del made[site.place]
    return errors


def _check_effect(chosen: list[Site], paths: Mapping[Place, str], after: Look) -> None:
    """See that what was put in acts, and as often as what was there.

    Raises:
        UsageError: It does not.
    """
    times: Counter[str] = Counter()
    for site in after.sites:
        times[site.path] += site.times
    twice = {site.path for site in after.sites if site.place.turns > 1}
    for site in chosen:
        path, what = paths[site.place], f"what was put in the place of {site.name} ({site.kind})"
        # Where each expert has its own, these act in its place.
        acting = times[path] or max((count for one, count in times.items() if one.startswith(f"{path}.")), default=0)
        if site.times and not acting:
            raise UsageError(f"{what} does not run; nothing was changed")
        if site.place.operation and path in twice:
            raise UsageError(
                f"{what} runs twice, for {site.path or 'the model'} runs all its parts; call the function in "
                "a module of its own"
            )


def _difference(before: Any, after: Any) -> float | None:
    pairs = list(zip(tensors_of(before), tensors_of(after), strict=False))
    if any(one.is_meta for pair in pairs for one in pair):
        return None
    return max((_distance(one, other) for one, other in pairs if one.numel()), default=0.0)


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max()) if one.shape == other.shape else float("inf")


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _text(module: nn.Module) -> str:
    one = f"{len(module)} of {module[0]!r}" if isinstance(module, Experts) else repr(module)
    return " ".join(one.split())


def _row(change: Change) -> tuple[str, ...]:
    error = "-" if change.error is None else f"{change.error:.2g}"
    return change.site.name, change.site.kind, change.activation, change.path, error
