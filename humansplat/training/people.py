"""The people that a run draws from: pools in memory, or streams."""

import contextlib
from collections.abc import Iterator

from accelerate import Accelerator
from tqdm import tqdm

from humansplat.body.models import load_body_model
from humansplat.body.protocol import BodyModel
from humansplat.config import DataConfig
from humansplat.data.dataset import PeoplePool
from humansplat.data.people import BodyTemplate
from humansplat.data.stream import PeopleStream

People = PeoplePool | PeopleStream


def load_body(config: DataConfig) -> BodyModel:
    """The body model of a run's people.

    Raises:
        UserError: If there is no such model, or its files are missing.
    """
    return load_body_model(config.body_model, folder=config.body_models, gender=config.body_gender)


@contextlib.contextmanager
def open_pools(
    config: DataConfig, accelerator: Accelerator, *, seed: int = 0
) -> Iterator[tuple[People, PeoplePool | None]]:
    """Open this process's share of the training people and, in the first process, load the validation people.

    With ``config.watch`` the training pool goes on growing until the block ends.

    Args:
        config: Which people.
        accelerator: Tells the device and the process.
        seed: Of the order and the views of streamed people.

    Raises:
        UserError: If a folder holds too few people or broken ones.
    """
    template = BodyTemplate.of(load_body(config))
    train_people = _open_training(config, accelerator, template, seed)
    validation_pool = None
    if config.validation is not None and accelerator.is_main_process:
        validation_pool = PeoplePool(
            config.validation,
            template,
            capacity=config.validation_people,
            device=accelerator.device,
            image_size=config.image_size,
            num_workers=max(1, config.num_workers),
            max_views=config.max_views,
            flagged=config.flagged,
        )
        _load(validation_pool, "validation people", accelerator, limit=config.validation_people)
    if config.watch and isinstance(train_people, PeoplePool):
        train_people.watch()
    try:
        yield train_people, validation_pool
    finally:
        train_people.close()


def _open_training(config: DataConfig, accelerator: Accelerator, template: BodyTemplate, seed: int) -> People:
    rank, world_size = accelerator.process_index, accelerator.num_processes
    if config.source != "pool":
        return PeopleStream(
            config.source,
            config.stream.roots or (str(config.train),),
            template,
            config.stream,
            device=accelerator.device,
            image_size=config.image_size,
            seed=seed,
            flagged=config.flagged,
            rank=rank,
            world_size=world_size,
            num_workers=config.num_workers,
        )
    pool = PeoplePool(
        config.train,
        template,
        capacity=config.capacity,
        device=accelerator.device,
        image_size=config.image_size,
        rank=0 if config.replicate else rank,
        world_size=1 if config.replicate else world_size,
        num_workers=config.num_workers,
        max_views=config.max_views,
        flagged=config.flagged,
        cache=config.cache,
    )
    # A cache is written by one process; the others find it whole.
    with accelerator.local_main_process_first() if config.cache else contextlib.nullcontext():
        _load(pool, "training people", accelerator, minimum=config.min_people, wait=config.watch)
    return pool


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
