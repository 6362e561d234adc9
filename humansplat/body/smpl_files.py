"""Finding and reading the files of SMPL, SMPL-H and SMPL-X.

The files are the user's: their licences forbid that anybody else hands them out. They may lie as
smplx wants them (``FOLDER/smplx/SMPLX_NEUTRAL.npz``), all in one folder, or as they were downloaded
(``basicmodel_m_lbs_10_207_0_v1.1.0.pkl``, ``smplh/male/model.npz``).
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from humansplat.body.pickles import read_npz_arrays, read_pickled_arrays
from humansplat.errors import UserError

SmplName = Literal["smpl", "smplh", "smplx"]
Gender = Literal["neutral", "male", "female"]

SMPL_NAMES: tuple[SmplName, ...] = get_args(SmplName)
GENDERS: tuple[Gender, ...] = get_args(Gender)
NUM_JOINTS = {"smpl": 24, "smplh": 52, "smplx": 55}
REGISTER = {
    "smpl": "https://smpl.is.tue.mpg.de",
    "smplh": "https://mano.is.tue.mpg.de",
    "smplx": "https://smpl-x.is.tue.mpg.de",
}
"""Where each model's files are to be had, after registration, for non-commercial use."""
FOLDER_VARIABLE = "HUMANSPLAT_BODY_MODELS"

_REQUIRED = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights")
_OPTIONAL = (
    "hands_componentsl", "hands_componentsr", "hands_meanl", "hands_meanr", "vt", "ft",
    "lmk_faces_idx", "lmk_bary_coords", "dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords",
)  # fmt: skip
_ENDINGS = (".npz", ".pkl")


@dataclass(frozen=True, kw_only=True)
class SmplFile:
    """One file of the family, read and checked; the arrays are as the file has them, dense and unflattened."""

    name: SmplName
    gender: Gender
    path: Path
    arrays: Mapping[str, NDArray]
    """Official keys: ``v_template [v, 3]``, ``f [f, 3]``, ``shapedirs [v, 3, d]``, ``posedirs [v, 3, 9 (j - 1)]``,
    ``J_regressor [j, v]``, ``kintree_table [2, j]``, ``weights [v, j]``, and whichever there are of hands, UVs
    (``vt``, ``ft``) and facial landmarks."""

    @property
    def num_expression(self) -> int:
        """How many of the last columns of ``shapedirs`` are expressions: 100 beside 300 shapes, 10 beside 10."""
        if self.name != "smplx":
            return 0
        num = self.arrays["shapedirs"].shape[-1]
        if num not in (20, 400):
            raise UserError(
                f"{self.path}: shapedirs has {num} columns; an SMPL-X file has 20 (10 + 10) or 400 (300 + 100)"
            )
        return 100 if num == 400 else 10

    @property
    def num_betas(self) -> int:
        return self.arrays["shapedirs"].shape[-1] - self.num_expression


def model_folder(folder: str | Path | None = None) -> Path | None:
    """The folder that was given, or else the one that ``HUMANSPLAT_BODY_MODELS`` names."""
    named = folder or os.environ.get(FOLDER_VARIABLE)
    return Path(named).expanduser() if named else None


def find_smpl_files(name: SmplName, folder: Path) -> dict[Gender, Path]:
    """The files of one model in a folder, by gender; ``.npz`` goes before ``.pkl``, which takes longer to read."""
    found: dict[Gender, Path] = {}
    for place in (folder / name, folder):
        if not place.is_dir():
            continue
        own = re.match(rf"{name}([^a-z]|$)", place.name.lower()) is not None  # so a nameless model.npz is this model's
        for ending in _ENDINGS:
            for path in sorted(place.glob("*")) + (sorted(place.glob("*/model.*")) if own else []):
                gender = _gender(name, path)
                if gender and path.suffix.lower() == ending and path.is_file():
                    found.setdefault(gender, path)
    return found


def read_smpl_file(name: SmplName, folder: str | Path | None = None, gender: Gender = "neutral") -> SmplFile:
    """Read one model; a pickle cannot run anything (``humansplat.body.pickles``).

    Args:
        name: Which model.
        folder: Where the files are, or one file; ``None`` takes the folder that ``HUMANSPLAT_BODY_MODELS`` names.
        gender: Which of the files.

    Raises:
        UserError: If there is no such file, or it is not what it should be.
    """
    path = _choose(name, model_folder(folder), gender)
    read = read_npz_arrays if path.suffix.lower() == ".npz" else read_pickled_arrays
    arrays = read(path, (*_REQUIRED, *_OPTIONAL))
    if missing := [key for key in _REQUIRED if key not in arrays]:
        raise UserError(f"{path} is not a {name} model: it lacks {', '.join(missing)}")
    return SmplFile(name=name, gender=gender, path=path, arrays=_checked(name, path, arrays))


