"""Where the known sets of scans keep their files, and what each person is to be called.

Checked against the sets' own pages and programs (``docs/data.md`` says what could not be):

* THuman2.0 and 2.1: ``0000/0000.obj`` with ``material0.jpeg`` and ``material0.mtl``; the published SMPL-X fits in a
  tree of their own, ``smplx/0000/smplx_param.pkl`` beside ``mesh_smplx.obj``.
* 2K2K: ``00000/00000.ply`` with colours on the vertices, or ``00000/00000.obj`` with ``00000.png``.
* CustomHumans: ``mesh/0003_01/mesh-f00101.obj`` with ``.mtl`` and ``.png``; the fits in
  ``smplx/0003_01/mesh-f00101.json``, or beside the scan.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from humansplat.data.scans.reading import SUFFIXES
from humansplat.errors import UserError

Layout = Literal["thuman2", "2k2k", "customhumans", "generic"]
LAYOUTS: tuple[Layout, ...] = ("thuman2", "2k2k", "customhumans", "generic")
Up = Literal["y", "y-down", "z", "z-down"]
UPS: tuple[Up, ...] = ("y", "y-down", "z", "z-down")

_CUSTOM = re.compile(r"mesh-f\d+")
_NUMBERED = re.compile(r"\d{4,6}")
_PUBLISHED_BODY = re.compile(r"mesh_smplx?|.*_smplx?(_.*)?")


@dataclass(frozen=True, kw_only=True)
class ScanFile:
    """One scan, and what its layout says of it."""

    name: str
    """Of the person."""
    path: Path
    layout: Layout
    fit: Path | None = None
    """Its published body."""
    up: Up | None = None
    """The axis that points up in files of this layout; ``None`` where it has to be seen."""


def find_scans(root: Path, layout: Layout | Literal["auto"] = "auto", fits: Path | None = None) -> list[ScanFile]:
    """List the scans under a folder, in the order of their names.

    Args:
        root: A folder, or one scan.
        layout: Whose files they are; ``auto`` looks at names.
        fits: Folder of the published bodies; by default looked for in ``root`` and beside it.

    Raises:
        UserError: If there is nothing, none of the layout, no body in ``fits``, or two people would have one name.
    """
    if root.is_file():
        if root.suffix.lower() not in SUFFIXES:
            raise UserError(f"{root}: scans end in {', '.join(SUFFIXES)}")
        paths = [root]
    elif root.is_dir():
        paths = sorted(_visible(root))
    else:
        raise UserError(f"{root}: no such folder or scan")
    if not paths:
        raise UserError(f"{root} holds no scan: no file that ends in {', '.join(SUFFIXES)}")
    if fits is not None and not fits.is_dir():
        raise UserError(f"{fits}: no such folder of bodies")
    chosen = detect_layout(paths) if layout == "auto" else layout
    mine = [path for path in paths if _belongs(path, chosen)]
    if not mine:
        raise UserError(f"{root} holds no scan in the layout {chosen}, but {len(paths)} meshes; try --layout generic")
    published = _published(root, chosen, fits)
    scans = [
        ScanFile(
            name=name, path=path, layout=chosen, fit=_fit_of(path, chosen, published),
            up="y" if chosen in ("thuman2", "customhumans") else None,
        )
        for name, path in zip(person_names(mine), mine, strict=True)
    ]  # fmt: skip
    if fits is not None and all(scan.fit is None for scan in scans):
        raise UserError(f"{fits} holds no body of any of {len(scans)} scans of layout {chosen}; name another folder")
    return sorted(scans, key=lambda scan: scan.name)


def detect_layout(paths: Sequence[Path]) -> Layout:
    """Tell a set by the names of its files; whatever is not known is ``generic``."""
    scans = [path for path in paths if not _PUBLISHED_BODY.fullmatch(path.stem)]
    if not scans:
        return "generic"

    def share(layout: Layout) -> float:
        return sum(_looks(path, layout) for path in scans) / len(scans)

    return next((layout for layout in LAYOUTS[:-1] if share(layout) > 0.5), "generic")


def _looks(path: Path, layout: Layout) -> bool:
    """Whether one scan is named as a layout names them."""
    if layout == "customhumans":
        return path.suffix == ".obj" and _CUSTOM.fullmatch(path.stem) is not None
    is_numbered = path.stem == path.parent.name and _NUMBERED.fullmatch(path.stem) is not None
    if layout == "thuman2":
        beside = (path.parent / "material0.jpeg", path.parent / "smplx_param.pkl", path.parent / "material0.mtl")
        return is_numbered and path.suffix == ".obj" and any(entry.is_file() for entry in beside)
    return is_numbered and path.suffix in (".ply", ".obj")


def _belongs(path: Path, layout: Layout) -> bool:
    """Whether a mesh is a scan of the layout, rather than a published body or something else."""
    if layout == "generic":
        return True
    if _PUBLISHED_BODY.fullmatch(path.stem):
        return False
    if layout == "customhumans":
        return path.suffix == ".obj"
    return path.stem == path.parent.name and path.suffix in ((".obj",) if layout == "thuman2" else (".obj", ".ply"))


def person_names(paths: Sequence[Path]) -> list[str]:
    """Names of people by their scans: the stem, or the folder's name where stems collide, or both.

    Raises:
        UserError: If two are still called alike.
    """
    names = [path.stem for path in paths]
    for other in (lambda path: path.parent.name, lambda path: f"{path.parent.name}-{path.stem}"):
        taken = Counter(name.lower() for name in names)
        alike = {name for name, count in taken.items() if count > 1}
        names = [other(path) if name.lower() in alike else name for name, path in zip(names, paths, strict=True)]
    names = [re.sub(r"[^\w.+-]", "_", name).lstrip(".") or "scan" for name in names]
    first: dict[str, Path] = {}
    for name, path in zip(names, paths, strict=True):
        before = first.setdefault(name.lower(), path)  # some file systems do not tell A from a
        if before is not path:
            raise UserError(f"{before} and {path} would both be called {name}; rename one, or prepare them apart")
    return names


def _visible(root: Path) -> Iterator[Path]:
    for path in root.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if path.suffix.lower() in SUFFIXES and not hidden and path.is_file():
            yield path


def _published(root: Path, layout: Layout, fits: Path | None) -> dict[tuple[str, str], Path]:
    """The bodies that are published with a set, by their folder's name and their stem."""
    if layout not in ("thuman2", "customhumans"):
        return {}
    if fits is not None:
        places: Iterable[Path] = [fits]
    else:
        base = Path(os.path.abspath(root if root.is_dir() else root.parent))  # "." alone would be its own parent
        beside = sorted(entry for entry in base.parent.iterdir() if entry.is_dir() and entry != base)
        places = [base, *(entry for entry in beside if re.search(r"smplx|fits", entry.name, re.IGNORECASE))]
    pattern = "smplx_param.pkl" if layout == "thuman2" else "*.json"
    found: dict[tuple[str, str], Path] = {}
    for place in places:
        for path in sorted(place.rglob(pattern)):
            found.setdefault((path.parent.name, path.stem), path)
    return found


def _fit_of(path: Path, layout: Layout, published: dict[tuple[str, str], Path]) -> Path | None:
    stem = "smplx_param" if layout == "thuman2" else path.stem
    return published.get((path.parent.name, stem))
