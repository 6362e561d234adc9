"""The folder of one person on disk and the manifest of a data set; ``docs/data-format.md`` describes both."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import UInt8, UInt16

from humansplat.data.rig import Role
from humansplat.errors import UserError
from humansplat.io.atomic import replacing, replacing_folder
from humansplat.io.body import read_body, write_body
from humansplat.io.images import read_png, write_png
from humansplat.structures import Cameras, PosedBody

FORMAT_VERSION = 1
MANIFEST = "manifest.jsonl"
Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")

VERTEX_GRID = 2.0**-16
"""Metres. Vertices are rounded to it (0.015 mm), which takes a third off their compressed size."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PersonRecord:
    """Everything that a person's folder holds."""

    images: UInt8[np.ndarray, "v h w 4"]
    """sRGB and straight alpha; colour is 0 where alpha is."""
    parts: UInt8[np.ndarray, "v h w"]
    """0 is background, part label ``k`` is ``k + 1``."""
    cameras: Cameras
    """One a view."""
    roles: tuple[Role, ...]
    """What each view is for; the input view comes first, then the three orthogonal to it."""
    body: PosedBody
    """Unbatched, world frame, metres."""
    meta: dict[str, object]
    """Where the person comes from."""
    normals: UInt8[np.ndarray, "v h w 4"] | None = None
    """World frame, ``(n + 1) / 2`` in 8 bits, and the alpha of ``images``; 0 where that is. None unless asked for."""
    depth: UInt16[np.ndarray, "v h w"] | None = None
    """Camera-frame depth, millimetres; 0 where there is nothing. None unless asked for."""


def write_person(folder: Path, person: PersonRecord, scan: bytes | None = None) -> None:
    """Write one person; the folder appears whole or not at all, the same bytes for the same record.

    Args:
        folder: Its name is the person's name.
        person: What to write.
        scan: A binary glTF file to go with it.

    Raises:
        ValueError: If pictures, part maps, cameras and roles differ in number or size.
    """
    count, height, width = person.parts.shape
    if not (
        person.images.shape == (count, height, width, 4)
        and person.cameras.viewmats.shape == (count, 4, 4)
        and (person.cameras.width, person.cameras.height) == (width, height)
        and len(person.roles) == count
        and (person.normals is None or person.normals.shape == (count, height, width, 4))
        and (person.depth is None or person.depth.shape == (count, height, width))
    ):
        raise ValueError(
            f"{count} part maps of {width} x {height} need as many pictures, cameras and roles of that size, got "
            f"{person.images.shape}, {tuple(person.cameras.viewmats.shape)} and {len(person.roles)}"
        )
    with replacing_folder(folder) as temporary:
        for index in range(count):
            write_png(person.images[index], temporary / "images" / f"{index:03d}.png")
            write_png(person.parts[index], temporary / "parts" / f"{index:03d}.png")
            if person.normals is not None:
                write_png(person.normals[index], temporary / "normals" / f"{index:03d}.png")
            if person.depth is not None:
                write_png(person.depth[index], temporary / "depth" / f"{index:03d}.png")
        write_cameras(person.cameras, person.roles, temporary / "cameras.json")
        vertices = (person.body.vertices / VERTEX_GRID).round() * VERTEX_GRID
        body = replace(person.body, vertices=vertices)
        write_body(body, person.cameras[0], temporary / "body.npz", constants=False)
        _write_json(person.meta, temporary / "meta.json")
        if scan is not None:
            (temporary / "scan.glb").write_bytes(scan)


