"""Which activation libraries are compared, and how their classes are found. None is imported before it is asked for."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import itertools
import json
import os
import pkgutil
import warnings
from dataclasses import dataclass, field
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import ModuleType

CHANNELS = 8
# Required arguments that can be guessed by their names; what needs others counts as not run by default.
ARGUMENTS: dict[str, Callable[[int], Any]] = {
    **dict.fromkeys(("channels", "num_channels", "in_features", "features", "input_shape"), lambda channels: channels),
    **dict.fromkeys(("num_pieces", "S"), lambda _: 2),
    "degree": lambda _: 3,
}

# Names of other libraries that mean an entry of ours without doubt, in their plain form.
SYNONYMS = {
    "bentid": "bent_identity",
    "cauchylinearunit": "atlu",
    "collapsinglinearunit": "colu",
    "complementaryloglog": "cloglog",
    "derivativesilu": "dsilu",
    "elliot": "elliott",
    "entmax": "entmax15",
    "exponentiallinearsigmoidsquashing": "elish",
    "fasterpflu": "fpflu",
    "fasterpowerfunctionlinearunit": "fpflu",
    "flattedtswish": "flatten_t_swish",
    "geluaccurate": "gelu_tanh",
    "gelufast": "gelu_tanh",
    "gelunew": "gelu_tanh",
    "gelupython": "gelu",
    "gelupythontanh": "gelu_tanh",
    "gelupytorchtanh": "gelu_tanh",
    "gelusigmoidapprox": "quick_gelu",
    "gelutanhapprox": "gelu_tanh",
    "hardexponentiallinearsigmoidsquashing": "hard_elish",
    "hardsigmoid02": "hardsigmoid_keras",
    "kwinnerstakeall": "kwta",
    "laplacelinearunit": "lalu",
    "lrelu": "leaky_relu",
    "metaaconc": "meta_acon",
    "naturallogrelu": "nlrelu",
    "powerfunctionlinearunit": "pflu",
    "recu": "repu",
    "safepau": "rational",
    "scaledexponentiallinearunit": "selu",
    "surveyelu": "elu",
}


@dataclass(frozen=True)
class Entry:
    """One class, or one named configuration of a class.

    Attributes:
        name: As its library calls it.
        place: Where it is, to tell apart what has the same name.
        exported: Whether this is what the library's front page gives out under the name.
        make: `(channels) -> module`.
        aliases: Other names that its library has for the same class.
    """

    name: str
    place: str
    exported: bool
    make: Callable[[int], nn.Module]
    aliases: tuple[str, ...] = ()


@dataclass
class Found:
    """What one library brings."""

    entries: list[Entry]
    missing: dict[str, str] = field(default_factory=dict)
    remark: str = ""


@dataclass(frozen=True)
class Library:
    """One library: the name in the tables, that of its distribution, and what finds its classes."""

    label: str
    distribution: str
    find: Callable[[], Found]

    @property
    def version(self) -> str:
        """Version installed; empty where it is not installed."""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return ""


def build(cls: Callable[..., nn.Module], channels: int) -> nn.Module:
    """Make a module with default arguments, required ones guessed by their names."""
    arguments = {}
    for param in inspect.signature(cls).parameters.values():
        if param.default is param.empty and param.kind not in {param.VAR_POSITIONAL, param.VAR_KEYWORD}:
            if param.name not in ARGUMENTS:
                raise TypeError(f"needs an argument that is not guessed: {param.name}")
            arguments[param.name] = ARGUMENTS[param.name](channels)
    return cls(**arguments)


def attempt(run: Callable[[], Any]) -> tuple[Any, str]:
    """Return what a call gives and "", or None and the error in one line. A call of `exit()` is an error too."""
    try:
        return run(), ""
    except (Exception, SystemExit) as error:
        return None, describe(error)


def describe(error: BaseException) -> str:
    """Return an error in one short line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:160]


def _classes(*modules: ModuleType, under: str, bases: Iterable[str] = ()) -> list[Entry]:
    """Return the module classes that are defined under a package, without abstract and private ones."""
    names: dict[type, set[str]] = {}
    for module in modules:
        for name, thing in vars(module).items():
            if isinstance(thing, type) and issubclass(thing, nn.Module) and thing.__module__.startswith(under):
                names.setdefault(thing, set()).add(name)
    entries = [
        Entry(
            cls.__name__,
            cls.__module__,
            exported=getattr(modules[0], cls.__name__, None) is cls,
            make=partial(build, cls),
            aliases=tuple(sorted(known - {cls.__name__})),
        )
        for cls, known in names.items()
        if not inspect.isabstract(cls) and not cls.__name__.startswith("_") and cls.__name__ not in bases
    ]
    return sorted(entries, key=lambda entry: (entry.name, entry.place))


def _package(root: str, *, bases: Iterable[str] = ()) -> Found:
    """Find every module class of a package, looking into all its parts."""
    package = importlib.import_module(root)
    modules, missing = [package], dict[str, str]()
    for part in pkgutil.walk_packages(package.__path__, f"{root}.", onerror=lambda _: None):
        module, missing[part.name] = attempt(partial(importlib.import_module, part.name))
        modules += [module] if module is not None else []
    missing = {name: reason for name, reason in missing.items() if reason}
    return Found(_classes(*modules, under=root, bases=bases), missing)


