"""What is encoded of a pool's people, once: four pictures of 512 px take longer than the transformer's own step.

It holds where the given pictures never change but for being mirrored, and for colours of which each person has a few
that are drawn beforehand; all of these states are kept. People who come while training goes on are encoded between its
steps, so many together.
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

    A state takes 32 KiB for each latent in half precision of a picture of 512 px. There is room for as many people as
    the pool has room for. Whoever is there now is encoded at once, who comes later by :meth:`follow`; the length is
    the number of people that can be drawn: the first so many places of the pool.

    Args:
        pool: May go on growing, and replace its oldest: what was kept of a place holds until it is encoded anew.
        encode: Gives tensors ``[b, ...]``, which are kept as they are.
        num_inputs: Views that ``encode`` is given.
        colors: Its ``gain``, ``permute`` and ``saturate`` make the variants; without any they are one, the pictures as
            they are.
        variants: In how many colours everybody is kept.
        seed: Of the colours.
        at_once: People that are encoded together, in one step.
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
        recolored = colors is not None and max(colors.gain, colors.permute, colors.saturate) > 0
        self.variants = variants if recolored else 1
        self._encode, self._num_inputs, self._colors = encode, num_inputs, colors
        self._generator = torch.Generator(pool.device).manual_seed(seed)
        self._at_once = min(at_once, pool.capacity)  # nobody twice in one batch
        self._values: list[Tensor] = []  # [capacity, 2 * variants, ...]
        self._num_encoded = pool.num_stored  # who comes meanwhile is encoded later
        with tqdm(desc="latents", unit="person", total=len(pool)) as bar:
            for some in pool.everybody(at_once):
                self._keep(some)
                bar.update(len(some))

    def __len__(self) -> int:
        """People that can be drawn now."""
        return min(self._num_encoded, self.pool.capacity)

    def follow(self) -> None:
        """Encode the next people who came since, once there are as many as are encoded together.

        Bounded work, always of one shape, and without waiting for the device.
        """
        first = self._num_encoded
        if self.pool.num_stored - first >= self._at_once:
            places = torch.arange(first, first + self._at_once, device=self.pool.device)
            self._keep(places % self.pool.capacity)
            self._num_encoded += self._at_once

    def of(
        self, people: Int[Tensor, " b"], mirrored: Bool[Tensor, " b"], variant: Int[Tensor, " b"] | None = None
    ) -> list[Tensor]:
        """What ``encode`` gave of people in a state, as float32; without ``variant`` in their first colours."""
        state = mirrored.long() if variant is None else 2 * variant + mirrored
        return [values[people, state].float() for values in self._values]

    def _keep(self, places: Int[Tensor, " b"]) -> None:
        """Encode people in all states."""
        pool, states = self.pool, []
        with torch.no_grad():
            batch = pool.batch(places, places[:, None] * 0, num_inputs=self._num_inputs)  # type: ignore[arg-type]
            for _ in range(self.variants):
                colored = batch
                if self._colors is not None:
                    colored = augment(batch, replace(self._colors, mirror=0.0), pool.template, self._generator)
                mirrored = mirror(colored, torch.ones_like(places).bool(), pool.template)
                states += [self._encode(colored), self._encode(mirrored)]
            found = [torch.stack(tensors, dim=1) for tensors in zip(*states, strict=True)]
            if not self._values:
                self._values = [values.new_empty(pool.capacity, *values.shape[1:]) for values in found]
            for values, new in zip(self._values, found, strict=True):
                values[places] = new
