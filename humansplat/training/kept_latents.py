"""What is encoded of a pool's people, once: four pictures of 512 px take longer than the transformer's own step.

It holds where the given pictures never change but for being mirrored, and for colours of which each person has a few
that are drawn beforehand; all of these states are kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from tqdm import tqdm

from humansplat.config import AugmentConfig
from humansplat.data.augment import augment, mirror
from humansplat.data.dataset import PeoplePool
from humansplat.data.people import PeopleBatch

PEOPLE_AT_ONCE = 4


class KeptPeople:
    """What is computed of all people of a pool, in each state, on the pool's device.

    A state takes 32 KiB for each latent in half precision of a picture of 512 px.

    Args:
        pool: People who stay: nobody is added or replaced.
        encode: Gives tensors ``[b, ...]``, which are kept as they are.
        num_inputs: Views that ``encode`` is given.
        colors: Its ``gain`` and ``permute`` make the variants; without it they are one, the pictures as they are.
        variants: In how many colours everybody is kept.
        seed: Of the colours.
        at_once: People that are encoded together.
    """

    def __init__(
        self,
        pool: PeoplePool,
        encode: Callable[[PeopleBatch], Sequence[Tensor]],
        *,
        num_inputs: int,
        colors: AugmentConfig | None = None,
        variants: int = 1,
        seed: int = 0,
        at_once: int = PEOPLE_AT_ONCE,
    ) -> None:
        self.pool = pool
        self.variants = variants if colors is not None and (colors.gain > 0 or colors.permute > 0) else 1
        generator = torch.Generator(pool.device).manual_seed(seed)
        kept: list[list[Tensor]] = []
        with torch.no_grad(), tqdm(desc="latents", unit="person", total=len(pool)) as bar:
            for some in pool.everybody(at_once):
                batch = pool.batch(some, some[:, None] * 0, num_inputs=num_inputs)  # type: ignore[arg-type]
                states: list[Sequence[Tensor]] = []
                for _ in range(self.variants):
                    colored = batch
                    if colors is not None:
                        colored = augment(batch, replace(colors, mirror=0.0), pool.template, generator)
                    states += encode(colored), encode(mirror(colored, torch.ones_like(some).bool(), pool.template))
                kept.append([torch.stack(tensors, dim=1) for tensors in zip(*states, strict=True)])
                bar.update(len(some))
        self._values = [torch.cat(parts) for parts in zip(*kept, strict=True)]  # [n, 2 * variants, ...]

    def of(
        self, people: Int[Tensor, " b"], mirrored: Bool[Tensor, " b"], variant: Int[Tensor, " b"] | None = None
    ) -> list[Tensor]:
        """What ``encode`` gave of people in a state, as float32; without ``variant`` in their first colours."""
        state = mirrored.long() if variant is None else 2 * variant + mirrored
        return [values[people, state].float() for values in self._values]
