"""Means of the losses between two readings, summed on the device."""

import torch
from accelerate import Accelerator
from torch import Tensor


class LossMeter:
    """Adds up named scalars without waiting for the device; steps that were left out do not count.

    Args:
        accelerator: Its processes' means are averaged.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._sums: dict[tuple[str, ...], Tensor] = {}  # by names: a task's losses may change in a run
        self._in_a_row: Tensor | None = None
        self._most_in_a_row: Tensor | None = None
        self.bad_steps = 0
        """Steps left out so far."""
        self.bad_in_a_row = 0
        """Most steps left out in a row before the last reading."""

    def add(self, values: dict[str, Tensor], left_out: Tensor, bad: Tensor) -> None:
        """Take in one step's scalars.

        Args:
            values: By name.
            left_out: Whether, on the device, the step was left out.
            bad: Whether it is to be counted; not every step that was left out is.
        """
        good = ~left_out
        scalars = torch.stack([value.detach().float() for value in values.values()])
        row = torch.cat([torch.where(good, scalars, 0), good[None].float(), bad[None].float()])
        names = tuple(name.lstrip("_") for name in values)
        self._sums[names] = self._sums[names] + row if names in self._sums else row
        self._in_a_row = bad.int() if self._in_a_row is None else (self._in_a_row + 1) * bad
        most = self._in_a_row if self._most_in_a_row is None else torch.maximum(self._most_in_a_row, self._in_a_row)
        self._most_in_a_row = most

    def read(self) -> dict[str, float]:
        """Means since the last reading, over all processes; waits for the device."""
        means: dict[str, float] = {}
        for names, sums in self._sums.items():
            shared = self._accelerator.reduce(sums, "mean") if self._accelerator.num_processes > 1 else sums
            *totals, good, bad = shared.tolist()
            self.bad_steps += round(bad)
            means |= {name: total / good if good else float("nan") for name, total in zip(names, totals, strict=True)}
        if self._most_in_a_row is not None:
            self.bad_in_a_row = int(self._most_in_a_row)
        self._sums, self._most_in_a_row = {}, None
        return means | {"bad_steps": float(self.bad_steps)}
