"""Launches a Triton kernel without the binding of its arguments, once it is compiled for such arguments.

Triton binds, checks and hashes every argument at every launch, 20 to 40 microseconds of Python for the kernels here,
as long as some of them run. What it would find is fixed by the tensors' types and alignment and by the numbers; for
these the compiled kernel is kept and called by itself.
"""

import contextlib
from typing import Any

import torch
from torch import Tensor

_ALIGNMENT = 16
"""Bytes; Triton compiles other code for tensors that begin elsewhere. Those are launched its own way."""
_MOST = 1024
"""Kernels kept, a few for each set of sizes; then all are forgotten, which costs time only."""
_HERE = contextlib.nullcontext()

_ready: dict[tuple[object, ...], tuple[Any, tuple[object, ...]]] = {}


def launch(
    kernel: Any,
    grid: tuple[int, int, int],
    tensors: tuple[Tensor, ...],
    numbers: tuple[int | float, ...],
    options: tuple[tuple[str, object], ...],
) -> None:
    """Launch on the current device and stream.

    Args:
        kernel: A ``triton.jit`` function whose arguments are the tensors, the numbers, and constants.
        grid: Programs along each axis.
        tensors: Its first arguments, all on the current device.
        numbers: Its next ones.
        options: Its constants by name, all of them and in its order, and after them options of the compiler.
    """
    pointers = [tensor.data_ptr() for tensor in tensors]
    misaligned = 0
    for pointer in pointers:
        misaligned |= pointer
    key = (id(kernel), numbers, options, tensors[0].device, *[tensor.dtype for tensor in tensors])
    found = None if misaligned % _ALIGNMENT else _ready.get(key)
    if found is not None:
        compiled, constants = found
        compiled[grid](*pointers, *numbers, *constants)  # given tensors, it would ask the driver about each
        return
    compiled = kernel[grid](*tensors, *numbers, **dict(options))
    if misaligned % _ALIGNMENT or not hasattr(compiled, "packed_metadata"):  # by the interpreter nothing is compiled
        return
    names = kernel.arg_names
    constants = tuple(value for name, value in options if name in names)
    if not _TAKES_CONSTANTS or len(tensors) + len(numbers) + len(constants) != len(names):
        return
    if len(_ready) >= _MOST:
        _ready.clear()
    _ready[key] = compiled, constants


def on_device_of(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Triton launches on the current device, which need not be the tensors': within this it is theirs."""
    if not x.is_cuda or x.get_device() == torch.cuda.current_device():
        return _HERE
    return torch.cuda.device(x.device)


def _takes_constants() -> bool:
    """Whether compiled kernels are called with all arguments, as from Triton 3.3 on, or without the constants."""
    import triton

    major, minor = (int(part) for part in triton.__version__.split(".")[:2])
    return (major, minor) >= (3, 3)


_TAKES_CONSTANTS = _takes_constants()
