"""Memory that is free, and the most that was held since a moment: of the process, or of the GPU that computes.

glibc keeps what is freed, and where batches differ in shape it was seen to find no use for most of it (LOG.md, 2026-11-29).
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import torch

Item = TypeVar("Item")
SLACK_BYTES, SLACK_SHARE = 2**28, 0.15
"""Freed memory that may be kept: the larger of these bytes and this share of the most that was held. Less of it is slower: each page that
is given back is cleared before it is used again."""
RESET = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")


def free_bytes(device: torch.device) -> int:
    """Memory that is free where the model is."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else int(psutil.virtual_memory().available)


def begin_peak(device: torch.device) -> None:
    """Forget what was held before, so that `peak_bytes` speaks of what comes; a system that cannot forget speaks of the whole process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif os.access(RESET, os.W_OK):
        RESET.write_text("5")  # Linux: VmHWM begins again


def peak_bytes(device: torch.device) -> int:
    """The most that was held since `begin_peak`, or since the process began."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        line = next(line for line in STATUS.read_text("utf-8").splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return int(line.split()[1]) * 1024


def kept_when_freed(device: torch.device) -> int:
    """Bytes of freed memory that the C library may keep before `Trim` gives them back; the share of a large peak is left out."""
    return SLACK_BYTES if _trims(device) else 0


def _trims(device: torch.device) -> bool:
    return platform.libc_ver()[0] == "glibc" and device.type == "cpu"


class Trim:
    """Gives freed memory back to the system between steps, when the C library has kept more than its slack since the last time."""

    def __init__(self, device: torch.device) -> None:
        self.process, self.device, self.times = psutil.Process(), device, 0
        self.libc = ctypes.CDLL(None) if _trims(device) else None
        self.floor = self._trimmed()

    def between(self, steps: Iterable[Item]) -> Iterator[Item]:
        """The same steps; what giving back takes is part of the step before."""
        for step in steps:
            self()
            yield step

    def __call__(self) -> None:
        if self.libc is None:
            return
        kept = self.process.memory_info().rss - self.floor
        if kept > SLACK_BYTES and kept > SLACK_SHARE * peak_bytes(self.device):
            self.floor, self.times = self._trimmed(), self.times + 1

    def _trimmed(self) -> int:
        if self.libc is not None:
            self.libc.malloc_trim(0)
        return int(self.process.memory_info().rss)
