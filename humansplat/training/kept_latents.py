"""Latents of a pool's people, encoded once: four pictures of 512 px take longer than the transformer's own step.

They hold where the given pictures never change but for being mirrored, so both states of each person are kept.
"""

from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm

from humansplat.data.augment import mirrored_pictures
from humansplat.data.dataset import PeoplePool
from humansplat.data.people import PeopleBatch
from humansplat.training.latents import LatentSource

PEOPLE_AT_ONCE = 4


class KeptLatents:
    """The latents of all people of a pool, on its device, in half precision.

    Takes 32 KiB for each picture of 512 px that a person gives as input, twice for the mirrored ones.

    Args:
        source: Encodes.
        pool: People who stay: nobody is added or replaced.
        num_inputs: Views that are given of each person.
    """

    def __init__(self, source: LatentSource, pool: PeoplePool, num_inputs: int) -> None:
        self.pool = pool
        parts: list[Tensor] = []
        with torch.no_grad(), tqdm(desc="latents", unit="person", total=len(pool)) as bar:
            for some in pool.everybody(PEOPLE_AT_ONCE):
                images = pool.batch(some, some[:, None] * 0, num_inputs=num_inputs).images  # type: ignore[arg-type]
                both = torch.stack([source.encode(images), source.encode(mirrored_pictures(images))], dim=1)
                parts.append(both.half())
                bar.update(len(some))
        self._values = torch.cat(parts)  # [n, 2, v, c, g, g]

    def given_to(self, batch: PeopleBatch) -> PeopleBatch:
        """A batch of this pool with the latents of its pictures."""
        mirrored = torch.zeros_like(batch.people) if batch.mirrored is None else batch.mirrored.long()
        return replace(batch, latents=self._values[batch.people, mirrored].float())
