"""The people that a data set lists, and the files of each, wherever they lie."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from humansplat.data.format import MANIFEST
from humansplat.errors import UserError

logger = logging.getLogger(__name__)


@runtime_checkable
class PersonFiles(Protocol):
    """One person's files by their names in the person's folder, e.g. ``images/003.png``."""

    @property
    def name(self) -> str:
        """The person's name."""
        ...

    def read(self, file: str) -> bytes:
        """The content of a file.

        Raises:
            UserError: If it cannot be read or is not what was written; the message names it.
        """
        ...

    def where(self, file: str) -> str:
        """What to call a file in a message."""
        ...


@dataclass(frozen=True)
class ListedPerson:
    """One line of a manifest."""

    root: Path
    name: str
    offset: int
    """Where the line begins in the manifest, bytes."""

    def files(self, *, verify: bool = False) -> "PersonFolder":
        """The person's folder.

        Args:
            verify: Compare what is read with the checksums of the manifest.
        """
        return PersonFolder(self.root / self.name, checksums(self) if verify else None)


@dataclass(frozen=True)
class PersonFolder:
    """A person's folder on a disk."""

    folder: Path
    checksums: Mapping[str, str] | None = None
    """SHA-256 of the files in hexadecimal; ``None`` compares nothing."""

    @property
    def name(self) -> str:
        return self.folder.name

    def read(self, file: str) -> bytes:
        path = self.folder / file
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): make the person anew") from error
        if self.checksums is not None:
            check_content(content, self.checksums.get(file), str(path))
        return content

    def where(self, file: str) -> str:
        return str(self.folder / file)


def check_content(content: bytes, expected: str | None, where: str) -> None:
    """Compare a file's content with its checksum.

    Raises:
        UserError: If there is no checksum, or another.
    """
    if expected is None:
        raise UserError(f"{where} is not in the manifest, so it cannot be verified: make the person anew")
    if hashlib.sha256(content).hexdigest() != expected:
        raise UserError(f"{where} is not what the manifest says ({len(content)} bytes): make the person anew")


def list_people(root: Path, *, flagged: bool = False) -> list[ListedPerson]:
    """The people of a data set in the order of the manifest; a last line that is cut short does not count.

    Args:
        root: The data set.
        flagged: Take those, too, of whom the manifest says what is wrong with them.

    Raises:
        UserError: If there is no manifest, a line is none, or nobody is left.
    """
    path = root / MANIFEST
    people, left_out, offset = [], [], 0
    try:
        with path.open("rb") as manifest:
            for line in manifest:
                if line.endswith(b"\n"):
                    name, flags = name_and_flags(line, path)
                    if flags and not flagged:
                        left_out.append(name)
                    else:
                        people.append(ListedPerson(root, name, offset))
                offset += len(line)
    except OSError as error:
        why = f"{root} holds no {MANIFEST} that can be read ({error.strerror})"
        raise UserError(f"{why}; give a folder that synthesize or prepare wrote") from error
    tell_left_out(root, left_out)
    if not people:
        why = f"all {len(left_out)} are flagged" if left_out else "its manifest is empty"
        raise UserError(f"{root} lists nobody to train on, {why}: prepare more people")
    return people


def name_and_flags(line: bytes, path: Path) -> tuple[str, tuple[str, ...]]:
    """Whom a line of a manifest is about, and what is wrong with them.

    Args:
        line: One line.
        path: The manifest, for the message.

    Raises:
        UserError: If the line is none of a manifest.
    """
    try:
        record = json.loads(line)
        return str(record["name"]), tuple(map(str, record.get("flags") or ()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a manifest ({error!r}); make the data anew") from error


def tell_left_out(root: Path, names: Sequence[str]) -> None:
    """Log who is not used because of flags."""
    if names:
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        logger.warning("%s: %d flagged people are left out (%s)", root, len(names), shown)


def checksums(person: ListedPerson) -> dict[str, str]:
    """The checksums that the manifest has of one person's files.

    Raises:
        UserError: If the manifest has changed since it was listed.
    """
    path = person.root / MANIFEST
    try:
        with path.open("rb") as manifest:
            manifest.seek(person.offset)
            line = manifest.readline()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): it has changed since people were listed"
        ) from error
    if name_and_flags(line, path)[0] != person.name:
        raise UserError(f"{path} has changed since it was read: start again")
    try:
        return {file: str(entry["sha256"]) for file, entry in json.loads(line)["files"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: {person.name} has no checksums ({error!r}); make the data anew, or do not verify"
        ) from error
