"""Tunesmith: supervised fine-tuning from a labelled table to a checked, documented model.

    import tunesmith
    run = tunesmith.run(tunesmith.load_spec("tickets.yaml"))
    tunesmith.load(run.path).predict(["my card never came"])

Names are imported when first used, so that `import tunesmith` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith.core.errors import DataError, Interrupted, ModelError, RunError, SpecError, TunesmithError
    from tunesmith.pipeline import Run, run
    from tunesmith.quick import fit
    from tunesmith.serve.predictor import Prediction, Predictor, load
    from tunesmith.spec.load import load_spec
    from tunesmith.spec.schema import Spec

_HOMES = {
    "DataError": "tunesmith.core.errors",
    "Interrupted": "tunesmith.core.errors",
    "ModelError": "tunesmith.core.errors",
    "Prediction": "tunesmith.serve.predictor",
    "Predictor": "tunesmith.serve.predictor",
    "Run": "tunesmith.pipeline",
    "RunError": "tunesmith.core.errors",
    "Spec": "tunesmith.spec.schema",
    "SpecError": "tunesmith.core.errors",
    "TunesmithError": "tunesmith.core.errors",
    "fit": "tunesmith.quick",
    "load": "tunesmith.serve.predictor",
    "load_spec": "tunesmith.spec.load",
    "run": "tunesmith.pipeline",
}

__all__ = [
    "DataError",
    "Interrupted",
    "ModelError",
    "Prediction",
    "Predictor",
    "Run",
    "RunError",
    "Spec",
    "SpecError",
    "TunesmithError",
    "fit",
    "load",
    "load_spec",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tunesmith' has no attribute {name!r}")
    value = import_module(_HOMES[name]).__dict__[name]
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
