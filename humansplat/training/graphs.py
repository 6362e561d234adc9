"""Training steps from CUDA graphs, for small networks, whose operations a GPU is done with before it gets the next.

The forward pass of a module is recorded once and replayed from then on, and so is its backward pass. What is recorded
are addresses: arguments are copied to where the recording read them, and parameters must stay where they are, as the
optimizer, averages and checkpoints leave them. The gradients lie where the recording wrote them, which is where the
forward pass had activations that the backward pass was done with; they hold until the module's next replay. Parameters
get them as they are, without going through autograd, so hooks on parameters (and with them
``DistributedDataParallel``) see nothing: several processes exchange them after the backward pass
(:mod:`humansplat.training.exchange`).
"""

import contextlib
import dataclasses
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from humansplat.errors import UserError
from humansplat.pipelines.cuda_graphs import CudaGraphs
from humansplat.structures import TensorStruct

WARM_UP = 2
"""Runs before recording: libraries choose their kernels and take their workspaces, which no recording may do."""


def replay_training(module: nn.Module) -> None:
    """Have a module's training calls replay CUDA graphs of the forward and of the backward pass, in place.

    The batch of the first call in training decides the shapes; other shapes, ``eval`` mode and calls without gradients
    run as written. The module's arguments are tensors without gradients, records of such (:class:`TensorStruct`), or
    constants; its result is a tensor or a record. Between two calls lies a backward pass.

    Args:
        module: On a CUDA device.

    Raises:
        UserError: If it cannot be recorded, and why.
    """
    name = type(module).__name__
    device = next(module.parameters()).device
    if device.type != "cuda":
        raise UserError(f"compile is graphs, which needs a CUDA device, and {name} is on {device}: set it to no")
    for path, part in module.named_modules():
        place = path or name
        if getattr(part, "gradient_checkpointing", False):
            raise UserError(
                f"compile is graphs, and {place} computes activations anew: set gradient_checkpointing to false"
            )
        if part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks:
            raise UserError(f"compile is graphs, and {place} has hooks, which no recording runs: set it to no")
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            raise UserError(f"compile is graphs, and {place} counts statistics, recording too: set it to no")
    module.forward = _Replayed(module)


class FrozenFunctions:
    """Functions of tensors that run frozen networks, without gradients, from CUDA graphs on a GPU.

    Each is recorded for the shapes that it is given first; for others it is called as it is.

    Args:
        enabled: Otherwise, and on other devices, the functions are called as they are.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._graphs: CudaGraphs | None = None
        self._shapes: dict[Hashable, list[torch.Size]] = {}

    def run(self, name: Hashable, function: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
        """The function's result; arguments as :meth:`CudaGraphs.run` has them."""
        device = arguments[0].device
        with torch.no_grad(), _no_kept_casts(device):
            key, shapes = (name, torch.is_autocast_enabled(device.type)), [argument.shape for argument in arguments]
            replays = self._enabled and device.type == "cuda"
            if not replays or self._shapes.setdefault(key, shapes) != shapes:
                return function(*arguments)
            self._graphs = self._graphs or CudaGraphs(device)
            return self._graphs.run(key, function, *arguments)


@contextlib.contextmanager
def _no_kept_casts(device: torch.device) -> Iterator[None]:
    """Autocast as it is outside, but with weights cast anew in each pass.

    A graph must not read casts of before its recording; and some versions of PyTorch use casts of a pass without
    gradients in the next one with gradients, which then has none.
    """
    kind = device.type
    with torch.autocast(
        kind, torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind), cache_enabled=False
    ):
        yield


class _Recorded(NamedTuple):
    forward: torch.cuda.CUDAGraph
    backward: torch.cuda.CUDAGraph
    arguments: tuple[Tensor, ...]
    """All tensors of the module's arguments."""
    result: Any
    result_gradients: tuple[Tensor | None, ...]
    """Of the result's tensors; ``None`` where no parameter has a part in one."""
    trained: tuple[tuple[nn.Parameter, Tensor], ...]
    """Parameters that the result depends on, with their gradients."""
    signature: object
    """Of the arguments: :func:`_signature`."""


