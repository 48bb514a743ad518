"""What the craft around the step came to, as findings: averages, regularization, recomputed blocks."""

from __future__ import annotations

from tunesmith.core.records import Finding
from tunesmith.spec.schema import Mixup
from tunesmith.stages.context import Context
from tunesmith.train.fit import Fitted
from tunesmith.train.memory import Recompute

OVER_STEPS = ("Steps whose weights were averaged by the end", "steps", "the weights of the last step, not averaged")
WORDS = {
    "ema": OVER_STEPS,
    "swa": OVER_STEPS,
    "soup": ("Checkpoints in the soup", "checkpoints", "the best single checkpoint"),
    "wise_ft": ("Points between the weights before training and the trained ones that were tried", "points", "the trained weights alone"),
}
"""What the members of an average are, their unit, and what is kept without it."""


def craft_findings(context: Context, fitted: Fitted, again: Recompute) -> list[Finding]:
    """Findings of what the spec asked for, and whether blocks were computed again."""
    train, metric, rows = context.spec.train, context.spec.evaluate.metric, len(context.table("validation"))
    found = [_recompute(again)]
    if fitted.averaged is not None and train.averaging is not None:
        averaged, (what, unit, without) = fitted.averaged, WORDS[train.averaging.kind]
        if averaged.share is not None:
            claim = "Share of the trained weights in the kept ones, the others being those before training"
            found.append(Finding("averaging/share", claim, averaged.share, n=rows, source="measured"))
        found += [
            Finding("averaging/members", what, averaged.members, unit, averaged.of),
            Finding("averaging/plain_score", f"Validation {metric} of {without}", averaged.plain, n=rows, source="measured"),
            Finding(
                "averaging/gain", f"Validation {metric} of the kept weights less that of {without}", fitted.best_score - averaged.plain
            ),
        ]
    if train.regularization is not None:
        what = (
            "pairs of rows mixed inside the trained blocks"
            if isinstance(train.regularization, Mixup)
            else "two passes with different dropout"
        )
        found.append(Finding("train/regularization", "What was asked of the model besides a low loss", what, source="declared"))
    return found


def _recompute(again: Recompute) -> Finding:
    claim = "Whether blocks were computed again in the backward pass, to save memory"
    return Finding("train/activation_checkpointing", claim, "yes" if again.used else "no", note=again.reason)
