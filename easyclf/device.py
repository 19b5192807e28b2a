"""Devices: which one the work runs on, what it can do, its memory and its random numbers.

No other file names a kind of device, so what is known of each stands here.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from pathlib import Path

import torch

from easyclf.checks import did_you_mean
from easyclf.vocabulary import FOREIGN_DEVICES

# The processor and its memory: where users have their data, and where they get their answers.
HOST = torch.device("cpu")
# Tensors without numbers, which take no memory.
NOWHERE = torch.device("meta")
# Kinds whose copies from pinned memory are known to be safe while the host goes on: their
# allocator keeps that memory until the copy is over. On all others the host waits: "mps" reads
# memory when it gets there, which may be given to somebody else by then (pytorch#139550).
_PINNING = frozenset({"cuda"})
# The optimizers whose fused kernels all versions of torch from 2.6 have there. Adagrad's came to
# CUDA later than its argument did (pytorch#153038).
_FUSED_OPTIMIZERS = {
    "cpu": frozenset({"Adagrad", "Adam", "AdamW", "SGD"}),
    "cuda": frozenset({"Adam", "AdamW", "SGD"}),
    "mps": frozenset({"Adam", "AdamW", "SGD"}),
    "xpu": frozenset({"Adam", "AdamW", "SGD"}),
}
# It takes work without arguments and results, and returns a function that does it once more.
Capture = Callable[[Callable[[], None]], Callable[[], None]]
# Times that work is done before it is captured: libraries choose their kernels and take their
# memory then (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
_WARM_UPS = 3


def usable_devices() -> list[str]:
    """List the devices that this machine has, the fastest first."""
    accelerator = _accelerator()
    if accelerator is None:
        return [HOST.type]
    if accelerator == "mps":
        return [accelerator, HOST.type]  # there is never a second one
    n_devices = torch.accelerator.device_count()
    return [*(f"{accelerator}:{index}" for index in range(n_devices)), HOST.type]


def _accelerator() -> str | None:
    """The kind of accelerator that torch was built for, if this machine has one."""
    # In this order: without one, torch 2.6 does not say which kind it was built for.
    if not torch.accelerator.is_available():
        return None
    kind = torch.accelerator.current_accelerator()
    return None if kind is None else kind.type


def resolve_device(device: str | torch.device) -> torch.device:
    """Find the device that `device` means.

    It has a number, unless it is the host: which of several is the current one may change.

    Raises
    ------
    ValueError
        If it is no device, or not one of this machine.
    """
    accelerator, usable = _accelerator(), usable_devices()
    if device == "auto":
        device = accelerator or HOST
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
    if resolved.type == HOST.type:
        return HOST
    return torch.device(resolved.type, _index(resolved))


def _index(device: torch.device) -> int:
    if device.index is not None:
        return device.index
    # torch 2.6 has it under the name that later versions do not want to be called.
    module = torch.accelerator
    name = (
        "current_device_index" if hasattr(module, "current_device_index") else "current_device_idx"
    )
    index: int = getattr(module, name)()
    return index


@functools.cache
def has_float64(device: torch.device) -> bool:
    """Tell whether a device computes in float64: the answer of a sum that is tried there."""
    try:
        torch.ones(1, dtype=torch.float64, device=device).add_(1)
    except (AssertionError, RuntimeError, TypeError):
        return False
    return True


def fused_optimizers(device: torch.device) -> frozenset[str]:
    """Name the classes of `torch.optim` whose fused kernels a device has."""
    return _FUSED_OPTIMIZERS.get(device.type, frozenset())


def pins(device: torch.device) -> bool:
    """Tell whether the host may go on while a device copies from pinned memory."""
    return device.type in _PINNING


def to_device(
    x: torch.Tensor, device: torch.device, *, is_own: bool = True, waits: bool = False
) -> torch.Tensor:
    """Copy a tensor to a device, without waiting for it where that is safe.

    Parameters
    ----------
    x : Tensor of any shape
        It is not written to.
    device : torch.device
        As `resolve_device` gives it.
    is_own : bool, default=True
        Whether nobody else can write to `x` before the copy is over.
    waits : bool, default=False
        Whether to wait all the same: not to wait takes as much memory of the host once more.

    Returns
    -------
    moved : Tensor of the same shape
        `x` itself where it is there already. In float32 where the device has no float64.
    """
    if x.device == device:
        return x
    if x.dtype == torch.float64 and not has_float64(device):
        x = x.float()
        is_own = True
    if waits or not (x.is_cpu and pins(device)):
        return x.to(device)
    pinned = _pinned(x, is_own=is_own)
    return x.to(device) if pinned is None else pinned.to(device, non_blocking=True)


def _pinned(x: torch.Tensor, *, is_own: bool) -> torch.Tensor | None:
    """The numbers of `x` in pinned memory; None where there is none left."""
    try:
        if is_own or not x.is_pinned():
            return x.pin_memory()
        return torch.empty_like(x, pin_memory=True).copy_(x)
    except RuntimeError:
        return None


def generator_state(device: torch.device) -> torch.Tensor:
    """Read the state of the generator that operations on a device draw from.

    Returns
    -------
    state : uint8 Tensor of shape (n_bytes,)
        On the host, in memory of its own.
    """
    if device.type == HOST.type:
        return torch.default_generator.get_state()
    state: torch.Tensor = torch.get_device_module(device).get_rng_state(*_which(device))
    return state


def set_generator_state(device: torch.device, state: torch.Tensor) -> None:
    """Put a state back that `generator_state` gave, of shape (n_bytes,)."""
    if device.type == HOST.type:
        torch.default_generator.set_state(state)
    else:
        torch.get_device_module(device).set_rng_state(state, *_which(device))


def seed_device(device: torch.device, seed: int) -> None:
    """Seed the generator that operations on a device draw from."""
    if device.type == HOST.type:
        # `torch.manual_seed` would also queue a call for devices that nobody uses: 0.1 ms.
        torch.default_generator.manual_seed(seed)
    else:
        # A module's `manual_seed` is for the device that happens to be the current one.
        set_generator_state(device, torch.Generator(device).manual_seed(seed).get_state())


def _which(device: torch.device) -> tuple[torch.device, ...]:
    """What the functions of torch's module of a device want to be told: nothing if there is one."""
    return () if device.type == "mps" else (device,)


