"""``load_body_file``: any body file to one record."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from humansplat.errors import UserError
from humansplat.io.body_files import estimators, surfaces
from humansplat.io.body_files.cameras import WEAK
from humansplat.io.body_files.fields import Fields, choose, people_of
from humansplat.io.body_files.layouts import BODY, FULL, ROOT
from humansplat.io.body_files.record import BodyRecord, Family
from humansplat.io.body_files.values import read_values
from humansplat.structures import PosedBody

_OF_AMASS = ("mocap_framerate", "mocap_frame_rate", "dmpls", "surface_model_type", "mocap_time_length")
_OF_SAM3D = ("mhr_model_params", "pred_joint_coords", "body_pose_params", "pred_keypoints_3d", "pred_pose_raw")


@dataclass(frozen=True)
class BodyFormat:
    """How one program's files are told from others, and read."""

    name: str
    matches: Callable[[Fields], bool]
    read: Callable[[Fields, int | None, Family | None], BodyRecord]


FORMATS = (
    BodyFormat(
        "pixie", lambda f: f.has("body_cam") and _any(f, "global_pose", "partbody_pose"), estimators.read_pixie
    ),
    BodyFormat("hybrik-x", lambda f: f.has("pred_thetas", "pred_betas"), estimators.read_hybrik),
    BodyFormat("sam3d", lambda f: f.has("pred_vertices", "pred_cam_t") and _any(f, *_OF_SAM3D), surfaces.read_sam3d),
    BodyFormat("easymocap", lambda f: f.has("Rh", "Th"), estimators.read_easymocap),
    BodyFormat(
        "nlf",
        lambda f: f.has("pose", "trans") and _any(f, "joints3d", "vertices3d", "joints2d"),
        estimators.read_nlf,
    ),
    BodyFormat(
        "hmr2",
        lambda f: _any(f, *BODY) and _any(f, *ROOT) and _any(f, "pred_cam_t", "pred_cam", "pred_cam_t_full"),
        estimators.read_hmr,
    ),
    BodyFormat(
        "amass",
        lambda f: _any(f, "poses", "pose_body") and f.has("trans") and (_any(f, *_OF_AMASS) or f.has("gender")),
        estimators.read_amass,
    ),
    BodyFormat(
        "smpler-x",
        lambda f: (
            f.has("global_orient", "body_pose", "left_hand_pose", "transl", "expression")
            and not _any(f, *WEAK)
            and estimators.smpler_meta(f.path) is not None
        ),
        estimators.read_smpler,
    ),
    BodyFormat("smpl", lambda f: _any(f, *BODY, *FULL), estimators.read_smpl),
    BodyFormat("vertices", lambda f: _any(f, "vertices", "pred_vertices", "verts_smplx"), surfaces.read_vertices),
)
"""From the most telling names to the least."""
FORMAT_NAMES = ("humansplat", "mesh", *(entry.name for entry in FORMATS))


def _any(fields: Fields, *names: str) -> bool:
    return fields.name_of(*names) is not None


def load_body_file(
    path: str | Path,
    *,
    person: int | None = None,
    format: str | None = None,
    model: Family | None = None,
    template: PosedBody | None = None,
) -> BodyRecord:
    """Read one person's body from a file of any known program.

    Nothing that the file holds is executed (``humansplat.io.body_files.values``).

    Args:
        path: npz, json, pickle or torch file of parameters; npz of this library; OBJ or PLY of a posed body.
        person: Which of the people, or frames, of the file, counted from 0; needed when there are several.
        format: One of ``FORMAT_NAMES``; by default the names in the file tell it.
        model: The body model, where the file does not say and its numbers fit several.
        template: Any body of the same model, for files of a data set, which leave out the faces.

    Raises:
        UserError: If the file cannot be read, is of no known format, or is ambiguous; the sentence says what was
            found and what is needed.
    """
    path = Path(path)
    if format is not None and format not in FORMAT_NAMES:
        raise UserError(f"there is no body file format {format!r}; use one of {', '.join(FORMAT_NAMES)}")
    if path.suffix.lower() in surfaces.MESH_SUFFIXES and format in {None, "mesh"}:
        return surfaces.read_mesh(path, person)
    if format == "mesh":
        raise UserError(f"{path}: a mesh ends in .obj or .ply")
    values = read_values(path)
    if format in {None, "humansplat"} and isinstance(values, dict) and _is_own(values, path, format):
        return surfaces.read_own(path, person, template)
    people = people_of(values, path)
    if len(people) > 1:
        index = choose(len(people), person, path)
        record = _reader(people[index], format)(people[index], None, model)
        told = f"{record.source}, person {index} of {len(people)}"
        return replace(record, source=told, person=index, num_people=len(people))
    return _reader(people[0], format)(people[0], person, model)


def _is_own(values: dict, path: Path, format: str | None) -> bool:
    return format == "humansplat" or (
        path.suffix.lower() == ".npz" and {"vertices", "model", "viewmat"} <= values.keys()
    )


def _reader(fields: Fields, format: str | None) -> Callable[[Fields, int | None, Family | None], BodyRecord]:
    for entry in FORMATS:
        if entry.name == format or (format is None and entry.matches(fields)):
            return entry.read
    names = ", ".join(sorted(fields.values)[:12]) or "no names"
    raise UserError(
        f"{fields.path} is of no known body format: it names {names}; needed are a pose (body_pose, poses) or vertices"
    )
