"""Which device the work runs on."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def usable_devices() -> list[str]:
    """The devices that this machine has, the fastest first."""
    devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    if torch.xpu.is_available():
        devices += [f"xpu:{index}" for index in range(torch.xpu.device_count())]
    return [*devices, "cpu"]


def resolve_device(device: str | torch.device) -> torch.device:
    """The `torch.device` meant by `device`, refused when this machine has none such."""
    usable = usable_devices()
    if device == "auto":
        return torch.device(usable[0])
    expected = f"expected 'auto' or one of {usable}."
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"`device` {device!r} is not a device; {expected}") from error
    same_type = [name for name in usable if torch.device(name).type == resolved.type]
    if not same_type or (resolved.index is not None and resolved.index >= len(same_type)):
        raise ValueError(f"`device` {device!r} is not on this machine; {expected}")
    return resolved


def free_memory(device: torch.device) -> int | None:
    """Bytes free on a device that has a memory of its own and says so, else None."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def available_memory() -> int | None:
    """Bytes that the host can still give away, where the system says so (Linux), else None."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024 * kilobytes[0] if kilobytes else None


def processor() -> str:
    """What the system says of the processor of the host, its maker among it."""
    try:
        return Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return platform.processor()


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device, or the host, has no memory left."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # How the allocators of the CPU and of mps say it.
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
