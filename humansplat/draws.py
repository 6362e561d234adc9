"""Random numbers of training batches, the same however a batch is spread over processes.

A step's batch is the people of all processes and accumulated parts. With a :class:`BatchGenerator` each process draws
the numbers of the whole batch and takes those of its own people, so what befalls somebody depends on the step and on
their place in the batch, not on who computes it. Whatever a step draws a person should come from the functions here;
numbers that concern nobody in particular can be drawn from the generator itself, and are the same in all processes.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


class BatchGenerator(torch.Generator):
    """A generator that knows which rows of a larger batch are drawn with it; made as ``BatchGenerator(device)``."""

    first = 0
    """Rows of the whole batch before these."""
    size = 1
    """Rows of this part."""
    total = 1
    """Rows of the whole batch."""

    def begin(self, *seed: int, part: int, num_parts: int, size: int) -> None:
        """Start on one part of a batch; parts of the same seed draw rows of the same numbers.

        Args:
            seed: Of the batch: whole numbers, at least 0, for instance of the run and of the step.
            part: Number of the part.
            num_parts: Parts of the batch, each in one process and one accumulated piece.
            size: Rows of each part.
        """
        self.manual_seed(mixed_seed(*seed))
        self.first, self.size, self.total = part * size, size, num_parts * size


def mixed_seed(*numbers: int) -> int:
    """A seed of 64 bits out of whole numbers, at least 0; neighbouring ones have nothing in common."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def uniform(generator: torch.Generator, count: int, *shape: int) -> Tensor:
    """Numbers in [0, 1), ``[count, *shape]``, on the generator's device.

    Args:
        generator: With a ``BatchGenerator``, these are rows of what the whole batch draws.
        count: People of this part, or a multiple: then each has several rows in succession.
        shape: Of the numbers of each row.
    """
    return _rows(generator, count, lambda n: torch.rand(n, *shape, generator=generator, device=generator.device))


def normal(generator: torch.Generator, count: int, *shape: int) -> Tensor:
    """Standard normal numbers, otherwise as :func:`uniform`."""
    return _rows(generator, count, lambda n: torch.randn(n, *shape, generator=generator, device=generator.device))


def integers(generator: torch.Generator, high: int, count: int, *shape: int) -> Tensor:
    """Whole numbers from 0 to below ``high``, otherwise as :func:`uniform`."""
    return _rows(
        generator, count, lambda n: torch.randint(high, (n, *shape), generator=generator, device=generator.device)
    )


def _rows(generator: torch.Generator, count: int, draw: Callable[[int], Tensor]) -> Tensor:
    if not isinstance(generator, BatchGenerator):
        return draw(count)
    each, rest = divmod(count, generator.size)
    assert rest == 0, f"{count} rows do not belong to {generator.size} people alike"
    first = generator.first * each
    return draw(generator.total * each)[first : first + count]