class _Replayed:
    """Stands for a module's ``forward``."""

    def __init__(self, module: nn.Module) -> None:
        self._module, self._eager = module, module.forward
        self._recorded: _Recorded | None = None
        self.number = 0
        """Of the last replay."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if not (self._module.training and torch.is_grad_enabled()):
            return self._eager(*arguments, **named)
        given = _tensors((*arguments, *named.values()))
        if not given or any(tensor.requires_grad for tensor in given):
            raise UserError(
                f"compile is graphs, and {type(self._module).__name__} is given more than tensors without gradients: "
                "set it to no"
            )
        signature = (tuple(named), *(_signature(argument) for argument in (*arguments, *named.values())))
        if self._recorded is None:
            self._recorded = _record(self._module, self._eager, arguments, named, signature)
            self._anchor = torch.zeros((), device=given[0].device, requires_grad=True)
        if signature != self._recorded.signature:
            return self._eager(*arguments, **named)
        return _with_tensors(self._recorded.result, _Replay.apply(self._anchor, self, self._recorded, *given))


class _Replay(torch.autograd.Function):
    """Both passes; autograd sees one operation, of a number that only asks for gradients."""

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, owner: _Replayed, recorded: _Recorded, *arguments: Tensor
    ) -> tuple[Tensor, ...]:
        for place, argument in zip(recorded.arguments, arguments, strict=True):
            place.copy_(argument)
        for parameter, own in recorded.trained:  # of pieces before, to which this one's are added
            if parameter.grad is own:
                parameter.grad = own.clone()
        recorded.forward.replay()
        owner.number += 1
        ctx.owner, ctx.recorded, ctx.number = owner, recorded, owner.number
        results = tuple(tensor.clone() for tensor in _tensors((recorded.result,)))
        fixed = [one for one, grad in zip(results, recorded.result_gradients, strict=True) if grad is None]
        ctx.mark_non_differentiable(*fixed)
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, ...]:
        recorded: _Recorded = ctx.recorded
        if ctx.number != ctx.owner.number:
            raise RuntimeError("the module was called again before this backward pass, and its activations are gone")
        for place, gradient in zip(recorded.result_gradients, gradients, strict=True):
            if place is not None:
                place.copy_(gradient)
        recorded.backward.replay()
        for parameter, own in recorded.trained:
            if parameter.grad is not None:
                own.add_(parameter.grad)
            parameter.grad = own
        return (None,) * (3 + len(recorded.arguments))


def _record(
    module: nn.Module, eager: Any, arguments: tuple[Any, ...], named: dict[str, Any], signature: object
) -> _Recorded:
    """Record both passes for the autocast that is in force; costs about four runs of them."""
    given = _tensors((*arguments, *named.values()))
    kind = given[0].device.type
    dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
    parameters = tuple(parameter for parameter in module.parameters() if parameter.requires_grad)
    places = tuple(tensor.detach().clone(memory_format=torch.contiguous_format) for tensor in given)
    rest = iter(places)
    placed = [_with_tensors(argument, rest) for argument in arguments]
    placed_by_name = {name: _with_tensors(argument, rest) for name, argument in named.items()}

    def forward() -> Any:
        # Weights cast in one recording are gone in the next: each casts its own.
        with torch.autocast(kind, dtype, enabled, cache_enabled=False):
            result = eager(*placed, **placed_by_name)
        if not isinstance(result, Tensor | TensorStruct):
            raise UserError(
                f"compile is graphs, and {type(module).__name__} gives more than a tensor or a record of tensors: set "
                "it to no"
            )
        return result

    def backward(result: Any, gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        pairs = [(one, grad) for one, grad in zip(_tensors((result,)), gradients, strict=True) if grad is not None]
        results, given = zip(*pairs, strict=True)
        with torch.autocast(kind, enabled=False):  # as a loss's backward pass runs outside of it
            return _separate(parameters, torch.autograd.grad(results, parameters, given, allow_unused=True), given)

    def no_gradients(result: Any) -> tuple[Tensor | None, ...]:
        return tuple(torch.zeros_like(one) if one.requires_grad else None for one in _tensors((result,)))

    with torch.cuda.device(given[0].device), torch.enable_grad():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                result = forward()
                backward(result, no_gradients(result))
        torch.cuda.current_stream().wait_stream(stream)
        result_gradients = no_gradients(result)
        del result
        first, second = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        # thread_local: threads that read people to the GPU meanwhile are none of the recording's business, nor is
        # NCCL's, which asks for the state of exchanges at any time; that would break a recording that is "global".
        with torch.cuda.graph(first, stream=stream, capture_error_mode="thread_local"):
            result = forward()
        with torch.cuda.graph(second, pool=first.pool(), stream=stream, capture_error_mode="thread_local"):
            gradients = backward(result, result_gradients)
    trained = tuple((p, own) for p, own in zip(parameters, gradients, strict=True) if own is not None)
    return _Recorded(first, second, places, result.detach(), result_gradients, trained, signature)


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A tensor or a record with its tensors exchanged; anything else as it is."""
    if isinstance(value, Tensor):
        return change(value)
    return value.map(change) if isinstance(value, TensorStruct) else value


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """All tensors of some values, in order."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    for value in values:
        _mapped(value, note)
    return found


def _with_tensors(value: Any, tensors: Iterable[Tensor]) -> Any:
    """The value with the next tensors in the places of its own."""
    rest = iter(tensors)
    return _mapped(value, lambda _: next(rest))


def _signature(value: Any) -> object:
    """What a recording has built in of an argument: the shapes and types of tensors, and everything else."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype
    if isinstance(value, TensorStruct):
        names = [field.name for field in dataclasses.fields(value)]  # type: ignore[arg-type]
        return type(value), *((name, _signature(getattr(value, name))) for name in names)
    if isinstance(value, dict):
        return tuple((key, _signature(item)) for key, item in value.items())
    return value


def _separate(
    parameters: tuple[nn.Parameter, ...], gradients: tuple[Tensor | None, ...], given: Iterable[Tensor]
) -> tuple[Tensor | None, ...]:
    """Gradients in memory of their own, laid out as the parameters are: the optimizer scales them in place."""
    taken = {gradient.untyped_storage().data_ptr() for gradient in given}
    own: list[Tensor | None] = []
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            storage = gradient.untyped_storage().data_ptr()
            if storage in taken or gradient.stride() != parameter.stride():
                gradient = torch.empty_like(parameter, requires_grad=False).copy_(gradient)
            taken.add(storage)
        own.append(gradient)
    return tuple(own)