def _torch() -> Found:
    names = sorted({*nn.modules.activation.__all__} - {"MultiheadAttention"})
    arguments = {"Threshold": (0.1, 20.0)}  # those of its documentation
    entries = []
    for name in names:
        cls = getattr(nn, name)
        make = partial(_ignoring_channels, cls, *arguments[name]) if name in arguments else partial(build, cls)
        entries.append(Entry(name, "torch.nn", exported=True, make=make))
    return Found(entries)


def _softknee() -> Found:
    package, functional = importlib.import_module("softknee.nn"), importlib.import_module("softknee.functional")
    classes = {spec.title: getattr(package, spec.title, None) for spec in functional.SPECS}
    missing = {title: "no class of that name" for title, cls in classes.items() if cls is None}
    entries = [
        Entry(name, "softknee.nn", exported=True, make=partial(_ours, cls))
        for name, cls in sorted(classes.items())
        if cls is not None
    ]
    return Found(entries, missing)


def _ours(cls: Callable[..., nn.Module], channels: int) -> nn.Module:
    """Make one of our modules; those that have parameters for each channel are told how many there are."""
    module, reason = attempt(partial(build, cls, channels))
    return cls(channels=channels) if reason else module


def _transformers() -> Found:
    table = importlib.import_module("transformers.activations").ACT2CLS
    entries = []
    for name, content in sorted(table.items()):
        cls, options = content if isinstance(content, tuple) else (content, {})
        make = partial(_ignoring_channels, cls, **options)
        entries.append(Entry(name, "transformers.activations", exported=True, make=make))
    return Found(entries, remark="the names of ACT2CLS")


def _timm() -> Found:
    names = ("timm.layers.activations", "timm.layers.activations_me")
    try:
        modules, remark = [importlib.import_module(name) for name in names], ""
    except Exception as error:
        modules = [_loaded_alone(name, "timm") for name in names]
        remark = f"the package itself does not import here ({describe(error)}), so its two activation files were loaded"
    return Found(_classes(*modules, under="timm"), remark=remark)


def _loaded_alone(name: str, distribution: str) -> ModuleType:
    path = importlib.metadata.distribution(distribution).locate_file(f"{name.replace('.', '/')}.py")
    spec = importlib.util.spec_from_file_location(name, str(path))
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _rational() -> Found:
    cls = importlib.import_module("rational.torch").Rational
    root = importlib.metadata.distribution("rational-activations")
    config = json.loads(root.locate_file("rational/rationals_config.json").read_text(encoding="utf-8"))
    versions = sorted(name[len("Rational_version_")] for name in config if name.startswith("Rational_version_"))
    targets = sorted({t for name, fits in config.items() if name.startswith("Rational_version_") for t in fits})
    entries = [
        Entry(
            # Version A is the safe form of the paper, the one that our catalogue has.
            f"Rational[{target}]" if version == "A" else f"Rational{version}[{target}]",
            "rational.torch",
            exported=(version, target) == ("A", "leaky_relu"),
            make=partial(_ignoring_channels, cls, approx_func=target, version=version),
        )
        for version, target in itertools.product(versions, targets)
    ]
    return Found(entries, remark=f"one class, {len(versions)} versions times {len(targets)} starting points")


def _ignoring_channels(cls: Callable[..., nn.Module], *arguments: Any, **options: Any) -> nn.Module:
    return cls(*arguments[:-1], **options)  # the last is the number of channels


NONLINEAR_BASES = ("ActivationFunction", "ChannelBasedActivationFunction", "LearnableActivationFunction")
LIBRARIES = {
    library.label: library
    for library in (
        Library("softknee", "softknee", _softknee),
        Library("torch.nn", "torch", _torch),
        Library("transformers", "transformers", _transformers),
        Library("timm", "timm", _timm),
        Library("torchlab", "torchlab-pytorch", partial(_package, "torchlab.activations")),
        Library("torch-activation", "torch-activation", partial(_package, "torch_activation")),
        Library("nonlinear", "nonlinear", partial(_package, "nonlinear", bases=NONLINEAR_BASES)),
        Library("actix", "actix", partial(_package, "actix")),
        Library("echoAI", "echoAI", partial(_package, "echoAI")),
        Library("rational-activations", "rational-activations", _rational),
        Library("torchact", "torchact", partial(_package, "torchact")),
        Library("activations-plus", "activations-plus", partial(_package, "activations_plus")),
        Library("torchortho", "torchortho", partial(_package, "torchortho")),
    )
}


def find(label: str) -> Found:
    """Import a library quietly and return what it brings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LIBRARIES[label].find()


def by_place(found: Found) -> Iterator[tuple[str, Entry]]:
    """Yield the entries with keys that are unique within the library."""
    for entry in found.entries:
        yield f"{entry.place}.{entry.name}", entry


def seeded(entry: Entry, channels: int = CHANNELS) -> nn.Module:
    """Make a module in evaluation mode, its random numbers those of seed 0."""
    torch.manual_seed(0)
    return entry.make(channels).eval()


def own_output() -> IO[str]:
    """Return the real standard output, and send what classes print elsewhere."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    return lines
