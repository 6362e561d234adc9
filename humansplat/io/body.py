"""``body.npz``: a posed body and the camera that saw it.

Arrays of the file, world frame, metres, float32:
    vertices [v, 3], joints [j, 3]           the posed surface and skeleton
    model                                    name of the body model
    gender                                   which of its files: neutral, male or female; only for the SMPL family
    viewmat [4, 4], K [3, 3], width, height  the camera
    canonical [v, 3], faces [f, 3], parts [v]  what is the same for every body of the model; may be left out
    any other name                           the model's own parameters

The camera is that of the photograph or picture that the body was made from, in its pixels.
"""

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from humansplat.errors import UserError
from humansplat.io.atomic import replacing
from humansplat.structures import Cameras, PosedBody

_REQUIRED = ("vertices", "joints", "model", "viewmat", "K", "width", "height")
_CONSTANTS = ("canonical", "faces", "parts")
_NAMES = {*_REQUIRED, *_CONSTANTS, "gender"}
"""Every other array is a parameter of the model."""


def write_body(body: PosedBody, camera: Cameras, path: Path, *, constants: bool = True) -> None:
    """Write one posed body and one camera, the same bytes for the same values.

    Args:
        body: Unbatched.
        camera: Unbatched.
        path: Appears whole or not at all.
        constants: Also write what is the same for every body of the model, so that the file is complete
            in itself; data sets leave it out.

    Raises:
        ValueError: If the body or the camera is batched, or a parameter has the name of another array.
    """
    if body.vertices.ndim != 2 or camera.viewmats.ndim != 2:
        raise ValueError(
            f"body.npz holds one body and one camera, got {tuple(body.vertices.shape)}, {tuple(camera.viewmats.shape)}"
        )
    arrays = {
        "vertices": _array(body.vertices),
        "joints": _array(body.joints),
        "model": np.array(body.model),
        "viewmat": _array(camera.viewmats),
        "K": _array(camera.Ks),
        "width": np.array(camera.width),
        "height": np.array(camera.height),
    }
    parameters = {name: _array(value) for name, value in (body.parameters or {}).items()}
    if taken := sorted(parameters.keys() & _NAMES):
        raise ValueError(f"a body model's parameter cannot be called {', '.join(taken)} in body.npz")
    arrays |= parameters
    if body.gender is not None:
        arrays["gender"] = np.array(body.gender)
    if constants:
        arrays["canonical"] = _array(body.canonical)
        arrays["faces"] = body.faces.cpu().numpy().astype(np.int32)
        arrays["parts"] = body.parts.cpu().numpy().astype(np.int16)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_body(path: Path, template: PosedBody | None = None) -> tuple[PosedBody, Cameras]:
    """Read what :func:`write_body` wrote.

    Args:
        path: The file.
        template: Any body of the same model and gender: gives what a file of a data set leaves out.

    Raises:
        UserError: If there is no such file, it is not a body file, or it leaves out what no template gives.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such body file") from error
    except OSError as error:
        raise UserError(f"{path}: not a body file (body.npz) that can be read") from error
    return parse_body(content, str(path), template)


def parse_body(content: bytes, where: str, template: PosedBody | None = None) -> tuple[PosedBody, Cameras]:
    """Read the bytes of what :func:`write_body` wrote.

    Args:
        content: The bytes of the file.
        where: Its name, for messages.
        template: Any body of the same model and gender: gives what a file of a data set leaves out.

    Raises:
        UserError: If it is not a body file, or it leaves out what no template gives.
    """
    arrays = _load(content, where)
    missing = sorted(set(_REQUIRED) - arrays.keys())
    if missing:
        raise UserError(f"{where}: not a body file, it lacks {', '.join(missing)}")
    model, gender = str(arrays["model"]), str(arrays["gender"]) if "gender" in arrays else None
    if all(name in arrays for name in _CONSTANTS):
        canonical = _tensor(arrays["canonical"])
        faces = torch.from_numpy(arrays["faces"].astype(np.int64))
        parts = torch.from_numpy(arrays["parts"].astype(np.int64))
    elif template is not None and _fits(template, model, gender, len(arrays["vertices"])):
        canonical, faces, parts = template.canonical, template.faces, template.parts
    else:
        raise UserError(f"{where}: a body of the model {model!r} without its faces; write it with constants=True")
    body = PosedBody(
        vertices=_tensor(arrays["vertices"]),
        joints=_tensor(arrays["joints"]),
        canonical=canonical,
        faces=faces,
        parts=parts,
        model=model,
        gender=gender,
        parameters={name: _tensor(value) for name, value in arrays.items() if name not in _NAMES} or None,
    )
    camera = Cameras(
        viewmats=_tensor(arrays["viewmat"]),
        Ks=_tensor(arrays["K"]),
        width=int(arrays["width"]),
        height=int(arrays["height"]),
    )
    return body, camera


def _fits(template: PosedBody, model: str, gender: str | None, num_vertices: int) -> bool:
    same = (template.model, template.gender) == (model, gender)
    return same and len(template.canonical) == num_vertices


def _load(content: bytes, where: str) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return dict(file)
    except (OSError, EOFError, ValueError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{where}: not a body file (body.npz) that can be read") from error


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().astype(np.float32)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))
