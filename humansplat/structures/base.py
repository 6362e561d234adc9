"""Base class of the frozen records of tensors that the stages pass around."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar, dataclass_transform

import torch
from torch import Tensor

S = TypeVar("S", bound="TensorStruct")  # typing.Self on methods breaks beartype's import hook


@dataclass_transform(frozen_default=True, kw_only_default=True)
class TensorStruct:
    """Subclass and annotate fields; every operation returns a new record."""

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(frozen=True, kw_only=True, eq=False)(cls)

    def map(self: S, fn: Callable[[Tensor], Tensor]) -> S:
        """Apply ``fn`` to every tensor, also of nested records and dictionaries; keep the other fields."""
        values: dict[str, object] = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                value = fn(value)
            elif isinstance(value, TensorStruct):
                value = value.map(fn)
            elif isinstance(value, dict):
                value = {key: fn(item) if isinstance(item, Tensor) else item for key, item in value.items()}
            values[field.name] = value
        return type(self)(**values)

    def to(self: S, device: torch.device | str) -> S:
        """Move every tensor to ``device``."""
        return self.map(lambda tensor: tensor.to(device))

    def detach(self: S) -> S:
        """Cut every tensor from the autograd graph."""
        return self.map(lambda tensor: tensor.detach())

    def __getitem__(self: S, index: int | slice | Tensor | tuple[int | slice, ...]) -> S:
        """Index the leading axes of every tensor field."""
        return self.map(lambda tensor: tensor[index])
