"""Memory that is free, and the most that was held since a moment: of the process, or of the GPU that computes."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import psutil
import torch

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
