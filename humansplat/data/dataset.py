"""People held in memory as whole-number pictures on the training device."""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from humansplat import draws
from humansplat.config import AugmentConfig
from humansplat.data.augment import augment as augment_batch
from humansplat.data.format import MANIFEST
from humansplat.data.listing import name_and_flags, tell_left_out
from humansplat.data.people import BodyTemplate, PeopleBatch
from humansplat.data.person_files import PersonTensors, load_person
from humansplat.data.pool_cache import open_cache
from humansplat.data.rig import NUM_RIG_VIEWS
from humansplat.errors import UserError
from humansplat.structures import Cameras

logger = logging.getLogger(__name__)

CACHED_AT_ONCE = 128
"""People that are copied from a cache to the device in one piece."""


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
        max_views: Most views of a person that are kept; ``None`` keeps all.
        flagged: Take people, too, of whom the manifest says what is wrong with them.
        cache: Folder that keeps the people decoded (``data.pool_cache``); written if it is missing.
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
        max_views: int | None = None,
        flagged: bool = False,
        cache: Path | None = None,
    ) -> None:
        self.root, self.capacity, self.image_size = Path(root), capacity, image_size
        self.device = torch.device(device)
        self.template = template.to(self.device)
        self._any_body = template.body()
        self._max_views, self._flagged, self._cache = max_views, flagged, cache
        self._rank, self._world_size, self._num_workers = rank, world_size, num_workers
        self._names: list[str] = []
        self._num_stored = 0
        self._seen: set[str] = set()
        self._manifest_line = self._manifest_offset = 0
        self._slots: dict[str, Tensor] = {}
        self._size = (0, 0)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        """People that can be drawn now."""
        return min(self._num_stored, self.capacity)

    @property
    def num_stored(self) -> int:
        """People ever added, those that were replaced counted."""
        return self._num_stored

    @property
    def num_views(self) -> int:
        """Views of each person, the four of the rig first."""
        return self._slots["images"].shape[1]

    @property
    def names(self) -> list[str]:
        """Folder names of the people, by their places."""
        with self._lock:
            return list(self._names)

    def load(
        self,
        minimum: int = 1,
        *,
        limit: int | None = None,
        wait: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Read the people that the manifest lists now.

        Args:
            minimum: At least so many people must come of it.
            limit: Stop after so many.
            wait: Wait for the folder to grow to ``minimum`` people instead of refusing it.
            progress: Called with the number of people read and of those known after each.

        Raises:
            UserError: If there are too few people, or a person's files are broken or unlike the others'.
        """
        wanted = min(limit or self.capacity, self.capacity)
        while True:
            names = self._new_names()
            names = names[: limit - len(self)] if limit else names[-self.capacity :]
            known = len(self) + len(names)
            stored = self._store_cached(names) if self._cache and names else map(self._store, self._read(names))
            for _ in stored:
                if progress is not None:
                    progress(len(self), max(known, minimum))
            if len(self) >= min(minimum, wanted):
                return
            if not wait:
                raise UserError(
                    f"{self.root} holds {len(self)} people for this process, {minimum} are needed: add some"
                )
            self._stop.wait(1.0)

    def watch(self, poll_seconds: float = 2.0, on_arrival: Callable[[int], None] | None = None) -> None:
        """Start the background thread that adds people as they come; :meth:`close` ends it.

        Someone whose files are broken or unlike the others' is left out with a warning.

        Args:
            poll_seconds: Time between looks at the manifest.
            on_arrival: Called with the number of people in the pool after each that was added.
        """
        assert self._thread is None, "already watching"
        self._stop.clear()
        arguments = (poll_seconds, on_arrival)
        self._thread = threading.Thread(target=self._watch, args=arguments, name="people", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the background thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

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
        """Draw people and, for each, different target views among all of theirs.

        Args:
            batch_size: People, with repetition.
            num_targets: Pictures to be matched, a person; the rig's views can be among them.
            generator: On the pool's device.
            num_inputs: Pictures of the rig given as input: the photograph or all four.
            photo_weight: Probability that the photograph's own view is put among the targets, besides its chance.
            whole: Only views of the whole person beyond the rig's are targets, as far as there are any.
            augment: Random mirroring and recolouring; ``None`` changes nothing.

        Raises:
            ValueError: If the people have fewer views than ``num_targets``.
        """
        if num_targets > self.num_views:
            raise ValueError(f"num_targets ({num_targets}) exceeds the {self.num_views} views of a person")
        people = draws.integers(generator, len(self), batch_size)
        keys = draws.uniform(generator, batch_size, self.num_views)
        if photo_weight > 0:
            chosen = draws.uniform(generator, batch_size) < photo_weight
            keys[:, 0] -= chosen.float()  # below all others
        if whole:
            with self._lock:
                keys = keys - self._slots["compared"][people].float()
        batch = self.batch(people, keys.argsort(dim=1)[:, :num_targets], num_inputs=num_inputs)
        return batch if augment is None else augment_batch(batch, augment, self.template, generator)

    def everybody(self, at_once: int) -> tuple[Int[Tensor, " b"], ...]:
        """The places of all people, so many at a time, in order."""
        return torch.arange(len(self), device=self.device).split(at_once)

    def batch(
        self, people: Int[Tensor, " b"], views: Int[Tensor, "b t"], *, num_inputs: Literal[1, 4] = 1
    ) -> PeopleBatch:
        """The given people and target views, as they are."""
        width, height = self._size
        with self._lock:  # all of one person or of its successor, never a mixture
            slots = self._slots
            rig_viewmats, rig_Ks = slots["viewmats"][people, :NUM_RIG_VIEWS], slots["Ks"][people, :NUM_RIG_VIEWS]
            images = slots["images"][:, :num_inputs][people]
            row = people[:, None]
            targets = slots["images"][row, views]
            viewmats, Ks = slots["viewmats"][row, views], slots["Ks"][row, views]
            parameters = {
                name.removeprefix("param."): slot[people] for name, slot in slots.items() if name.startswith("param.")
            }
            body = self.template.posed(slots["vertices"][people], slots["joints"][people], parameters)
        return PeopleBatch(
            images=images.float() / 255,
            cameras=Cameras(viewmats=rig_viewmats, Ks=rig_Ks, width=width, height=height),
            targets=targets.float() / 255,
            target_cameras=Cameras(viewmats=viewmats, Ks=Ks, width=width, height=height),
            body=body,
            people=people,
        )

    def compared_views(self) -> tuple[Int[Tensor, " t"], Bool[Tensor, "n t"]]:
        """Views by which a model is judged: those of anybody, and whether each is one of each person's."""
        with self._lock:
            compared = self._slots["compared"][: len(self)].clone()
        views = compared.any(dim=0).nonzero()[:, 0]
        return views, compared[:, views]

    def _new_names(self) -> list[str]:
        """This process's people of the manifest's lines since the last call.

        Only the new lines are read: the manifest of thousands of people takes megabytes. A manifest that
        has become shorter was cut by a writer that went on after a break; it is read from its beginning.
        """
        path = self.root / MANIFEST
        if not path.is_file():  # a folder that is only about to be filled
            return []
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < self._manifest_offset:
                self._manifest_offset = self._manifest_line = 0
            file.seek(self._manifest_offset)
            text = file.read()
        lines = text[: text.rfind(b"\n") + 1].splitlines(keepends=True)  # the last one may be half written
        listed = [name_and_flags(line, path) for line in lines]
        first = self._manifest_line
        self._manifest_line += len(lines)
        self._manifest_offset += sum(len(line) for line in lines)
        mine = [entry for line, entry in enumerate(listed, first) if line % self._world_size == self._rank]
        tell_left_out(self.root, [name for name, flags in mine if flags and not self._flagged])
        new = [name for name, flags in mine if name not in self._seen and (self._flagged or not flags)]
        self._seen.update(new)
        return new

    def _read(self, names: list[str]) -> Iterator[PersonTensors]:
        """Decode in parallel, give in order."""
        with ThreadPoolExecutor(self._num_workers) as executor:
            for some in self._slices(names):
                yield from executor.map(self._load, [self.root / name for name in some])

    def _load(self, folder: Path) -> PersonTensors:
        return load_person(folder, self._any_body, self.image_size, max_views=self._max_views)

    def _store_cached(self, names: list[str]) -> Iterator[None]:
        """Copy people from the cache, many at a time."""
        assert self._cache is not None
        cache = open_cache(
            self._cache,
            self.root,
            names,
            self._any_body,
            image_size=self.image_size,
            max_views=self._max_views,
            num_workers=self._num_workers,
        )
        rows = cache.rows(names)
        for start in range(0, len(names), CACHED_AT_ONCE):
            some = rows[start : start + CACHED_AT_ONCE]
            tensors = {name: torch.from_numpy(array[some]).to(self.device) for name, array in cache.arrays.items()}
            if not self._slots:
                self._allocate({name: tensor[0] for name, tensor in tensors.items()})
            with self._lock:
                for place, name in enumerate(names[start : start + CACHED_AT_ONCE]):
                    slot = self._num_stored % self.capacity
                    for key, tensor in tensors.items():
                        self._slots[key][slot] = tensor[place]
                    self._names[slot : slot + 1] = [name]
                    self._num_stored += 1
            yield

    def _store(self, person: PersonTensors) -> None:
        tensors = person.tensors()
        if not self._slots:
            self._allocate(tensors)
        self._check(person, tensors)
        staged = self._stage(tensors)
        slot = self._num_stored % self.capacity
        with self._lock:
            for name, tensor in staged.items():
                self._slots[name][slot] = tensor
            self._names[slot : slot + 1] = [person.name]
            self._num_stored += 1

    def _stage(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Bring one person to the device without waiting for the training steps queued there."""
        if self.device.type != "cuda":
            return tensors
        stream = torch.cuda.Stream(self.device)
        with torch.cuda.stream(stream):
            staged = {name: tensor.to(self.device) for name, tensor in tensors.items()}
        stream.synchronize()
        for tensor in staged.values():
            tensor.record_stream(torch.cuda.default_stream(self.device))
        return staged

    def _allocate(self, tensors: dict[str, Tensor]) -> None:
        height, width = tensors["images"].shape[-2:]
        self._size = (width, height)
        self._slots = {
            name: torch.empty(self.capacity, *tensor.shape, dtype=tensor.dtype, device=self.device)
            for name, tensor in tensors.items()
        }

    def _check(self, person: PersonTensors, tensors: dict[str, Tensor]) -> None:
        expected = {name: tuple(slot.shape[1:]) for name, slot in self._slots.items()}
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if found != expected:
            odd = sorted(name for name in expected | found if expected.get(name) != found.get(name))
            raise UserError(
                f"{self.root / person.name} differs from the first person in {odd}: "
                f"{[found.get(name) for name in odd]} instead of {[expected.get(name) for name in odd]}; "
                "keep people of different kinds in different folders"
            )

    def _watch(self, poll_seconds: float, on_arrival: Callable[[int], None] | None) -> None:
        while not self._stop.wait(poll_seconds):
            try:
                names = self._new_names()
            except UserError as error:
                logger.warning("no more people are added while training: %s", error)
                return
            for slice_names in self._slices(names):
                with ThreadPoolExecutor(self._num_workers) as executor:
                    loading = [executor.submit(self._load, self.root / name) for name in slice_names]
                for person in loading:
                    if self._stop.is_set():
                        return
                    try:
                        self._store(person.result())
                    except UserError as error:
                        logger.warning("left out a person that came while training: %s", error)
                        continue
                    if on_arrival is not None:
                        on_arrival(len(self))

    def _slices(self, names: list[str]) -> Iterator[list[str]]:
        """Names so many at a time: bounds the decoded people that wait to be stored."""
        size = 8 * self._num_workers
        return (names[start : start + size] for start in range(0, len(names), size))