def autocast_settings() -> tuple[object, ...]:
    """Read to which dtype autocast casts where it is on, for each kind of device here."""
    return tuple(
        [torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) for kind in _kinds()]
    )


@functools.cache
def _kinds() -> tuple[str, ...]:
    accelerator = _accelerator()
    return (HOST.type,) if accelerator is None else (HOST.type, accelerator)


def free_memory(device: torch.device) -> int | None:
    """Read the free bytes of a device with a memory of its own; None where it does not say."""
    if device.type == HOST.type:
        return None
    module = torch.get_device_module(device)
    if hasattr(module, "mem_get_info"):
        # What torch only keeps for later is free too.
        kept = module.memory_reserved(device) - module.memory_allocated(device)
        return int(module.mem_get_info(device)[0] + kept)
    if hasattr(module, "recommended_max_memory"):  # of Apple's
        return int(module.recommended_max_memory() - module.current_allocated_memory())
    return None


def graph_capture(device: torch.device) -> Capture:
    """Find what captures the work of a device, so that one call has it done again.

    Returns
    -------
    capture : callable
        It takes a function without arguments and results, which works on the device in the same
        memory each time and never waits. It calls the function several times.

    Raises
    ------
    ValueError
        If work on the device cannot be captured.
    """
    capture = _CAPTURES.get(device.type)
    if capture is None:
        raise ValueError(
            f"`compile` is 'graph', which needs a CUDA device, and the device is {str(device)!r}; "
            "use compile='auto', or device='cuda' on a machine that has one."
        )
    return functools.partial(capture, device)


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of all captures on a device: cuBLAS keeps memory for each stream that it saw."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _capture_on_cuda(device: torch.device, work: Callable[[], None]) -> Callable[[], None]:
    graph, stream = torch.cuda.CUDAGraph(), _side_stream(device)
    with torch.cuda.device(device):
        # What is captured must not be on the default stream, nor what was tried before.
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        graph.register_generator_state(torch.cuda.default_generators[device.index])
        # A loader of the user's may pin memory in a thread of its own meanwhile.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            work()
    replay: Callable[[], None] = graph.replay
    return replay


_CAPTURES = {"cuda": _capture_on_cuda}


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
