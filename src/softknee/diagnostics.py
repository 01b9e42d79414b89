"""What `softknee.diagnose` measures, one function for each: units, signal, gradients, curvature, kernels, trials.

Each takes a model and a loader of its data, leaves both as they were, prints nothing, and returns numbers with
`to_dict()`. Nothing loads before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softknee._diagnose.claims import Claim, claims
    from softknee._diagnose.classification import ClassificationReport, classification_report
    from softknee._diagnose.curvature import Curvature, curvature
    from softknee._diagnose.density import Spectrum
    from softknee._diagnose.directions import filter_normalised, towards
    from softknee._diagnose.dynamics import Diffusion, fokker_planck, langevin, prelu_student
    from softknee._diagnose.dynamics_demo import DynamicsDemo, activation_potential, dynamics_demo
    from softknee._diagnose.gauss_newton import Split
    from softknee._diagnose.gradients import GradientFlow, gradient_flow
    from softknee._diagnose.health import Health, unit_health
    from softknee._diagnose.landscape import Landscape, landscape
    from softknee._diagnose.lipschitz import Lipschitz, lipschitz
    from softknee._diagnose.ntk import Kernel, ntk
    from softknee._diagnose.rank import Rank, rank
    from softknee._diagnose.screen import Screening, screen
    from softknee._diagnose.signal import Signal, signal
    from softknee._diagnose.spectra import (
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
    from softknee._diagnose.trace import Interval, Probed
    from softknee._diagnose.trainable import Trainable, trainable
    from softknee._diagnose.trajectory import Trajectories, trajectories
    from softknee._diagnose.trial import trial
    from softknee._diagnose.trials import Trials
    from softknee._diagnose.watch import Watch

_HOMES = {
    "Claim": "softknee._diagnose.claims",
    "ClassificationReport": "softknee._diagnose.classification",
    "Curvature": "softknee._diagnose.curvature",
    "Diffusion": "softknee._diagnose.dynamics",
    "DynamicsDemo": "softknee._diagnose.dynamics_demo",
    "Eigenvalues": "softknee._diagnose.spectra",
    "GradientFlow": "softknee._diagnose.gradients",
    "Health": "softknee._diagnose.health",
    "Interval": "softknee._diagnose.trace",
    "Kernel": "softknee._diagnose.ntk",
    "Landscape": "softknee._diagnose.landscape",
    "Lipschitz": "softknee._diagnose.lipschitz",
    "Probed": "softknee._diagnose.trace",
    "Rank": "softknee._diagnose.rank",
    "Screening": "softknee._diagnose.screen",
    "Signal": "softknee._diagnose.signal",
    "Spectrum": "softknee._diagnose.density",
    "Split": "softknee._diagnose.gauss_newton",
    "Trainable": "softknee._diagnose.trainable",
    "Trajectories": "softknee._diagnose.trajectory",
    "Trials": "softknee._diagnose.trials",
    "Watch": "softknee._diagnose.watch",
    "Xi": "softknee._diagnose.spectra",
    "activation_potential": "softknee._diagnose.dynamics_demo",
    "claims": "softknee._diagnose.claims",
    "classification_report": "softknee._diagnose.classification",
    "curvature": "softknee._diagnose.curvature",
    "dynamics_demo": "softknee._diagnose.dynamics_demo",
    "filter_normalised": "softknee._diagnose.directions",
    "fokker_planck": "softknee._diagnose.dynamics",
    "gradient_flow": "softknee._diagnose.gradients",
    "hessian_eigenvalues": "softknee._diagnose.spectra",
    "hessian_spectrum": "softknee._diagnose.spectra",
    "hessian_split": "softknee._diagnose.spectra",
    "hessian_trace": "softknee._diagnose.spectra",
    "hvp": "softknee._diagnose.spectra",
    "landscape": "softknee._diagnose.landscape",
    "langevin": "softknee._diagnose.dynamics",
    "lipschitz": "softknee._diagnose.lipschitz",
    "lr_limit": "softknee._diagnose.spectra",
    "ntk": "softknee._diagnose.ntk",
    "prelu_student": "softknee._diagnose.dynamics",
    "rank": "softknee._diagnose.rank",
    "screen": "softknee._diagnose.screen",
    "signal": "softknee._diagnose.signal",
    "towards": "softknee._diagnose.directions",
    "trainable": "softknee._diagnose.trainable",
    "trajectories": "softknee._diagnose.trajectory",
    "trial": "softknee._diagnose.trial",
    "unit_health": "softknee._diagnose.health",
    "xi": "softknee._diagnose.spectra",
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
