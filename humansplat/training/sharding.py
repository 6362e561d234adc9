"""One module in several processes: every parameter in each of them (DDP), or a share of it in each (FSDP2).

Which it is says accelerate's configuration file (``configs/accelerate/``). Sharded parameters, their averages and
their moments are ``DTensor``; what a step does to them it does to this process's share (:func:`local`), and what is
written and read is whole (:func:`whole`, :func:`assign`), so that a run can go on in any number of processes.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeGuard

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from humansplat.errors import UserError

if TYPE_CHECKING:  # takes seconds to import, and most runs shard nothing
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor


def sharding_plan(accelerator: Accelerator) -> FullyShardedDataParallelPlugin | None:
    """What accelerate's configuration says of sharding; ``None`` if parameters are not sharded.

    Raises:
        UserError: If it asks for what is not done here.
    """
    asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if accelerator.num_processes == 1 or not asked:
        return None
    # Accelerate itself shards on GPUs only, torch on CPUs, too.
    plan = getattr(accelerator.state, "fsdp_plugin", None) or FullyShardedDataParallelPlugin()
    if plan.fsdp_version != 2:
        raise UserError(f"fsdp_version ({plan.fsdp_version}) must be 2: see configs/accelerate/fsdp.yaml")
    if os.environ.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true":
        raise UserError("fsdp_offload_params is not supported: leave it out, or shard over more GPUs")
    if plan.activation_checkpointing:
        raise UserError("fsdp_activation_checkpointing is set: use gradient_checkpointing of the run's configuration")
    return plan


def shard(module: nn.Module, plan: FullyShardedDataParallelPlugin, accelerator: Accelerator) -> None:
    """Leave every process its share of the parameters, in place.

    Parameters are gathered, used and let go block by block; the blocks are the modules whose classes the plan names
    (``fsdp_transformer_layer_cls_to_wrap``), or the module itself (``_no_split_modules``, as in diffusers).
    """
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    names = plan.transformer_cls_names_to_wrap or getattr(module, "_no_split_modules", None) or []
    blocks = [child for child in module.modules() if type(child).__name__ in names and child is not module]
    for block in reversed(blocks):  # inner ones first
        fully_shard(block, mesh=mesh, reshard_after_forward=plan.reshard_after_forward)
    fully_shard(module, mesh=mesh)


def is_sharded_module(module: nn.Module) -> "TypeGuard[FSDPModule]":
    """Whether :func:`shard` was applied to it."""
    return hasattr(module, "set_requires_gradient_sync")


def is_sharded(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether a tensor is one process's share of a larger one."""
    return hasattr(tensor, "full_tensor")


def wrap(module: nn.Module, accelerator: Accelerator) -> nn.Module:
    """The module as training calls it."""
    if accelerator.num_processes == 1 or is_sharded_module(module):
        return module
    # Buffers are the same everywhere: nothing in a step changes them.
    return DistributedDataParallel(module, gradient_as_bucket_view=True, broadcast_buffers=False)


@contextlib.contextmanager
def without_exchange(wrapped: nn.Module) -> Iterator[None]:
    """Within the block gradients are added up in each process and not exchanged."""
    if is_sharded_module(wrapped):
        wrapped.set_requires_gradient_sync(False)
        yield
        wrapped.set_requires_gradient_sync(True)
        return
    with wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) else contextlib.nullcontext():
        yield


def local(tensor: Tensor) -> Tensor:
    """This process's share of a tensor, or the tensor itself where it is not sharded; to be used without gradients."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def whole(tensors: dict[str, Tensor], *, keep: bool = True) -> dict[str, Tensor]:
    """Sharded tensors put together; all processes must call it.

    Args:
        tensors: Sharded or not.
        keep: Whether this process wants them: others help and get nothing, one tensor at a time.

    Returns:
        Sharded ones on the CPU, the rest as they are.
    """
    kept = {}
    for name, tensor in tensors.items():
        full = tensor.full_tensor() if is_sharded(tensor) else tensor
        if keep:
            kept[name] = full.cpu() if is_sharded(tensor) else full
    return kept


@torch.no_grad()
def assign(target: Tensor, value: Tensor) -> None:
    """Put a whole value into a tensor, or this process's share of it into a sharded one."""
    if is_sharded(target):
        from torch.distributed.tensor import distribute_tensor

        value = value.to(target.device)
        value = distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None).to_local()
        target.to_local().copy_(value)
    else:
        target.copy_(value)


@torch.no_grad()
def total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The Euclidean norm of all entries of tensors, sharded alike or not; a scalar on the device, without waiting."""
    tensors = list(tensors)
    if not tensors:
        return torch.zeros(())
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm([local(tensor) for tensor in tensors])))
    if is_sharded(tensors[0]):
        squared = norm.square()
        dist.all_reduce(squared, group=tensors[0].device_mesh.get_group())
        norm = squared.sqrt()
    return norm
