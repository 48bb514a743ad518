"""Early stopping as a value: feed it scores, it returns the next value of itself."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Patience:
    """Counts evaluations without improvement. `limit` None never stops; `best` is None before the first score."""

    limit: int | None
    higher_is_better: bool
    best: float | None = None
    waited: int = 0

    def update(self, score: float) -> Patience:
        """The next value, after a score. NaN never counts as an improvement."""
        better = score == score and (self.best is None or (score > self.best if self.higher_is_better else score < self.best))
        return replace(self, best=score, waited=0) if better else replace(self, waited=self.waited + 1)

    @property
    def improved(self) -> bool:
        """True when the last score was the best so far."""
        return self.best is not None and self.waited == 0

    @property
    def exhausted(self) -> bool:
        """True when it is time to stop."""
        return self.limit is not None and self.waited >= self.limit
