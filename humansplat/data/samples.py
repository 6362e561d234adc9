"""People read view by view while training goes on: a map-style dataset over the folders of prepared data.

A sample depends on the seed, the epoch and the person, and on nothing else: not on the number of processes, of
worker processes, or on where a run was broken off. The same person in the same epoch gives the same sample out of a
folder and out of a shard (``humansplat.data.shards``).
"""

import functools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset, Sampler, default_collate

from humansplat.config import ViewShares
from humansplat.data.format import parse_cameras
from humansplat.data.listing import PersonFiles, list_people
from humansplat.data.people import BodyTemplate, PeopleBatch
from humansplat.data.person_files import decode_rgba
from humansplat.data.rig import NUM_RIG_VIEWS
from humansplat.data.view_choice import PersonViews, ViewChoice, person_views
from humansplat.errors import UserError
from humansplat.geometry.projection import orbit
from humansplat.io.body import parse_body
from humansplat.structures import Cameras, PosedBody, TensorStruct

REMEMBERED_CAMERAS = 4096
"""People whose cameras a dataset keeps: 11 kB each with 112 views."""


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """What is drawn of each person."""

    num_targets: int
    """Pictures to be matched."""
    num_inputs: int = 1
    """Pictures given: the photograph, or all four of the rig."""
    photo_weight: float = 0.0
    """Probability that the photograph is put among the targets, besides its chance."""
    shares: ViewShares = field(default_factory=ViewShares)
    """How often the views of each kind are matched."""
    ring_inputs: float = 0.0
    """Probability that a scan's photograph is one of its ring of whole bodies."""
    image_size: int | None = None
    """Side of the square pictures, pixels; ``None`` keeps the files'."""

    def __post_init__(self) -> None:
        if self.num_inputs not in (1, 4):
            raise ValueError(f"num_inputs ({self.num_inputs}) must be 1 or 4")


class PersonSample(TensorStruct):
    """People as they are drawn; pictures in the files' whole numbers, channels last, straight alpha."""

    images: UInt8[Tensor, "*b i h w 4"]
    """The first ``i`` views of the rig."""
    cameras: Cameras
    """All four views of the rig, ``[*b, 4]``."""
    targets: UInt8[Tensor, "*b t h w 4"]
    """Pictures to be matched."""
    target_cameras: Cameras
    """``[*b, t]``."""
    views: Int[Tensor, "*b k"]
    """Numbers of the rig's views, then of the targets."""
    body: dict[str, Tensor]
    """What bodies of one model do not share: ``vertices``, ``joints`` and ``param.<name>``."""
    people: Int[Tensor, "*b"]
    """Places in the data set."""

    def pin_memory(self) -> "PersonSample":
        """The same in memory that a GPU can fetch from by itself; the data loader calls this."""
        return self.map(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device | str) -> "PersonSample":
        """Move every tensor, from pinned memory without waiting."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def batch(self, template: BodyTemplate) -> PeopleBatch:
        """What the training tasks take; ``self`` has one batch axis and lies where the template does."""
        parameters = {
            name.removeprefix("param."): value for name, value in self.body.items() if name.startswith("param.")
        }
        return PeopleBatch(
            images=_unit(self.images),
            cameras=self.cameras,
            targets=_unit(self.targets),
            target_cameras=self.target_cameras,
            body=template.posed(self.body["vertices"], self.body["joints"], parameters),
            people=self.people,
        )


def _unit(pictures: UInt8[Tensor, "*b h w 4"]) -> Tensor:
    return pictures.movedim(-1, -3).to(torch.float32, memory_format=torch.contiguous_format) / 255


def collate(samples: Sequence[PersonSample]) -> PersonSample:
    """Put samples of one person each into one of many.

    Raises:
        UserError: If they differ in size or in the parameters of their bodies.
    """
    first = samples[0]

    def stack(tensors: Sequence[Tensor], what: str) -> Tensor:
        if any(tensor.shape != tensors[0].shape for tensor in tensors):
            shapes = sorted({tuple(tensor.shape) for tensor in tensors})
            raise UserError(
                f"people of one batch have {what} of the shapes {shapes}: set data.image_size, or keep people of "
                "different kinds in different runs"
            )
        return default_collate(list(tensors))  # straight into shared memory where this is a worker process

    def cameras(views: Sequence[Cameras]) -> Cameras:
        viewmats = stack([view.viewmats for view in views], "cameras")
        return replace(views[0], viewmats=viewmats, Ks=stack([view.Ks for view in views], "cameras"))

    names = {tuple(sorted(sample.body)) for sample in samples}
    if len(names) > 1:
        raise UserError(f"people of one batch have bodies of different parameters {sorted(names)}")
    return PersonSample(
        images=stack([sample.images for sample in samples], "pictures"),
        cameras=cameras([sample.cameras for sample in samples]),
        targets=stack([sample.targets for sample in samples], "pictures"),
        target_cameras=cameras([sample.target_cameras for sample in samples]),
        views=stack([sample.views for sample in samples], "views"),
        body={name: stack([sample.body[name] for sample in samples], name) for name in first.body},
        people=stack([sample.people for sample in samples], "places"),
    )


def person_rng(seed: int, epoch: int, name: str, visit: int) -> np.random.Generator:
    """The source of a sample's views: the same wherever the person's files lie."""
    return np.random.default_rng([seed, epoch, zlib.crc32(name.encode("utf-8")), visit])


@dataclass(frozen=True)
class SamplePlan:
    """Which files a sample needs; known once the cameras are read."""

    cameras: Cameras
    """Of all views."""
    choice: ViewChoice
    num_inputs: int

    @property
    def pictures(self) -> tuple[int, ...]:
        """Numbers of the views whose pictures are needed, each once."""
        return tuple(dict.fromkeys((*self.choice.rig[: self.num_inputs], *self.choice.targets)))

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files besides ``cameras.json``."""
        return ("body.npz", *(picture_file(view) for view in self.pictures))


