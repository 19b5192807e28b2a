"""Devices: which one the work runs on, and its memory."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from easyclf.checks import did_you_mean
from easyclf.vocabulary import FOREIGN_DEVICES


def usable_devices() -> list[str]:
    """List the devices that this machine has, the fastest first."""
    devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    if torch.xpu.is_available():
        devices += [f"xpu:{index}" for index in range(torch.xpu.device_count())]
    return [*devices, "cpu"]


def resolve_device(device: str | torch.device) -> torch.device:
    """Find the device that `device` means.

    Raises
    ------
    ValueError
        If it is no device, or not one of this machine.
    """
    usable = usable_devices()
    if device == "auto":
        return torch.device(usable[0])
    expected = f"expected 'auto' or one of {usable}."
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        advice = did_you_mean(str(device), (), words=FOREIGN_DEVICES)
        text = f"{advice} E{expected[1:]}" if advice != "." else f"; {expected}"
        raise ValueError(f"`device` {device!r} is not a device{text}") from error
    same_type = [name for name in usable if torch.device(name).type == resolved.type]
    if not same_type or (resolved.index is not None and resolved.index >= len(same_type)):
        raise ValueError(f"`device` {device!r} is not on this machine; {expected}")
    return resolved


def free_memory(device: torch.device) -> int | None:
    """Read the free bytes of a device with a memory of its own (CUDA); None for the others."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def available_memory() -> int | None:
    """Read how many bytes the host can still give away; None where Linux does not say it.

    psutil would say it on other systems too: a dependency for one number, which only makes
    advice better.
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024 * kilobytes[0] if kilobytes else None


def processor() -> str:
    """Read the system's description of the processor of the host, in which its maker is named."""
    try:
        return Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return platform.processor()


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether an error says that a device, or the host, has no memory left."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # The allocators of the CPU and of mps raise no class of their own (torch 2.15): these are the
    # words of their errors. A new wording ends a fit that smaller batches would have saved.
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
