"""People that are read while training goes on, drawn from as a pool is."""

import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from humansplat.config import AugmentConfig, StreamConfig
from humansplat.data.augment import augment as augment_batch
from humansplat.data.listing import list_people
from humansplat.data.people import BodyTemplate, PeopleBatch
from humansplat.data.samples import EndlessBatches, PeopleDataset, PersonSample, SampleOptions, collate
from humansplat.data.shards import ShardDataset
from humansplat.data.tar_stream import read_index
from humansplat.errors import UserError

PREFETCHED = 2
"""Batches that each worker process prepares ahead."""


class PeopleStream:
    """Batches of people out of folders or shards, prepared by worker processes.

    Views come from the stream's own seed and position, random changes from the caller's generator. What it gives
    depends on the position alone; for shards also on the numbers of processes and worker processes.

    Args:
        kind: ``stream`` reads folders, ``shards`` tar files.
        roots: Folders, or folders and URLs of shards.
        template: What the bodies share.
        config: How to read.
        device: Where batches are made.
        image_size: Side of the square pictures; ``None`` keeps that of the files.
        seed: Of order and views.
        flagged: Take people, too, of whom the manifest says what is wrong with them.
        rank: Of this process.
        world_size: Number of processes.
        num_workers: Worker processes; 0 reads in this one.

    Raises:
        UserError: If a root lists nobody.
    """

    def __init__(
        self,
        kind: Literal["stream", "shards"],
        roots: Sequence[str],
        template: BodyTemplate,
        config: StreamConfig,
        *,
        device: torch.device | str = "cpu",
        image_size: int | None = None,
        seed: int = 0,
        flagged: bool = False,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
    ) -> None:
        self.device = torch.device(device)
        self.template = template.to(self.device)
        self.position = 0
        """Samples that all processes together have drawn."""
        self._kind, self._roots, self._config = kind, list(roots), config
        self._image_size, self._seed, self._flagged = image_size, seed, flagged
        self._rank, self._world_size, self._num_workers = rank, world_size, num_workers
        self._wanted: tuple[int, SampleOptions] | None = None
        self._batches: Iterator[PersonSample | UserError] = iter(())
        self._num_people = self._count()

    def __len__(self) -> int:
        """People of all roots."""
        return self._num_people

    def seek(self, position: int) -> None:
        """Go on after so many samples of all processes together."""
        self.close()
        self.position = position

    def close(self) -> None:
        """End the worker processes; the next sample starts new ones."""
        self._batches, self._wanted = iter(()), None

    def sample(
        self,
        batch_size: int,
        num_targets: int,
        generator: torch.Generator,
        *,
        num_inputs: Literal[1, 4] = 1,
        photo_weight: float = 0.0,
        whole: bool = False,
        augment: AugmentConfig | None = None,
    ) -> PeopleBatch:
        """The next people; see :meth:`humansplat.data.dataset.PeoplePool.sample` for the arguments.

        Raises:
            UserError: If a person's files are missing, broken or unlike the others'.
        """
        shares = self._config.views
        options = SampleOptions(
            num_targets=num_targets,
            num_inputs=num_inputs,
            photo_weight=photo_weight,
            shares=replace(shares, rig=0.0, half=0.0, face=0.0, closeup=0.0) if whole else shares,
            ring_inputs=self._config.ring_inputs,
            image_size=self._image_size,
        )
        if self._wanted != (batch_size, options):
            self._batches = iter(self.loader(batch_size, options))
            self._wanted = (batch_size, options)
        drawn = next(self._batches)
        if isinstance(drawn, UserError):
            self.close()
            raise drawn
        self.position += batch_size * self._world_size
        batch = drawn.to(self.device).batch(self.template)
        return batch if augment is None else augment_batch(batch, augment, self.template, generator)

    def _count(self) -> int:
        if self._kind == "stream":
            return sum(len(list_people(Path(root), flagged=self._flagged)) for root in self._roots)
        return sum(len(shard.people) for root in self._roots for shard in read_index(root))

    def loader(self, batch_size: int, options: SampleOptions) -> DataLoader:
        """An endless row of batches from the present position on, as the files have them; mistakes come as values."""
        config = self._config
        how: dict[str, Any] = {
            "num_workers": self._num_workers,
            "collate_fn": _collate,
            "pin_memory": self.device.type == "cuda",
            # Its own: a loader draws its workers' seeds when it starts, which a resumed run does at another step.
            "generator": torch.Generator().manual_seed(self._seed),
        }
        if self._num_workers:
            how |= {
                "prefetch_factor": PREFETCHED,
                "multiprocessing_context": "spawn",
                "worker_init_fn": _start_worker,
            }
        common: dict[str, Any] = {"seed": self._seed, "weights": config.weights, "verify": config.verify}
        place: dict[str, Any] = {"position": self.position, "rank": self._rank, "world_size": self._world_size}
        if self._kind == "stream":
            roots = [Path(root) for root in self._roots]
            people = PeopleDataset(roots, self.template, options, flagged=self._flagged, **common)
            return DataLoader(_Guarded(people), batch_sampler=EndlessBatches(batch_size, **place), **how)
        rows = ShardDataset(
            self._roots,
            self.template,
            options,
            buffer=config.shuffle_buffer,
            batch_size=batch_size,
            **place,
            **common,
        )
        return DataLoader(_GuardedRow(rows), batch_size=batch_size, **how)


# A worker process hands mistakes over as values: raised there, they would come wrapped into a traceback.


def _start_worker(worker: int) -> None:
    """Prepare a worker process for how it will end."""
    # Ctrl-C reaches all processes of a terminal, but a run goes on to its next reading and writes a checkpoint.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A spawned process tears its interpreter down, and torch's threads may abort it then. It has nothing to tidy up
    # once its queues are flushed, which multiprocessing does at priorities above this one.
    Finalize(None, os._exit, args=(0,), exitpriority=-1000)


class _Guarded(Dataset[PersonSample | UserError]):
    def __init__(self, dataset: PeopleDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, index: int) -> PersonSample | UserError:
        try:
            return self._dataset[index]
        except UserError as error:
            return UserError(str(error))


class _GuardedRow(IterableDataset[PersonSample | UserError]):
    def __init__(self, dataset: Iterable[PersonSample]) -> None:
        self._dataset = dataset

    def __iter__(self) -> Iterator[PersonSample | UserError]:
        try:
            yield from self._dataset
        except UserError as error:
            yield UserError(str(error))


def _collate(drawn: Sequence[PersonSample | UserError]) -> PersonSample | UserError:
    samples = []
    for item in drawn:
        if isinstance(item, UserError):
            return item
        samples.append(item)
    try:
        return collate(samples)
    except UserError as error:
        return error