def picture_file(view: int) -> str:
    """Where a view's picture lies in the person's folder."""
    return f"images/{view:03d}.png"


def known_views(content: bytes, where: str) -> tuple[Cameras, PersonViews]:
    """Cameras and uses of a person's views, of the bytes of ``cameras.json``."""
    cameras, roles = parse_cameras(content, where)
    return cameras, person_views(cameras, roles, where)


def plan_sample(
    cameras: Cameras, views: PersonViews, options: SampleOptions, rng: np.random.Generator, where: str
) -> SamplePlan:
    """Draw the views of one sample."""
    choice = views.choose(
        rng,
        num_targets=options.num_targets,
        shares=options.shares,
        ring_inputs=options.ring_inputs,
        photo_weight=options.photo_weight,
        where=where,
    )
    return SamplePlan(cameras, choice, options.num_inputs)


def read_sample(
    files: PersonFiles, plan: SamplePlan, template: PosedBody, image_size: int | None, person: int
) -> PersonSample:
    """Read and decode what a plan asks for, and nothing else.

    Args:
        files: The person's.
        plan: Of the same person.
        template: Any body of the same model.
        image_size: Side of the square pictures, pixels; ``None`` keeps the files'.
        person: Place in the data set.

    Raises:
        UserError: If a file is missing, cannot be read or does not fit the others.
    """
    cameras, choice = plan.cameras, plan.choice
    size = (cameras.width, cameras.height) if image_size is None else (image_size, image_size)
    body, _ = parse_body(files.read("body.npz"), files.where("body.npz"), template)
    decoded = {}
    for view in plan.pictures:
        file = picture_file(view)
        decoded[view] = decode_rgba(files.read(file), files.where(file), cameras, size)
    resized = cameras.resized(*size)
    rig = resized[torch.tensor(choice.rig)]
    if choice.rig[0] != 0 and plan.num_inputs == 1:
        # As for a photograph: carried around the world's vertical axis, which the ring's own axis is not quite.
        rig = orbit(resized[choice.rig[0]], torch.zeros(3), torch.arange(NUM_RIG_VIEWS) * (0.5 * torch.pi))
    tensors = {"vertices": body.vertices, "joints": body.joints}
    tensors |= {f"param.{name}": value for name, value in (body.parameters or {}).items()}
    return PersonSample(
        images=_stack([decoded[view] for view in choice.rig[: plan.num_inputs]]),
        cameras=rig,
        targets=_stack([decoded[view] for view in choice.targets]),
        target_cameras=resized[torch.tensor(choice.targets)],
        views=torch.tensor((*choice.rig, *choice.targets)),
        body=tensors,
        people=torch.tensor(person),
    )


def _stack(pictures: Sequence[UInt8[np.ndarray, "h w 4"]]) -> UInt8[Tensor, "n h w 4"]:
    return torch.from_numpy(np.stack(pictures))


