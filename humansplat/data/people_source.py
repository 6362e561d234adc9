"""What ``--assets`` points at: MakeHuman's zip, its unpacked folders, or rigged characters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from humansplat.data.format import Split
from humansplat.data.synthetic.archive import NEEDED_KINDS, unpacked
from humansplat.errors import UserError
from humansplat.render.shaded_mesh import ShadedMesh
from humansplat.structures import PosedBody

CHARACTER_SUFFIXES = frozenset({".glb", ".gltf", ".vrm"})
_OTHER_CHARACTERS = {".fbx", ".dae", ".blend", ".bvh", ".obj", ".usd", ".usdz", ".pmx", ".x3d", ".max", ".ma", ".mb"}


class Person(Protocol):
    """What a generator gives; ``humansplat.data.synthetic`` has it."""

    @property
    def meshes(self) -> Sequence[ShadedMesh]: ...
    @property
    def body(self) -> PosedBody: ...
    @property
    def meta(self) -> dict[str, object]: ...


PersonGenerator = Callable[[int, Split], Person]
"""Draws a person from a seed, of the assets of a split."""
GeneratorFactory = Callable[[Path], PersonGenerator]
"""Loads the assets of a folder, once a process; must be importable by name, as ``multiprocessing`` asks."""


@dataclass(frozen=True, kw_only=True)
class PeopleSource:
    """Where people are drawn from."""

    folder: Path
    """The assets, unpacked."""
    factory: GeneratorFactory
    """What draws people from the folder."""


def people_source(assets: Path) -> PeopleSource:
    """Decide by what a path holds.

    Args:
        assets: A zip file or folder of MakeHuman assets, or a folder of rigged characters.

    Raises:
        UserError: If it holds neither, with what was found.
    """
    if assets.is_file():
        if assets.suffix.lower() in CHARACTER_SUFFIXES:
            raise UserError(f"{assets} is one character; give --assets the folder that it is in")
        if assets.suffix.lower() != ".zip":
            raise UserError(f"{assets} is neither a zip file nor a folder; {expected()}")
        return PeopleSource(folder=unpacked(assets), factory=library_generator)
    if not assets.is_dir():
        raise UserError(f"there is no asset folder {assets}; {expected()}")
    for folder in (assets, *sorted(path for path in assets.iterdir() if path.is_dir())):  # unpacked into a folder more
        if any((folder / kind).is_dir() for kind in NEEDED_KINDS):
            return PeopleSource(folder=folder, factory=library_generator)
    if character_files(assets):
        return PeopleSource(folder=assets, factory=character_generator)
    raise UserError(f"{assets} holds {_contents(assets)}; {expected()}{_advice(assets)}")


def library_generator(assets: Path) -> PersonGenerator:
    """The people of ``humansplat.data.synthetic``."""
    from humansplat.data.synthetic import AssetLibrary, generate_person

    library = AssetLibrary(assets)
    return lambda seed, split: generate_person(library, seed, split)


def character_generator(assets: Path) -> PersonGenerator:
    """The people of ``humansplat.data.rigged``."""
    from humansplat.data.rigged.characters import CharacterLibrary, generate_character

    library = CharacterLibrary(assets)
    return lambda seed, split: generate_character(library, seed, split)


def character_files(folder: Path) -> list[Path]:
    """Files of rigged characters in a folder and below, hidden ones left out, in an order that every system has."""
    files = [path for path in folder.rglob("*") if path.suffix.lower() in CHARACTER_SUFFIXES]
    shown = [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    return sorted((path for path in shown if path.is_file()), key=lambda path: path.relative_to(folder).as_posix())


def expected() -> str:
    """What ``--assets`` takes, for messages."""
    return (
        "give --assets the file makehuman_system_assets_cc0.zip, a folder that holds clothes, hair, skins and poses, "
        "or a folder of rigged characters (.glb, .gltf, .vrm)"
    )


def _contents(folder: Path) -> str:
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in folder.iterdir())
    if not names:
        return "nothing"
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _advice(folder: Path) -> str:
    found = {path.suffix.lower() for path in folder.rglob("*")} & _OTHER_CHARACTERS
    if not found:
        return ""
    return f"; {', '.join(sorted(found))} files can be exported as .glb by Blender (File, Export, glTF 2.0)"