def _choose(name: SmplName, folder: Path | None, gender: Gender) -> Path:
    if gender not in GENDERS:
        raise UserError(f"there is no gender {gender!r} of {name}; use {', '.join(GENDERS)}")
    register = f"after registration at {REGISTER[name]}"
    if folder is None:
        raise UserError(
            f"the files of {name} are needed: get them {register} and name their folder, by argument or in the "
            f"environment variable {FOLDER_VARIABLE}"
        )
    if folder.is_file():
        if (_gender(name, folder) or gender) != gender:
            raise UserError(f"{folder} is {_gender(name, folder)} by its name, and {gender} was asked for")
        if folder.suffix.lower() not in _ENDINGS:
            raise UserError(f"{folder} is neither .npz nor .pkl")
        return folder
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder} with body models; get {name} {register}")
    found = find_smpl_files(name, folder)
    if gender not in found:
        instead = f"only {', '.join(found)}" if found else f"nor any other {name}"
        wanted = f"{name}/{name.upper()}_{gender.upper()}.npz or .pkl"
        raise UserError(f"{folder} has no {wanted}, {instead}; get it {register}")
    return found[gender]


def _gender(name: str, path: Path) -> Gender | None:
    """Of which gender of the model a file is, by its name; ``None`` if it is none of the model's."""
    stem = path.stem.lower()
    for gender in GENDERS:
        if stem == f"{name}_{gender}" or (stem == "model" and path.parent.name.lower() == gender):
            return gender
        short = gender if gender == "neutral" else gender[0]
        if name == "smpl" and re.fullmatch(rf"basicmodel_{short}_lbs_\d+_207_0_v[\d.]+", stem):
            return gender
    return None


def _checked(name: str, path: Path, arrays: dict[str, NDArray]) -> dict[str, NDArray]:
    """The same arrays with bases as ``[v, 3, d]``, every shape as it must be."""
    joints = arrays["J_regressor"].shape[0] if arrays["J_regressor"].ndim == 2 else 0
    if joints != NUM_JOINTS[name]:
        other = [model for model, num in NUM_JOINTS.items() if num == joints]
        hint = f": it is a {other[0]} model" if other else ""
        raise UserError(f"{path}: J_regressor has {joints} rows where {name} has {NUM_JOINTS[name]} joints{hint}")
    vertices = len(arrays["v_template"])
    for key in ("shapedirs", "posedirs"):
        arrays[key] = _basis(arrays[key], vertices)
    shapes: dict[str, tuple[int | None, ...]] = {
        "v_template": (vertices, 3),
        "f": (None, 3),
        "shapedirs": (vertices, 3, None),
        "posedirs": (vertices, 3, 9 * (joints - 1)),
        "J_regressor": (joints, vertices),
        "kintree_table": (2, joints),
        "weights": (vertices, joints),
        "hands_componentsl": (45, 45),
        "hands_componentsr": (45, 45),
        "hands_meanl": (45,),
        "hands_meanr": (45,),
        "vt": (None, 2),
        "ft": (None, 3),
    }
    for key, shape in shapes.items():
        if key not in arrays:
            continue
        actual = arrays[key].shape
        if len(actual) != len(shape) or any(want not in (None, is_) for want, is_ in zip(shape, actual, strict=True)):
            expected = ", ".join("any" if size is None else str(size) for size in shape)
            raise UserError(f"{path}: {key} has the shape {actual} where a {name} model has ({expected})")
        if arrays[key].dtype.kind == "f" and not np.isfinite(arrays[key]).all():
            raise UserError(f"{path}: {key} holds numbers that are not finite")
    for key, size in (("f", vertices), ("ft", len(arrays.get("vt", ())))):
        indices = arrays.get(key, np.zeros(0))
        if indices.size and (indices.min() < 0 or indices.max() >= size):
            raise UserError(f"{path}: {key} points beyond {size} vertices")
    return arrays


def _basis(array: NDArray, vertices: int) -> NDArray:
    """``[v, 3, d]`` of a basis that some files keep flat, as ``[3 v, d]`` or ``[d, 3 v]``."""
    if array.ndim == 2 and array.shape[0] == 3 * vertices:
        return array.reshape(vertices, 3, -1)
    if array.ndim == 2 and array.shape[1] == 3 * vertices:
        return np.moveaxis(array.reshape(-1, vertices, 3), 0, -1)
    return array