class PeopleDataset(Dataset[PersonSample]):
    """All people of some folders; an item reads only the files that its views need.

    Indices go on beyond the length: ``index // len(self)`` is the epoch, in which the people come in an order of
    its own. So a training run is one long row of indices, and goes on anywhere (:class:`EndlessBatches`).

    Args:
        roots: Folders as ``docs/data-format.md`` describes.
        template: What the bodies share; all must be of its model and gender.
        options: What is drawn of each person.
        seed: Of the order and the views.
        weights: How often people of each root are drawn, against each other; without any, each once an epoch.
        flagged: Take people, too, of whom the manifest says what is wrong with them.
        verify: Compare the files with the manifest's checksums.

    Raises:
        UserError: If a folder has no manifest or lists nobody.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        template: BodyTemplate,
        options: SampleOptions,
        *,
        seed: int = 0,
        weights: Sequence[float] = (),
        flagged: bool = False,
        verify: bool = False,
    ) -> None:
        if weights and (len(weights) != len(roots) or min(weights) <= 0):
            raise ValueError(f"{len(roots)} roots need as many positive weights, got {list(weights)}")
        listed = [list_people(root, flagged=flagged) for root in roots]
        self.people = [person for people in listed for person in people]
        self.options, self.seed, self.verify = options, seed, verify
        self._counts, self._weights = [len(people) for people in listed], list(weights)
        self._any_body = template.to("cpu").body()
        self._known: dict[int, tuple[Cameras, PersonViews]] = {}

    def __len__(self) -> int:
        """People an epoch."""
        return len(self.people)

    def __getitem__(self, index: int) -> PersonSample:
        """One person.

        Args:
            index: From 0 on, over all epochs.

        Raises:
            UserError: If a file is missing, cannot be read, or does not fit the others; it is named.
        """
        epoch, place = divmod(int(index), len(self))
        order, visits = _epoch(tuple(self._counts), tuple(self._weights), self.seed, epoch)
        return self.sample(int(order[place]), epoch, int(visits[place]))

    def sample(self, person: int, epoch: int, visit: int = 0) -> PersonSample:
        """A person's sample of an epoch.

        Args:
            person: Place in ``people``.
            epoch: Which epoch.
            visit: How often the person came in it before.
        """
        listed = self.people[person]
        files = listed.files(verify=self.verify)
        if person not in self._known:
            if len(self._known) >= REMEMBERED_CAMERAS:
                self._known.pop(next(iter(self._known)))
            self._known[person] = known_views(files.read("cameras.json"), files.where("cameras.json"))
        cameras, views = self._known[person]
        rng = person_rng(self.seed, epoch, listed.name, visit)
        plan = plan_sample(cameras, views, self.options, rng, files.where("cameras.json"))
        return read_sample(files, plan, self._any_body, self.options.image_size, person)

    def order(self, epoch: int) -> list[int]:
        """Who comes when in an epoch, as places in ``people``."""
        return _epoch(tuple(self._counts), tuple(self._weights), self.seed, epoch)[0].tolist()


@functools.lru_cache(maxsize=4)
def _epoch(
    counts: tuple[int, ...], weights: tuple[float, ...], seed: int, epoch: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Order of an epoch, and how often each person came before in it."""
    rng = np.random.default_rng([seed, epoch])
    total = sum(counts)
    shares = [total * weight / sum(weights) for weight in weights] if weights else list(map(float, counts))
    drawn = np.floor(np.cumsum(shares) + 0.5).astype(int)  # rounded so that they sum up to the total
    rows, visits, first = [], [], 0
    for count, number in zip(counts, np.diff(drawn, prepend=0).tolist(), strict=True):
        rounds = -(-number // count)
        rows.append(np.concatenate([np.arange(0), *[first + rng.permutation(count) for _ in range(rounds)]])[:number])
        visits.append(np.arange(number) // count)
        first += count
    shuffled = rng.permutation(total)
    return np.concatenate(rows)[shuffled].astype(np.int64), np.concatenate(visits)[shuffled].astype(np.int64)


class EndlessBatches(Sampler[list[int]]):
    """Batches of indices of this process, from a position on, for ever.

    All processes together take the indices in their order: one step of ``n`` processes with batches of ``b`` is one
    step of one process with a batch of ``n b``.

    Args:
        batch_size: People of one process in one step.
        position: Samples that all processes together have drawn before.
        rank: Of this process.
        world_size: Number of processes.
    """

    def __init__(self, batch_size: int, *, position: int = 0, rank: int = 0, world_size: int = 1) -> None:
        self.batch_size, self.position, self.rank, self.world_size = batch_size, position, rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        first = self.position + self.rank * self.batch_size
        while True:
            yield list(range(first, first + self.batch_size))
            first += self.batch_size * self.world_size
