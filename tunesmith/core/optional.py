"""Optional dependencies: one way to ask for them, one message when they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from tunesmith.core.errors import MissingExtra
from tunesmith.core.records import Issue


def need(module: str, extra: str, why: str) -> ModuleType:
    """The imported module.

    Raises:
        MissingExtra: the module is not installed; the message names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and not module.startswith(error.name):
            raise
        raise MissingExtra(
            Issue(module, f"must be installed {why}", "no such module", f'Install it: pip install "tunesmith[{extra}]".')
        ) from error
