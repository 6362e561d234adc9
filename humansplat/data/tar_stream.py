"""Tar files read from front to back without going back, skipping what is not wanted."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, runtime_checkable
from urllib.parse import unquote

from humansplat.errors import UserError

BLOCK = 512
SKIP_PIECE = 2**20
INDEX = "shards.json"


@runtime_checkable
class Readable(Protocol):
    """What is read from, a file or what fsspec opens; closed at the end of a ``with`` block."""

    def read(self, size: int = -1, /) -> bytes: ...

    def seek(self, offset: int, whence: int = 0, /) -> int: ...

    def seekable(self) -> bool: ...

    def __enter__(self) -> "Readable": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


@dataclass(frozen=True)
class Member:
    """The head of one file of a tar file."""

    name: str
    size: int


class TarStream:
    """The files of a tar file in their order, each read or passed over.

    Args:
        file: Open for reading, at its beginning.
        where: Its name, for messages.
    """

    def __init__(self, file: Readable, where: str) -> None:
        self._file, self._where = file, where
        self._left = 0
        self._seekable = file.seekable()

    def __iter__(self) -> Iterator[Member]:
        """Heads; between two of them :meth:`read` gives the content.

        Raises:
            UserError: If it is no tar file, or ends too early.
        """
        while True:
            self._skip(self._left)
            block = self._file.read(BLOCK)
            if len(block) == BLOCK and not block.strip(b"\0"):
                return  # the mark of the end
            self._check(block)
            kind, size = block[156:157], self._size(block[124:136])
            self._left = -(-size // BLOCK) * BLOCK
            if kind in (b"0", b"\0"):
                self._content = size
                yield Member(_text(block[345:500], b"/") + _text(block[:100]), size)
            elif kind != b"5":
                raise UserError(
                    f"{self._where} holds a tar entry of the kind {kind!r}: make it by tools/make_shards.py"
                )

    def read(self) -> bytes:
        """The content of the file whose head came last."""
        content = self._file.read(self._left)
        if len(content) != self._left:
            raise self._cut_short()
        self._left = 0
        return content[: self._content]

    def _check(self, block: bytes) -> None:
        if len(block) < BLOCK:
            raise self._cut_short()
        stated = block[148:156].split(b"\0")[0].strip()
        if not stated or not stated.isdigit() or int(stated, 8) != sum(block) - sum(block[148:156]) + 8 * 32:
            raise UserError(f"{self._where} is not a tar file that can be read: make it anew")

    def _size(self, field: bytes) -> int:
        digits = field.strip(b"\0 ")
        if digits.strip(b"01234567"):  # GNU's binary numbers are for files above 8 GiB
            raise UserError(f"{self._where} holds a tar entry of unreadable size: make it by tools/make_shards.py")
        return int(digits or b"0", 8)

    def _skip(self, count: int) -> None:
        if self._seekable:
            self._file.seek(count, 1)
            return
        while count:
            piece = self._file.read(min(count, SKIP_PIECE))
            if not piece:
                raise self._cut_short()
            count -= len(piece)

    def _cut_short(self) -> UserError:
        return UserError(f"{self._where} ends too early: make it or fetch it anew")


def _text(field: bytes, end: bytes = b"") -> str:
    text = field.split(b"\0")[0]
    return (text + end).decode("utf-8") if text else ""


def person_and_file(member: str) -> tuple[str, str]:
    """Whom and which file of the person's folder a name in a shard means.

    ``0001.images.003.png`` is ``images/003.png`` of ``0001``: what comes before the first dot is the person, the way
    that webdataset groups files; dots of a person's name are written as ``%2E``.
    """
    name, _, file = member.partition(".")
    folder, dot, rest = file.partition(".")
    nested = dot and "." in rest
    return unquote(name), f"{folder}/{rest}" if nested else file


def member_name(person: str, file: str) -> str:
    """The name in a shard of a file of the person's folder; :func:`person_and_file` undoes it."""
    quoted = "".join(character if character not in "%./\\" else f"%{ord(character):02X}" for character in person)
    return f"{quoted}.{file.replace('/', '.')}"


@dataclass(frozen=True)
class Shard:
    """One tar file of a set."""

    url: str
    people: tuple[str, ...]
    """In their order."""
    sha256: str


def read_index(root: str) -> list[Shard]:
    """What ``shards.json`` lists.

    Args:
        root: Folder or URL that holds it.

    Raises:
        UserError: If there is none or it is broken.
    """
    url = join(root, INDEX)
    with open_url(url) as file:
        content = file.read()
    try:
        listed = json.loads(content)["shards"]
        shards = [Shard(join(root, entry["name"]), tuple(entry["people"]), entry["sha256"]) for entry in listed]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{url}: not an index of shards ({error!r}); make it by tools/make_shards.py") from error
    if not any(shard.people for shard in shards):
        raise UserError(f"{url} lists nobody: make the shards anew")
    return shards


def join(root: str, name: str) -> str:
    """A file in a folder or below a URL."""
    return f"{root.rstrip('/')}/{name}" if "://" in root else str(Path(root) / name)


def open_url(url: str) -> Readable:
    """Open a local file, or whatever fsspec knows, for reading.

    Raises:
        UserError: If there is no such file, it cannot be read, or what its kind of URL needs is not installed.
    """
    try:
        if "://" not in url:
            return open(url, "rb", buffering=64 * 1024)
        import fsspec

        return fsspec.open(url, "rb").open()
    except ImportError as error:
        raise UserError(f"{url}: {error}; or copy the shards to a disk of this machine") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{url} cannot be read ({error})") from error
