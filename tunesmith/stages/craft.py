"""What the craft around the step came to, as findings: averages, regularization, recomputed blocks."""

from __future__ import annotations

from tunesmith.core.records import Finding
from tunesmith.spec.schema import Mixup, Soup
from tunesmith.stages.context import Context
from tunesmith.train.fit import Fitted
from tunesmith.train.memory import Recompute


def craft_findings(context: Context, fitted: Fitted, again: Recompute) -> list[Finding]:
    """Findings of what the spec asked for, and whether blocks were computed again."""
    train, metric, rows = context.spec.train, context.spec.evaluate.metric, len(context.table("validation"))
    found = [_recompute(again)]
    if fitted.averaged is not None and train.averaging is not None:
        soup, averaged = isinstance(train.averaging, Soup), fitted.averaged
        what = "Checkpoints in the soup" if soup else "Steps whose weights were averaged by the end"
        without = "the best single checkpoint" if soup else "the weights of the last step, not averaged"
        found += [
            Finding("averaging/members", what, averaged.members, "checkpoints" if soup else "steps", averaged.of),
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
