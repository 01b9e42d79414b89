"""What `softknee.diagnose` measures, one function for each: units, signal, gradients, curvature, kernels, trials.

Each takes a model and a loader of its data, leaves both as they were, prints nothing, and returns numbers with
`to_dict()`. Nothing loads before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softknee._diagnose.claims.ledger import Claim, claims
    from softknee._diagnose.curvature.curvature import Curvature, curvature
    from softknee._diagnose.curvature.density import Spectrum
    from softknee._diagnose.curvature.directions import filter_normalised, towards
    from softknee._diagnose.curvature.gauss_newton import Split
    from softknee._diagnose.curvature.landscape import Landscape, landscape
    from softknee._diagnose.curvature.ntk import Kernel, ntk
    from softknee._diagnose.curvature.spectra import (
        Eigenvalues,
        Xi,
        hessian_eigenvalues,
        hessian_spectrum,
        hessian_split,
        hessian_trace,
        hvp,
        lr_limit,
        xi,
    )
    from softknee._diagnose.curvature.trace import Interval, Probed
    from softknee._diagnose.dynamics.demo import DynamicsDemo, activation_potential, dynamics_demo
    from softknee._diagnose.dynamics.dynamics import Diffusion, fokker_planck, langevin, prelu_student
    from softknee._diagnose.flow.born_dead import born_dead
    from softknee._diagnose.flow.classification import ClassificationReport, classification_report
    from softknee._diagnose.flow.gradients import GradientFlow, gradient_flow
    from softknee._diagnose.flow.lipschitz import Lipschitz, lipschitz
    from softknee._diagnose.flow.rank import Rank, rank
    from softknee._diagnose.flow.signal import Signal, signal
    from softknee._diagnose.flow.trainable import Trainable, trainable
    from softknee._diagnose.trial.screen import Screening, screen
    from softknee._diagnose.trial.trial import trial
    from softknee._diagnose.trial.trials import Trials
    from softknee._diagnose.units.health import Health, unit_health
    from softknee._diagnose.units.trajectory import Trajectories, trajectories
    from softknee._diagnose.units.watch import Watch

_HOMES = {
    "Claim": "softknee._diagnose.claims.ledger",
    "ClassificationReport": "softknee._diagnose.flow.classification",
    "Curvature": "softknee._diagnose.curvature.curvature",
    "Diffusion": "softknee._diagnose.dynamics.dynamics",
    "DynamicsDemo": "softknee._diagnose.dynamics.demo",
    "Eigenvalues": "softknee._diagnose.curvature.spectra",
    "GradientFlow": "softknee._diagnose.flow.gradients",
    "Health": "softknee._diagnose.units.health",
    "Interval": "softknee._diagnose.curvature.trace",
    "Kernel": "softknee._diagnose.curvature.ntk",
    "Landscape": "softknee._diagnose.curvature.landscape",
    "Lipschitz": "softknee._diagnose.flow.lipschitz",
    "Probed": "softknee._diagnose.curvature.trace",
    "Rank": "softknee._diagnose.flow.rank",
    "Screening": "softknee._diagnose.trial.screen",
    "Signal": "softknee._diagnose.flow.signal",
    "Spectrum": "softknee._diagnose.curvature.density",
    "Split": "softknee._diagnose.curvature.gauss_newton",
    "Trainable": "softknee._diagnose.flow.trainable",
    "Trajectories": "softknee._diagnose.units.trajectory",
    "Trials": "softknee._diagnose.trial.trials",
    "Watch": "softknee._diagnose.units.watch",
    "Xi": "softknee._diagnose.curvature.spectra",
    "activation_potential": "softknee._diagnose.dynamics.demo",
    "born_dead": "softknee._diagnose.flow.born_dead",
    "claims": "softknee._diagnose.claims.ledger",
    "classification_report": "softknee._diagnose.flow.classification",
    "curvature": "softknee._diagnose.curvature.curvature",
    "dynamics_demo": "softknee._diagnose.dynamics.demo",
    "filter_normalised": "softknee._diagnose.curvature.directions",
    "fokker_planck": "softknee._diagnose.dynamics.dynamics",
    "gradient_flow": "softknee._diagnose.flow.gradients",
    "hessian_eigenvalues": "softknee._diagnose.curvature.spectra",
    "hessian_spectrum": "softknee._diagnose.curvature.spectra",
    "hessian_split": "softknee._diagnose.curvature.spectra",
    "hessian_trace": "softknee._diagnose.curvature.spectra",
    "hvp": "softknee._diagnose.curvature.spectra",
    "landscape": "softknee._diagnose.curvature.landscape",
    "langevin": "softknee._diagnose.dynamics.dynamics",
    "lipschitz": "softknee._diagnose.flow.lipschitz",
    "lr_limit": "softknee._diagnose.curvature.spectra",
    "ntk": "softknee._diagnose.curvature.ntk",
    "prelu_student": "softknee._diagnose.dynamics.dynamics",
    "rank": "softknee._diagnose.flow.rank",
    "screen": "softknee._diagnose.trial.screen",
    "signal": "softknee._diagnose.flow.signal",
    "towards": "softknee._diagnose.curvature.directions",
    "trainable": "softknee._diagnose.flow.trainable",
    "trajectories": "softknee._diagnose.units.trajectory",
    "trial": "softknee._diagnose.trial.trial",
    "unit_health": "softknee._diagnose.units.health",
    "xi": "softknee._diagnose.curvature.spectra",
}

__all__ = [
    "Claim",
    "ClassificationReport",
    "Curvature",
    "Diffusion",
    "DynamicsDemo",
    "Eigenvalues",
    "GradientFlow",
    "Health",
    "Interval",
    "Kernel",
    "Landscape",
    "Lipschitz",
    "Probed",
    "Rank",
    "Screening",
    "Signal",
    "Spectrum",
    "Split",
    "Trainable",
    "Trajectories",
    "Trials",
    "Watch",
    "Xi",
    "activation_potential",
    "born_dead",
    "claims",
    "classification_report",
    "curvature",
    "dynamics_demo",
    "filter_normalised",
    "fokker_planck",
    "gradient_flow",
    "hessian_eigenvalues",
    "hessian_spectrum",
    "hessian_split",
    "hessian_trace",
    "hvp",
    "landscape",
    "langevin",
    "lipschitz",
    "lr_limit",
    "ntk",
    "prelu_student",
    "rank",
    "screen",
    "signal",
    "towards",
    "trainable",
    "trajectories",
    "trial",
    "unit_health",
    "xi",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'softknee.diagnostics' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
