"""Print what a finished demo run says about three sentences that are no docstrings.

python demo/predictions.py runs/docstrings
"""

from __future__ import annotations

import sys

import tunesmith

SENTENCES = [
    "Wait until all worker threads have finished.",
    "Send an HTTP request and give back the server's answer.",
    "Round to the nearest multiple and return a float.",
]


def main(run: str) -> None:
    """Print label and probability of each sentence."""
    for sentence, prediction in zip(SENTENCES, tunesmith.load(run).predict(SENTENCES), strict=True):
        print(f"  {sentence!r} -> {prediction.label} ({prediction.probability:.2f})")


if __name__ == "__main__":
    main(sys.argv[1])
