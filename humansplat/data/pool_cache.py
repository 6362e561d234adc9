"""A folder's people decoded once and for all, for runs that start on the same people again and again.

Decoding the pictures of thousands of people takes minutes of a processor; reading them decoded takes seconds, and runs
that start together share the operating system's copy. The cache holds one ``.npy`` file for each tensor of the pool,
``[people, ...]``, and ``index.json``, which says of whom, of what size, and of which state of the folder they are.
"""

import errno
import hashlib
import itertools
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from humansplat.data.format import MANIFEST
from humansplat.data.person_files import PersonTensors, load_person
from humansplat.errors import UserError
from humansplat.structures import PosedBody

INDEX = "index.json"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PoolCache:
    """People on disk as a pool keeps them."""

    names: tuple[str, ...]
    arrays: dict[str, NDArray]
    """``[people, ...]``, mapped into memory."""

    def rows(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Places of people in the arrays."""
        places = {name: place for place, name in enumerate(self.names)}
        return np.array([places[name] for name in names], np.int64)


def open_cache(
    folder: Path,
    root: Path,
    names: Sequence[str],
    template: PosedBody,
    *,
    image_size: int | None,
    max_views: int | None,
    num_workers: int,
) -> PoolCache:
    """Open a cache; it is written first if it is missing, or of another state of the people's folder.

    Args:
        folder: Of the cache.
        root: The people's folder.
        names: Who is wanted. A new cache holds these.
        template: Any body of their model.
        image_size: Side of the pictures; ``None`` keeps that of the files.
        max_views: Most views of a person; ``None`` keeps all.
        num_workers: Threads that decode.

    Raises:
        UserError: If somebody's files are broken or unlike the others', or the folder holds something else.
    """
    if folder.exists() and not (folder.is_dir() and ((folder / INDEX).is_file() or not any(folder.iterdir()))):
        raise UserError(f"data.cache ({folder}) holds no cache but other files: give a folder of its own")
    kept = {"manifest": _digest(root), "image_size": image_size, "max_views": max_views, "model": template.model}

    def read() -> PoolCache | None:
        found = _read(folder, kept)
        return found if found is not None and set(names) <= set(found.names) else None

    def load(name: str) -> PersonTensors:
        return load_person(root / name, template, image_size, max_views=max_views)

    found = read()
    if found is None:
        logger.info("%s: decoding %d people into a cache", folder, len(names))
        with _written(folder, names, load, kept, num_workers) as new:
            found = read()  # another run may have been faster
            if found is None:
                _replace(folder, new)
                found = read()
    if found is None:
        raise UserError(f"data.cache ({folder}) is written by another run of other people or sizes: give each its own")
    return found


def _digest(root: Path) -> str:
    """Of the manifest, which holds the checksums of all files."""
    return hashlib.sha256((root / MANIFEST).read_bytes()).hexdigest()


def _read(folder: Path, kept: Mapping[str, object]) -> PoolCache | None:
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if index["of"] != dict(kept):
            return None
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in index["tensors"]
        }
    except (FileNotFoundError, json.JSONDecodeError, KeyError, ValueError):
        return None  # none, or half of one: it is written anew
    return PoolCache(tuple(index["names"]), arrays)


@contextmanager
def _written(
    folder: Path,
    names: Sequence[str],
    load: Callable[[str], PersonTensors],
    kept: Mapping[str, object],
    num_workers: int,
) -> Iterator[Path]:
    """Decode everybody into a temporary folder beside the cache's."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent, ignore_cleanup_errors=True) as room:
        new = Path(room) / "new"
        new.mkdir()
        arrays = _decode(new, names, load, num_workers)
        index = {"of": dict(kept), "names": list(names), "tensors": arrays}
        (new / INDEX).write_text(json.dumps(index), encoding="utf-8")
        yield new


def _replace(folder: Path, new: Path) -> None:
    """Put a folder in the place of another, whether other processes do the same or not."""
    for attempt in itertools.count():
        try:
            new.rename(folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        with suppress(FileNotFoundError):  # another process has taken it away
            folder.rename(new.with_name(f"old-{attempt}"))


def _decode(
    folder: Path, names: Sequence[str], load: Callable[[str], PersonTensors], num_workers: int
) -> tuple[str, ...]:
    """Write the arrays; their names are returned, and nothing holds the files any more."""
    arrays: dict[str, np.memmap] = {}
    for name, tensor in load(names[0]).tensors().items():
        value = tensor.numpy()
        arrays[name] = open_memmap(folder / f"{name}.npy", "w+", value.dtype, (len(names), *value.shape))

    def store(place: int) -> None:
        tensors = load(names[place]).tensors()
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if found != {name: array.shape[1:] for name, array in arrays.items()}:
            raise UserError(
                f"{names[place]} has tensors of other shapes than {names[0]}; keep people of different kinds in "
                "different folders"
            )
        for name, tensor in tensors.items():
            arrays[name][place] = tensor.numpy()

    with ThreadPoolExecutor(num_workers) as executor:
        for _ in executor.map(store, range(len(names))):
            pass
    for array in arrays.values():
        array.flush()
    return tuple(arrays)