def read_person(folder: Path, template: PosedBody, views: Sequence[int] | None = None) -> PersonRecord:
    """Read what :func:`write_person` wrote.

    Args:
        folder: The person's folder.
        template: Any body of the same model, for what all bodies of a model share.
        views: Numbers of the views wanted, in their order; ``None`` reads all.

    Raises:
        UserError: If a file is missing or cannot be read, or there is no such view.
    """
    cameras, roles = read_cameras(folder / "cameras.json")
    wanted = range(len(roles)) if views is None else views
    if not all(0 <= view < len(roles) for view in wanted):
        raise UserError(f"{folder} has {len(roles)} views, {list(wanted)} are asked for")
    body, _ = read_body(folder / "body.npz", template)
    return PersonRecord(
        images=np.stack([read_png(folder / "images" / f"{view:03d}.png") for view in wanted]),
        parts=np.stack([read_png(folder / "parts" / f"{view:03d}.png") for view in wanted]),
        cameras=cameras[torch.tensor(list(wanted))],
        roles=tuple(roles[view] for view in wanted),
        body=body,
        meta=_read_json(folder / "meta.json"),
        normals=_optional(folder / "normals", wanted),
        depth=_optional(folder / "depth", wanted),
    )


def _optional(folder: Path, views: Sequence[int]) -> np.ndarray | None:
    return np.stack([read_png(folder / f"{view:03d}.png") for view in views]) if folder.is_dir() else None


def write_cameras(cameras: Cameras, roles: Sequence[Role], path: Path) -> None:
    """Write ``cameras.json``; nine digits bring every float32 back."""
    _write_json(
        {
            "width": cameras.width,
            "height": cameras.height,
            "roles": list(roles),
            "viewmats": _rounded(cameras.viewmats.tolist()),
            "Ks": _rounded(cameras.Ks.tolist()),
        },
        path,
    )


def read_cameras(path: Path) -> tuple[Cameras, tuple[Role, ...]]:
    """Read ``cameras.json``.

    Raises:
        UserError: If it is missing or incomplete.
    """
    return parse_cameras(_content(path), str(path))


def parse_cameras(content: bytes, where: str) -> tuple[Cameras, tuple[Role, ...]]:
    """Read the bytes of a ``cameras.json``.

    Args:
        content: The bytes of the file.
        where: Its name, for messages.

    Raises:
        UserError: If it is incomplete or has views of an unknown role.
    """
    fields = _parse_json(content, where)
    try:
        viewmats = torch.tensor(fields["viewmats"], dtype=torch.float32)
        Ks = torch.tensor(fields["Ks"], dtype=torch.float32)
        cameras = Cameras(viewmats=viewmats, Ks=Ks, width=fields["width"], height=fields["height"])
        roles = tuple(fields["roles"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: not cameras of a person ({error}); make the data anew") from error
    if unknown := sorted(set(roles) - set(get_args(Role))):
        raise UserError(f"{where} has views of unknown roles {unknown}; there are {sorted(get_args(Role))}")
    return cameras, roles


def manifest_line(folder: Path) -> str:
    """One person's line of the manifest, with size and sha256 of every file.

    Raises:
        UserError: If the folder lacks its ``meta.json``.
    """
    meta = _read_json(folder / "meta.json")
    files: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            files[path.relative_to(folder).as_posix()] = {"bytes": len(content), "sha256": digest}
    line = {"name": folder.name, "split": meta.get("split"), "seed": meta.get("seed"), "files": files}
    if meta.get("flags"):
        line["flags"] = meta["flags"]
    return json.dumps(line, separators=(",", ":"))


def read_manifest(root: Path) -> list[dict[str, object]]:
    """The people of a data set in their order; a last line that is cut short does not count.

    Raises:
        UserError: If there is no manifest, or a line is no JSON.
    """
    path = root / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{root} holds no {MANIFEST}; give a folder that synthesize or prepare wrote") from error
    try:
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not a manifest ({error}); make the data anew") from error


def _rounded(values: list) -> list:
    return [_rounded(value) if isinstance(value, list) else float(f"{value:.9g}") for value in values]


def _write_json(value: dict[str, object], path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8", newline="\n")


def _read_json(path: Path) -> dict:
    return _parse_json(_content(path), str(path))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; make the data anew") from error


def _parse_json(content: bytes, where: str) -> dict:
    try:
        value = json.loads(content.decode("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{where}: not JSON ({error}); make the data anew") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: not an object of JSON; make the data anew")
    return value
