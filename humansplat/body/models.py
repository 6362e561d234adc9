"""The door through which body models are had by name."""

from pathlib import Path

from humansplat.body.protocol import BodyModel
from humansplat.body.smpl_files import SMPL_NAMES, Gender
from humansplat.errors import UserError

MODEL_NAMES = ("anny", *SMPL_NAMES)


def load_body_model(
    name: str = "anny",
    *,
    folder: str | Path | None = None,
    gender: Gender = "neutral",
    flat_hand_mean: bool = True,
    num_pca_comps: int | None = None,
) -> BodyModel:
    """Load a body model by its name.

    ``anny`` ships with the package and needs no other argument. ``smpl``, ``smplh`` and ``smplx`` are read from
    the user's files; ``pose`` takes the smplx package's parameters by its names (``SmplBody.pose`` says exactly)::

        body = load_body_model("smplx", folder="models", gender="female")
        posed = body.pose({"betas": betas, "global_orient": turn, "body_pose": pose, "transl": transl})

    with ``betas [*b, n]`` and ``expression [*b, n]`` of any n up to the file's number of coefficients, rotations as
    axis times angle ``[*b, 3 k]`` (``body_pose`` 69 wide for SMPL, 63 for SMPL-H and SMPL-X; ``left_hand_pose``,
    ``right_hand_pose`` 45; ``jaw_pose``, ``leye_pose``, ``reye_pose``, ``global_orient`` 3), and ``transl [*b, 3]``
    added at the end. What is left out is ``neutral()``'s: zeros, but a ``transl`` that stands the mean adult on the
    ground; give zeros to have smplx's place.

    Args:
        name: One of ``MODEL_NAMES``.
        folder: Where the files of the SMPL family are, or one file; ``None`` takes the folder that the environment
            variable ``HUMANSPLAT_BODY_MODELS`` names.
        gender: Which file of the SMPL family.
        flat_hand_mean: Whether a hand pose of zeros is the flat hand; else the mean hand. smplx's default is the
            mean hand, and so are the files of programs that keep it.
        num_pca_comps: Hand poses are this many principal components of the file; ``None``: 15 rotations each. smplx's
            default is 6 components.

    Raises:
        UserError: If there is no model of that name, its files are missing or no model files, or an option does not
            fit the model.
    """
    for known in SMPL_NAMES:
        if name == known:
            from humansplat.body.smpl import SmplBody

            return SmplBody.load(
                known, folder=folder, gender=gender, flat_hand_mean=flat_hand_mean, num_pca_comps=num_pca_comps
            )
    if name != "anny":
        raise UserError(f"there is no body model named {name!r}; use {', '.join(MODEL_NAMES)}")
    if gender != "neutral" or not flat_hand_mean or num_pca_comps is not None:
        raise UserError("anny has one file: its gender is a phenotype, and its hands are rotations")
    from humansplat.body.anny import AnnyBody

    return AnnyBody.load()
