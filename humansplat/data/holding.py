"""One run at a time in a data set's folder: what one writes, another would take for left-overs and remove."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from humansplat.data.format import MANIFEST
from humansplat.errors import UserError

SHARDS_WAIT = 5.0
"""Seconds. Shards that begin at the same moment take turns, which are short."""


@contextmanager
def holding(out: Path, manifest: str = MANIFEST) -> Iterator[None]:
    """Keep other runs out of a data set's folder while the block lasts.

    A run that writes a shard's manifest keeps out that shard's other runs and, by its manifest, whole ones that begin
    later (``refuse_beside_shards``, to be called in the block). The operating system lets go of the lock when the
    process ends, however it does; the empty file stays.

    Args:
        out: Folder of the data set, which is there.
        manifest: Name of the manifest that the run writes.

    Raises:
        UserError: If another run is at work there.
    """
    if manifest != MANIFEST:
        with _locked(out, MANIFEST, SHARDS_WAIT):
            (out / manifest).touch()
    with _locked(out, manifest, 0):
        yield


@contextmanager
def _locked(out: Path, manifest: str, seconds: float) -> Iterator[None]:
    lock = FileLock(out / f".{manifest}.lock")
    try:
        lock.acquire(timeout=seconds)
    except Timeout as error:
        raise UserError(
            f"another run is at work in {out} and writes its {manifest}; wait for its end or give --out another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()
