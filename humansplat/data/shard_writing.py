"""A data set packed into tar files of about one size, as webdataset and ``humansplat.data.shards`` read them."""

import hashlib
import json
import tarfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from humansplat.data.format import MANIFEST, read_manifest
from humansplat.data.listing import PersonFolder, name_and_flags, tell_left_out
from humansplat.data.tar_stream import BLOCK, INDEX, member_name
from humansplat.errors import UserError
from humansplat.io.atomic import creating, replacing
from humansplat.io.checksum import sha256_of

FORMAT_VERSION = 1
FIRST_FILES = ("cameras.json", "body.npz", "meta.json")
"""Come first of each person: a reader knows from the cameras which pictures it needs."""
NAME_LENGTH = 100
"""Bytes that a tar file's simplest form has for a name."""


@dataclass(frozen=True)
class PackedFiles:
    """Which files of one person go into a shard."""

    folder: Path
    checksums: dict[str, str]
    """In the order of the files in the shard."""
    size: int
    """Bytes in the shard, heads included."""


def make_shards(
    data: Path,
    out: Path,
    *,
    shard_mib: float = 512.0,
    extras: Sequence[str] = (),
    flagged: bool = False,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Pack the people of a data set, mixed, into ``out/shard-000000.tar`` and so on, and list them in ``shards.json``.

    The same data make the same bytes. Started again after a break, it goes on with the first shard that is not
    there; every file is compared with the manifest's checksum on its way.

    Args:
        data: Folder that ``synthesize`` or ``prepare`` wrote.
        out: Folder for the shards.
        shard_mib: Size that a shard is filled up to.
        extras: Folders of a person to pack besides ``images``: ``parts``, ``normals``, ``depth``.
        flagged: Pack people, too, of whom the manifest says what is wrong with them.
        seed: Of the order of the people.
        progress: Called with the number of people packed and of all after each.

    Returns:
        The shards.

    Raises:
        UserError: If there are no people, a file is missing or not what the manifest says, a name is too long, or
            ``out`` holds shards of something else, or the size is not positive.
    """
    if shard_mib <= 0:
        raise UserError(f"shard_mib ({shard_mib}) must be positive: give MiB, such as 512")
    people = _people(data, extras, flagged)
    order = np.random.default_rng(seed).permutation(len(people))
    plan = fill([people[place] for place in order], int(shard_mib * 2**20))
    _claim(out, plan)
    done, entries, paths = 0, [], []
    for number, packed in enumerate(plan):
        path = out / f"shard-{number:06d}.tar"
        names = [person.folder.name for person in packed]
        if not path.is_file():
            with replacing(path) as temporary:
                _write(
                    temporary, packed, lambda count, before=done: progress and progress(before + count, len(people))
                )
        done += len(packed)
        if progress is not None:
            progress(done, len(people))
        entries.append({"name": path.name, "people": names, "bytes": path.stat().st_size, "sha256": sha256_of(path)})
        paths.append(path)
    with replacing(out / INDEX) as temporary:
        text = json.dumps({"format": FORMAT_VERSION, "people": len(people), "shards": entries}, indent=1)
        temporary.write_text(text + "\n", encoding="utf-8", newline="\n")
    return paths


def fill(people: Sequence[PackedFiles], size: int) -> list[list[PackedFiles]]:
    """Distribute people over shards in their order, each filled until the next person would exceed the size."""
    shards: list[list[PackedFiles]] = []
    filled = 0
    for person in people:
        if not shards or filled + person.size > size:
            shards.append([])
            filled = 0
        shards[-1].append(person)
        filled += person.size
    return shards


def _people(data: Path, extras: Sequence[str], flagged: bool) -> list[PackedFiles]:
    folders = ("images", *extras)
    people, left_out = [], []
    for record in read_manifest(data):
        name, flags = name_and_flags(json.dumps(record).encode(), data / MANIFEST)
        if flags and not flagged:
            left_out.append(name)
            continue
        listed = record.get("files")
        if not isinstance(listed, dict):
            raise UserError(f"{data / MANIFEST}: {name} has no list of files; make the data anew")
        nested = sorted(file for file in listed if file.partition("/")[0] in folders and "/" in file)
        files = [*(file for file in FIRST_FILES if file in listed), *nested]
        for file in files:
            if len(member_name(name, file).encode("utf-8")) > NAME_LENGTH:
                raise UserError(f"the name {name!r} is too long for a shard: rename the person's folder")
        try:
            size = sum(BLOCK + -(-int(listed[file]["bytes"]) // BLOCK) * BLOCK for file in files)
            checksums = {file: str(listed[file]["sha256"]) for file in files}
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{data / MANIFEST}: {name} lacks sizes or checksums of files ({error!r}); make the data anew"
            ) from error
        people.append(PackedFiles(data / name, checksums, size))
    tell_left_out(data, left_out)
    if not people:
        raise UserError(f"{data} lists nobody to pack: prepare people first")
    return people


def _claim(out: Path, plan: Sequence[Sequence[PackedFiles]]) -> None:
    """Note in the folder what its shards are to hold, or refuse a folder of something else."""
    digest = hashlib.sha256()
    for shard in plan:
        for person in shard:
            digest.update(json.dumps([person.folder.name, list(person.checksums.items())]).encode())
        digest.update(b"|")
    path = out / "plan.json"
    text = json.dumps({"format": FORMAT_VERSION, "sha256": digest.hexdigest()}) + "\n"
    if not path.is_file():
        if any(out.glob("shard-*.tar")) and not path.is_file():
            raise UserError(f"{out} holds shards that were not made here: give an empty folder")
        with suppress(FileExistsError), creating(path) as temporary:  # another process may be faster
            temporary.write_text(text, encoding="utf-8", newline="\n")
    if path.read_text(encoding="utf-8") != text:
        raise UserError(f"{out} holds shards of other people or another size: give an empty folder")


def _write(path: Path, people: Sequence[PackedFiles], progress: Callable[[int], object]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for count, person in enumerate(people, start=1):
            files = PersonFolder(person.folder, person.checksums)
            for file in person.checksums:
                content = files.read(file)
                info = tarfile.TarInfo()
                info.name = member_name(files.name, file)  # owner and time are zero: the same bytes every time
                info.size = len(content)
                tar.addfile(info, BytesIO(content))
            progress(count)
