"""People out of tar shards, read in long rows: for object storage and network disks.

Each process of a run, and each of its worker processes, goes through its own part of the shards in the order of the
epoch, keeps the files that it needs of some people and draws the next person from those. A person's sample is that of
``humansplat.data.samples.PeopleDataset`` in the same epoch.
"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch.utils.data import IterableDataset, get_worker_info

from humansplat.data.people import BodyTemplate
from humansplat.data.samples import (
    PersonSample,
    SampleOptions,
    SamplePlan,
    known_views,
    person_rng,
    plan_sample,
    read_sample,
)
from humansplat.data.tar_stream import Shard, TarStream, open_url, person_and_file, read_index
from humansplat.errors import UserError


@dataclass(frozen=True)
class PackedPerson:
    """Files of one person out of a shard, as ``PersonFiles``."""

    name: str
    shard: str
    contents: dict[str, bytes]

    def read(self, file: str) -> bytes:
        if file not in self.contents:
            raise UserError(f"{self.where(file)} is missing: make the shard anew")
        return self.contents[file]

    def where(self, file: str) -> str:
        return f"{self.shard}: {self.name}/{file}"


@dataclass(frozen=True)
class _Waiting:
    """A person in the buffer: read, not decoded."""

    files: PackedPerson
    plan: SamplePlan
    person: int


class ShardDataset(IterableDataset[PersonSample]):
    """An endless row of people out of one or several sets of shards.

    Made again with the number of samples drawn so far, it goes on where it was, for the same number of processes and
    of worker processes; with other numbers the order is another one.

    Args:
        roots: Folders or URLs that hold a ``shards.json``.
        template: What the bodies share.
        options: What is drawn of each person.
        seed: Of order and views.
        weights: How often people of each root are drawn, against each other; by default as often as there are people.
        buffer: People to choose the next one from.
        batch_size: Of the loader that reads from this.
        position: Samples that all processes together have drawn before.
        rank: Of this process.
        world_size: Number of processes.
        verify: Compare each shard with its checksum before its first use.

    Raises:
        UserError: If an index is missing or broken.
    """

    def __init__(
        self,
        roots: Sequence[str],
        template: BodyTemplate,
        options: SampleOptions,
        *,
        seed: int = 0,
        weights: Sequence[float] = (),
        buffer: int = 64,
        batch_size: int = 1,
        position: int = 0,
        rank: int = 0,
        world_size: int = 1,
        verify: bool = False,
    ) -> None:
        self.sets = [read_index(root) for root in roots]
        self.options, self.seed, self.buffer, self.verify = options, seed, buffer, verify
        self._rank, self._world_size = rank, world_size
        self._steps, self._batch_size = position // (batch_size * world_size), batch_size
        self._any_body = template.to("cpu").body()
        numbers = [sum(len(shard.people) for shard in shards) for shards in self.sets]
        self._firsts = list(itertools.accumulate(numbers, initial=0))
        self._weights = list(weights) or [float(number) for number in numbers]
        self._verified: set[str] = set()

    @property
    def num_people(self) -> int:
        """People of all shards."""
        return self._firsts[-1]

    def __iter__(self) -> Iterator[PersonSample]:
        """Samples of this worker process of this process.

        Raises:
            UserError: If a shard is missing, broken, or holds a person of another kind.
        """
        info = get_worker_info()
        num_workers, worker = (1, 0) if info is None else (info.num_workers, info.id)
        # The loader takes batches from its workers in turn and begins with the first: after a break the first one
        # plays the part of the worker whose turn it was.
        part = (worker + self._steps) % num_workers
        drawn = len(range(part, self._steps, num_workers)) * self._batch_size
        slot, slots = self._rank * num_workers + part, self._world_size * num_workers
        for waiting in self._mixed(slot, slots, drawn):
            yield read_sample(waiting.files, waiting.plan, self._any_body, self.options.image_size, waiting.person)

    def _mixed(self, slot: int, slots: int, skip: int) -> Iterator[_Waiting]:
        """All sets in turn, by weight, without the first ``skip`` people."""
        bounds = np.cumsum(self._weights) / sum(self._weights)
        rng = np.random.default_rng([self.seed, slot, len(self.sets)])
        before = np.bincount(_chosen(bounds, rng.random(skip)), minlength=len(self.sets)).tolist()
        rows = [self._row(number, slot, slots, before[number]) for number in range(len(self.sets))]
        while True:
            yield next(rows[int(_chosen(bounds, rng.random(1))[0])])

    def _row(self, number: int, slot: int, slots: int, skip: int) -> Iterator[_Waiting]:
        """One set's people of one slot, epoch after epoch, without the first ``skip``."""
        for epoch in itertools.count():
            parts = self._parts(number, epoch, slot, slots)
            size = sum(len(names) for _, names in parts)
            if size == 0:
                raise UserError(
                    f"{self.sets[number][0].url} and its like hold fewer people than {slots} processes read: lower "
                    "data.num_workers"
                )
            if skip < size:
                yield from itertools.islice(self._epoch(number, epoch, slot, parts), skip, None)
            skip = max(0, skip - size)

    def _epoch(
        self, number: int, epoch: int, slot: int, parts: list[tuple[int, tuple[str, ...]]]
    ) -> Iterator[_Waiting]:
        """The people of some shards, each drawn from the ``buffer`` that were read last."""
        rng = np.random.default_rng([self.seed, epoch, number, slot])
        buffer: list[_Waiting] = []
        for place, names in parts:
            for waiting in self._read(number, place, set(names), epoch):
                buffer.append(waiting)
                if len(buffer) >= self.buffer:
                    yield _pop(buffer, rng)
        while buffer:
            yield _pop(buffer, rng)

    def _parts(self, number: int, epoch: int, slot: int, slots: int) -> list[tuple[int, tuple[str, ...]]]:
        """Which shards of a set a slot reads in an epoch, in their order, and whom of each."""
        shards = self.sets[number]
        order = np.random.default_rng([self.seed, epoch, number]).permutation(len(shards)).tolist()
        if len(shards) >= slots:
            return [(place, shards[place].people) for place in order[slot::slots]]
        parts, count = [], 0
        for place in order:  # fewer shards than slots: each reads all and takes every n-th person
            people = shards[place].people
            parts.append((place, people[(slot - count) % slots :: slots]))
            count += len(people)
        return [(place, names) for place, names in parts if names]

    def _read(self, number: int, place: int, left: set[str], epoch: int) -> Iterator[_Waiting]:
        """Some people of one shard: the cameras, and then what the views drawn with them need."""
        shard = self.sets[number][place]
        first = self._firsts[number] + sum(len(before.people) for before in self.sets[number][:place])
        places = {name: first + index for index, name in enumerate(shard.people)}
        if self.verify and shard.url not in self._verified:
            verify_shard(shard)
            self._verified.add(shard.url)
        files, plan, wanted = PackedPerson("", shard.url, {}), None, set[str]()
        with open_url(shard.url) as opened:
            stream = TarStream(opened, shard.url)
            for member in stream:
                name, file = person_and_file(member.name)
                if name not in left:
                    continue
                if name != files.name:
                    files, plan, wanted = PackedPerson(name, shard.url, {}), None, set[str]()
                if file == "cameras.json":
                    where = files.where(file)
                    cameras, views = known_views(stream.read(), where)
                    rng = person_rng(self.seed, epoch, name, 0)
                    plan = plan_sample(cameras, views, self.options, rng, where)
                    wanted = set(plan.files)
                elif file in wanted:
                    files.contents[file] = stream.read()
                    wanted.remove(file)
                if plan is not None and not wanted:
                    left.remove(name)
                    yield _Waiting(files, plan, places[name])
                    if not left:
                        return
        raise UserError(f"{shard.url} lacks files of {', '.join(sorted(left)[:5])}: make it anew")


def _chosen(bounds: Float[np.ndarray, " s"], draws: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Which set each number between 0 and 1 falls to."""
    return np.minimum(np.searchsorted(bounds, draws, "right"), len(bounds) - 1)


def _pop(buffer: list[_Waiting], rng: np.random.Generator) -> _Waiting:
    place = int(rng.integers(len(buffer)))
    buffer[place], buffer[-1] = buffer[-1], buffer[place]
    return buffer.pop()


def verify_shard(shard: Shard) -> None:
    """Compare a shard with the checksum of its index.

    Raises:
        UserError: If they differ.
    """
    digest = hashlib.sha256()
    with open_url(shard.url) as file:
        while piece := file.read(2**20):
            digest.update(piece)
    if digest.hexdigest() != shard.sha256:
        raise UserError(f"{shard.url} is not what shards.json says: make it or fetch it anew")
