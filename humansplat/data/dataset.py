"""People held in memory as whole-number pictures on the training device."""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from humansplat.config import AugmentConfig
from humansplat.data.people import BodyTemplate, PeopleBatch


class PeoplePool:
    """People of one folder, decoded once and drawn from many times.

    Everything lies in preallocated tensors on ``device``: uint8 pictures ``[capacity, views, 4, h, w]``,
    cameras and bodies. A background thread can go on adding people that appear in the folder; a full
    pool replaces its oldest. All methods can be called while it does.

    Args:
        root: Folder as ``docs/data-format.md`` describes.
        template: What the bodies share.
        capacity: Most people kept.
        device: Where the tensors lie and where batches are made.
        image_size: Side of the square pictures; ``None`` keeps that of the files.
        rank: This process takes the people whose line in the manifest is ``rank`` modulo ``world_size``.
        world_size: Number of processes.
        num_workers: Threads that decode.
    """

    def __init__(
        self,
        root: Path,
        template: BodyTemplate,
        *,
        capacity: int,
        device: torch.device | str = "cpu",
        image_size: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 4,
    ) -> None: ...

    def __len__(self) -> int:
        """People that can be drawn now."""
        ...

    @property
    def num_views(self) -> int:
        """Views of each person, the four of the rig first."""
        ...

    @property
    def names(self) -> list[str]:
        """Folder names of the people, by their places."""
        ...

    def load(self, minimum: int = 1, progress: Callable[[int, int], None] | None = None) -> None:
        """Read everyone the manifest lists now; wait until there are ``minimum`` people."""
        ...

    def watch(self) -> None:
        """Start the background thread that adds people as they come."""
        ...

    def close(self) -> None:
        """Stop the background thread."""
        ...

    def sample(
        self,
        batch_size: int,
        num_targets: int,
        generator: torch.Generator,
        *,
        num_inputs: int = 1,
        augment: AugmentConfig | None = None,
    ) -> PeopleBatch:
        """Draw people and, for each, different target views among all of theirs.

        Args:
            batch_size: People, with repetition.
            num_targets: Pictures to be matched, a person; the rig's views can be among them.
            generator: On the pool's device.
            num_inputs: Pictures of the rig given as input, 1 to 4.
            augment: Random mirroring and recolouring; ``None`` changes nothing.
        """
        ...

    def batch(self, people: Int[Tensor, " b"], views: Int[Tensor, "b t"], *, num_inputs: int = 1) -> PeopleBatch:
        """The given people and target views, as they are."""
        ...
