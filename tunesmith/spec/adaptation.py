"""Adaptation of the pretrained model to unlabelled texts of a domain, before the task is learned: `model.adapt` in a spec."""

from __future__ import annotations

from pydantic import Field

from tunesmith.spec.part import Part, Paths


class Adapt(Part):
    """Further pretraining on unlabelled texts (Gururangan et al. 2020): fill-mask, every weight trained. For encoders such as BERT."""

    texts: Paths
    """Unlabelled texts: tables with a column of texts, or .txt files with a text a line; those like validation or test rows leave."""
    epochs: int = Field(default=3, ge=1, le=1000)
    """Passes over these texts."""
    learning_rate: float = Field(default=1e-4, gt=0.0, le=1.0)
    """Peak learning rate of the adaptation."""
