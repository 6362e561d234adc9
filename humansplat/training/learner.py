"""What learns: a module with its optimizer, its averaged weights and, in half precision, its loss scale."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn

from humansplat.config import TrainConfig
from humansplat.errors import UserError
from humansplat.misfits import check_tensors
from humansplat.training.checkpoint import Checkpoint, check_part_size, load_checkpoint
from humansplat.training.compilation import compile_network, without_compiled_code
from humansplat.training.ema import AveragedWeights
from humansplat.training.exchange import GradientExchange
from humansplat.training.optimizer import LossScale, clipped_step, make_optimizer, moments, restore_moments
from humansplat.training.precision import autocast
from humansplat.training.sharding import assign, shard, sharding_plan, whole, wrap
from humansplat.training.task import Task

PRETRAINED = "diffusion_pytorch_model.safetensors"
"""What diffusers' ``save_pretrained`` writes."""


class Learner:
    """The module of a task on its device, sharded if accelerate's configuration says so, and all that trains it.

    Args:
        config: The run.
        task: Builds the module.
        accelerator: Made without mixed precision.

    Raises:
        UserError: If the module cannot be trained as configured.
    """

    def __init__(self, config: TrainConfig, task: Task[Any, Any], accelerator: Accelerator) -> None:
        self.config, self.accelerator = config, accelerator
        self._plan = sharding_plan(accelerator)
        if self._plan is not None and config.compile == "graphs":
            raise UserError(
                "compile is graphs, and no recording gathers parameters that FSDP shares out: set it to blocks or no, "
                "or leave every process all of them (configs/accelerate/two_gpus.yaml)"
            )
        self._exchange: GradientExchange | None = None
        device = accelerator.device
        torch.manual_seed(config.seed)
        with device:  # a billion first weights take seconds on one CPU core
            module = task.build_module()
        self.module = module.to(device).train()
        self._build_module = task.build_module
        self._copy: nn.Module | None = None
        """Of a sharded module, in the first process: whole, and on the CPU while nobody uses it."""
        if config.gradient_checkpointing:
            enable_checkpointing(self.module)
        if self._plan is not None:
            shard(self.module, self._plan, accelerator)
        self.scale = LossScale(device) if config.mixed_precision == "fp16" else None
        for frozen in task.frozen_modules():
            frozen.to(device).eval().requires_grad_(False)
        self.optimizer = make_optimizer(self.module, config.optim)
        self.averages = AveragedWeights(self.module, config.optim.ema_decay)
        check_part_size(self.module, config.checkpoint)

    def wrap(self) -> nn.Module:
        """The module, whose weights are loaded, as training calls it: compiled, and wrapped for several processes."""
        compile_network(self.module, self.config.compile)
        if self.config.compile == "graphs" and self.accelerator.num_processes > 1:
            return self.without_hooks()
        return wrap(self.module, self.accelerator)

    def without_hooks(self) -> nn.Module:
        """The module as it is: :meth:`step` exchanges its gradients, for backward passes that run no hooks."""
        self._exchange = GradientExchange(self.module)
        return self.module

    def autocast(self) -> torch.autocast:
        """In which precision the module computes."""
        return autocast(self.accelerator.device, self.config.mixed_precision)

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients to those that :meth:`step` takes."""
        (loss * (1.0 if self.scale is None else self.scale.value)).backward()

    def step(self, number: int) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Take the optimizer's step, unless a gradient is not finite, and average the weights.

        Args:
            number: Of the step.

        Returns:
            Figures to log, whether the step was left out, and whether that is to be counted as a bad step: one whose
            loss scale was too large is not. All of them on the device.
        """
        scale = self.scale
        if self._exchange is not None:
            self._exchange()
        norm, left_out = clipped_step(
            self.optimizer, self.config.optim.max_grad_norm, None if scale is None else scale.value
        )
        figures, bad = {"grad_norm": norm}, left_out
        if scale is not None:
            figures["loss_scale"] = scale.value
            bad = scale.update(left_out)
        self.averages.update(number)
        return figures, left_out, bad

    @contextlib.contextmanager
    def averaged(self) -> Iterator[nn.Module | None]:
        """The module with averaged weights, in ``eval`` mode and without gradients, in the first process.

        All processes must enter: of a sharded module the first one gets a whole copy, with the others' help.
        """
        is_main = self.accelerator.is_main_process
        if self._plan is not None:
            state = whole(self.module.state_dict() | self.averages.state_dict(), keep=is_main)
            if is_main:
                if self._copy is None:
                    self._copy = self._build_module().eval()
                self._copy.load_state_dict(state)
                with torch.no_grad(), self.autocast():
                    yield self._copy.to(self.accelerator.device)
                self._copy.to("cpu")
            else:
                yield None
            return
        self.module.eval()
        plain = without_compiled_code(self.config.compile)
        with self.averages.applied(), torch.no_grad(), self.autocast(), plain:
            yield self.module if is_main else None
        self.module.train()

    def state(self) -> dict[str, dict[str, Tensor]]:
        """What a :class:`Checkpoint` keeps of tensors, whole in the first process; all processes must call it."""
        is_main = self.accelerator.is_main_process
        return {
            "weights": whole(self.module.state_dict(), keep=is_main),
            "averages": whole(self.averages.state_dict(), keep=is_main),
            "moments": whole(moments(self.module, self.optimizer), keep=is_main),
            "loss_scale": self.scale.state_dict() if self.scale is not None else {},
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take what :meth:`state` gave.

        Raises:
            UserError: If it does not fit.
        """
        self._load(checkpoint, averaged=False)
        self.averages.load_state_dict(checkpoint.averages)
        restore_moments(self.module, self.optimizer, checkpoint.moments)
        if self.scale is not None and checkpoint.loss_scale:
            self.scale.load_state_dict(checkpoint.loss_scale)

    def start_from(self, folder: Path) -> None:
        """Begin with other weights: another run's averages, or a model as diffusers saves it.

        Raises:
            UserError: If there are none, or they do not fit.
        """
        pretrained = folder / PRETRAINED
        if pretrained.is_file():
            state = _named_as_in(self.module, load_file(pretrained))
            check_tensors(state, shapes_of(self.module.state_dict()), str(pretrained), "this model")
            self._assign(state)
        else:
            self._load(load_checkpoint(folder), averaged=True)
        self.averages = AveragedWeights(self.module, self.config.optim.ema_decay)

    def _load(self, checkpoint: Checkpoint, *, averaged: bool) -> None:
        what = f"the checkpoint of step {checkpoint.step}"
        check_tensors(checkpoint.weights, shapes_of(self.module.state_dict()), what, "this model")
        check_tensors(checkpoint.averages, shapes_of(dict(self.module.named_parameters())), what, "this model")
        self._assign(checkpoint.weights | checkpoint.averages if averaged else checkpoint.weights)

    def _assign(self, weights: dict[str, Tensor]) -> None:
        for name, tensor in self.module.state_dict().items():
            assign(tensor, weights[name])


def _named_as_in(module: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A saved model's weights under the names of a module that wraps that model alone, as training modules do."""
    names = set(module.state_dict())
    wrapped = [child for child, _ in module.named_children()]
    if names.isdisjoint(weights) and len(wrapped) == 1:
        return {f"{wrapped[0]}.{name}": tensor for name, tensor in weights.items()}
    return weights


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Shapes by name; of sharded tensors those of the whole."""
    return {name: tensor.shape for name, tensor in tensors.items()}


def enable_checkpointing(module: nn.Module) -> None:
    """Have a module compute its activations anew in the backward pass instead of keeping them.

    Raises:
        UserError: If it cannot.
    """
    enable = getattr(module, "enable_gradient_checkpointing", None)
    # Every model of diffusers has the method, and tells so whether it does anything.
    if enable is None or not getattr(module, "_supports_gradient_checkpointing", True):
        raise UserError(
            f"{type(module).__name__} cannot compute activations anew: set gradient_checkpointing to false"
        )
    enable()
