"""The bodies that THuman2.0, THuman2.1 and CustomHumans publish with their scans: SMPL-X parameters.

* THuman2.0: ``smplx_param.pkl``, made by the male model with twelve principal components a hand, relative to the mean
  hand. A vertex of the scan's frame is ``scale * smplx(...) + translation``; the scans have no common scale, so this
  is what tells their size.
* THuman2.1: the same file with rotations for hands and, in place of ``translation``, ``transl`` inside the model.
* CustomHumans: ``mesh-f00101.json``, metres, male, twelve components a hand, relative to the flat hand.

None of them is trusted: ``check_body`` looks at each against its scan, and against the published mesh, where there is
one, it is compared.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from humansplat.body.recorded import pose_record
from humansplat.body.smpl_files import Gender
from humansplat.data.scans.layouts import ScanFile
from humansplat.data.scans.obj import read_obj
from humansplat.errors import UserError
from humansplat.io.body_files.load import load_body_file
from humansplat.io.body_files.values import read_values
from humansplat.structures import PosedBody

PUBLISHED_GENDER: Gender = "male"
"""Of the model that both sets were fitted with."""
_MESH = "mesh_smplx.obj"
_SAME_MESH = 0.01
"""Metres by which our body may differ from the published mesh."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PublishedBody:
    """What a set says of one scan."""

    body: PosedBody
    """In the scan's frame and axes, but metres."""
    notes: tuple[str, ...] = ()


def published_scale(scan: ScanFile) -> float | None:
    """Metres that one unit of a scan stands for, where its published body tells it.

    Raises:
        UserError: If the file cannot be read, or its scale is none.
    """
    if scan.fit is None or scan.layout != "thuman2":
        return None
    values = read_values(scan.fit)
    if not isinstance(values, dict) or "scale" not in values:
        return None
    scale = _numbers(values["scale"], 1, scan.fit)
    if not scale[0] > 0:
        raise UserError(f"{scan.fit}: a scale of {scale[0]:g}; it must be positive")
    return 1.0 / float(scale[0])


def read_published(scan: ScanFile, gender: Gender, folder: Path | None) -> PublishedBody | None:
    """Pose the published body of a scan.

    Args:
        scan: With its fit.
        gender: Of the SMPL-X model.
        folder: Of the model files; by default what ``HUMANSPLAT_BODY_MODELS`` names.

    Returns:
        ``None`` if the set publishes none for the scan.

    Raises:
        UserError: If the file or the model cannot be read.
    """
    if scan.fit is None:
        return None
    record = replace(load_body_file(scan.fit, model="smplx"), gender=gender, camera=None, viewmat=None, scale=1.0)
    if scan.layout == "customhumans":
        return PublishedBody(body=pose_record(replace(record, adds_mean_hand=False), folder).body)
    values = read_values(scan.fit)
    assert isinstance(values, dict)
    scale = 1.0 / (published_scale(scan) or 1.0)
    if "translation" in values:
        shift = torch.from_numpy(_numbers(values["translation"], 3, scan.fit)).float() / scale
    elif "transl" in values:
        shift = torch.from_numpy(_numbers(values["transl"], 3, scan.fit)).float()
    else:
        raise UserError(f"{scan.fit} has neither translation nor transl; it does not say where the body stands")
    body = pose_record(replace(record, translation=shift, placement="smpl"), folder).body
    return PublishedBody(body=body, notes=_compared(body, scale, scan.fit.with_name(_MESH)))


def _compared(body: PosedBody, scale: float, mesh: Path) -> tuple[str, ...]:
    """Whether the published mesh is what we pose, said if it is not."""
    if not mesh.is_file():
        return ()
    vertices = read_obj(mesh).vertices / scale
    if len(vertices) != len(body.vertices):
        return (f"{mesh.name} has {len(vertices)} vertices, the model {len(body.vertices)}",)
    error = float(np.linalg.norm(vertices - body.vertices.numpy(), axis=1).mean())
    if error < _SAME_MESH:
        return ()
    return (
        f"{mesh.name} is not what the {body.gender} model gives for its parameters, {1000 * error:.0f} mm apart on "
        "average: another --gender may be meant",
    )


def _numbers(value: object, count: int, path: Path) -> np.ndarray:
    try:
        array = np.asarray(value, np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: scale and translation must be numbers ({error})") from error
    if len(array) != count or not np.isfinite(array).all():
        raise UserError(f"{path}: {count} finite numbers are needed for scale or translation, got {array.tolist()}")
    return array
