"""MakeHuman's asset packs as they are downloaded: unpacked once into the user's cache, and never outside it.

The official ``makehuman_system_assets_cc0.zip`` holds ``clothes``, ``hair``, ``skins``, ``poses``, ``eyes``, ... and
much that people are not made of (thumbnails, proxies, rigs, targets). Reading in place would decompress each texture
in every worker process; so what is needed is unpacked, a third of a gigabyte, and found again by the table of
contents.
"""

import contextlib
import hashlib
import logging
import lzma
import os
import shutil
import stat
import unicodedata
import uuid
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from humansplat.capture.graph import cache_folder
from humansplat.errors import UserError

logger = logging.getLogger(__name__)

KINDS = frozenset(
    {
        *("clothes", "hair", "skins", "poses", "animations"),
        *("eyes", "eyebrows", "eyelashes", "expressions", "poseunits"),
    }
)
"""Folders that people are made of; all others stay packed."""
NEEDED_KINDS = ("clothes", "hair", "skins", "poses")
FACE_UNITS = frozenset({"face-poseunits.bvh", "face-poseunits.json"})
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".tga", ".webp"})
SUFFIXES = PICTURES | {".mhclo", ".obj", ".mhmat", ".bvh", ".mhpose"}
MAX_FILES = 100_000
MAX_BYTES = 8 * 2**30
"""Of all files together, unpacked; the official pack has a third of a gigabyte."""
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, UnicodeDecodeError, NotImplementedError, RuntimeError,
)  # fmt: skip
"""What ``zipfile`` raises over damaged files."""


def unpacked(archive: Path, cache: Path | None = None) -> Path:
    """Unpack what people are made of, unless an earlier call has done so.

    Several processes may call this at once: each unpacks under a name of its own, and the first to end wins.

    Args:
        archive: A zip file with MakeHuman's folders at its top, or together in one folder.
        cache: Where unpacked archives are kept; by default the user's cache folder (``HUMANSPLAT_CACHE``).

    Returns:
        A folder as :class:`~humansplat.data.synthetic.assets.AssetLibrary` reads it.

    Raises:
        UserError: If the file is no zip file, is damaged, is unsafe to unpack, or holds no MakeHuman assets.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            entries = _entries(archive, packed)
            folder = (cache or cache_folder()) / f"makehuman-{_fingerprint(entries)}"
            if not folder.is_dir():
                _check_size(archive, entries)
                logger.info("unpacking %s into %s (once; it may be deleted at any time)", archive.name, folder)
                _unpack(packed, entries, folder)
            return folder
    except _DAMAGED as error:
        raise UserError(f"{archive} cannot be unpacked ({error}); download it again") from error


def _entries(archive: Path, packed: zipfile.ZipFile) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The files to unpack, by the place that they get."""
    files = {_safe_path(archive, info): info for info in packed.infolist() if not info.is_dir()}
    roots = [path.parents[2] for path in files if _is_garment(path)]
    if not roots:
        tops = sorted({path.parts[0] for path in files})
        raise UserError(
            f"{archive} holds no MakeHuman assets (clothes/*/*.mhclo), only {', '.join(tops[:6]) or 'nothing'}; "
            "give makehuman_system_assets_cc0.zip, or a folder of rigged characters (.glb, .gltf, .vrm)"
        )
    root = min(roots, key=lambda path: (len(path.parts), str(path)))
    entries: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for path, info in files.items():
        if not path.is_relative_to(root) or path.name.startswith("."):  # a Mac leaves hidden twins
            continue
        inner = path.relative_to(root)
        kind = inner.parts[0].lower()
        if inner.name.lower() in FACE_UNITS:
            entries[PurePosixPath(inner.name.lower())] = info
        elif len(inner.parts) > 1 and kind in KINDS and inner.suffix.lower() in SUFFIXES:
            entries[PurePosixPath(kind, *inner.parts[1:])] = info
    return entries


def _is_garment(path: PurePosixPath) -> bool:
    place = [part.lower() for part in path.parts]
    return len(place) > 2 and place[-3] == "clothes" and path.suffix.lower() == ".mhclo" and place[0] != "__macosx"


def _safe_path(archive: Path, info: zipfile.ZipInfo) -> PurePosixPath:
    """The place of a file inside the folder; names that would lead out of it are refused."""
    name = info.filename.replace("\\", "/")
    if not info.flag_bits & 0x800:  # no word about the encoding: Python took code page 437, most writers mean UTF-8
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    path = PurePosixPath(unicodedata.normalize("NFC", name))
    strange = any(
        part in ("..", "") or any(sign in part for sign in ':*?"<>|') or not part.isprintable() for part in path.parts
    )
    if path.is_absolute() or strange or not path.parts:
        raise UserError(
            f"{archive} holds the file name {info.filename!r}, which is unsafe to unpack; do not trust this file"
        )
    if stat.S_ISLNK(info.external_attr >> 16):
        raise UserError(
            f"{archive} holds the link {info.filename!r}, which is unsafe to unpack; do not trust this file"
        )
    if info.flag_bits & 0x1:
        raise UserError(f"{archive} is encrypted ({info.filename!r}); unpack it and give the folder")
    return path


def _check_size(archive: Path, entries: dict[PurePosixPath, zipfile.ZipInfo]) -> None:
    total = sum(info.file_size for info in entries.values())  # zipfile reads no more of a file than this
    if len(entries) > MAX_FILES or total > MAX_BYTES:
        raise UserError(
            f"{archive} would unpack to {len(entries)} files of {total / 2**30:.1f} GiB, "
            f"more than {MAX_FILES} or {MAX_BYTES / 2**30:.0f} GiB; unpack it yourself and give the folder"
        )


def _fingerprint(entries: dict[PurePosixPath, zipfile.ZipInfo]) -> str:
    """Digest of places, sizes and checksums, which the table of contents has: no need to read the file."""
    digest = hashlib.sha256()
    for path, info in sorted(entries.items()):
        digest.update(f"{path}\0{info.file_size}\0{info.CRC:08x}\n".encode())
    return digest.hexdigest()[:16]


def _unpack(packed: zipfile.ZipFile, entries: dict[PurePosixPath, zipfile.ZipInfo], folder: Path) -> None:
    temporary = folder.with_name(f".{uuid.uuid4().hex[:8]}.{folder.name}")
    try:
        for path, info in entries.items():
            target = temporary / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with packed.open(info) as source, target.open("wb") as file:  # compares the checksum at the end
                shutil.copyfileobj(source, file, 2**20)
        try:
            os.rename(temporary, folder)
        except OSError:
            if not folder.is_dir():  # else another process was quicker, with the same files
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
