"""The pools of people that a run draws from."""

from collections.abc import Iterator
from contextlib import contextmanager

from accelerate import Accelerator
from tqdm import tqdm

from humansplat.body.anny import AnnyBody
from humansplat.config import DataConfig
from humansplat.data.dataset import PeoplePool
from humansplat.data.people import BodyTemplate


@contextmanager
def open_pools(config: DataConfig, accelerator: Accelerator) -> Iterator[tuple[PeoplePool, PeoplePool | None]]:
    """Load this process's share of the training people and, in the first process, the validation people.

    With ``config.watch`` the training pool goes on growing until the block ends.

    Raises:
        UserError: If a folder holds too few people or broken ones.
    """
    template = BodyTemplate.of(AnnyBody.load())
    train_pool = PeoplePool(
        config.train,
        template,
        capacity=config.capacity,
        device=accelerator.device,
        image_size=config.image_size,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        num_workers=config.num_workers,
    )
    _load(train_pool, "training people", accelerator, minimum=config.min_people, wait=config.watch)
    validation_pool = None
    if config.validation is not None and accelerator.is_main_process:
        validation_pool = PeoplePool(
            config.validation,
            template,
            capacity=config.validation_people,
            device=accelerator.device,
            image_size=config.image_size,
            num_workers=config.num_workers,
        )
        _load(validation_pool, "validation people", accelerator, limit=config.validation_people)
    if config.watch:
        train_pool.watch()
    try:
        yield train_pool, validation_pool
    finally:
        train_pool.close()


def _load(
    pool: PeoplePool,
    what: str,
    accelerator: Accelerator,
    *,
    minimum: int = 1,
    limit: int | None = None,
    wait: bool = False,
) -> None:
    with tqdm(desc=what, unit="person", disable=not accelerator.is_main_process) as bar:

        def show(done: int, known: int) -> None:
            bar.total = known
            bar.update(done - bar.n)

        pool.load(minimum, limit=limit, wait=wait, progress=show)
