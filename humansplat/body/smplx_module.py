"""The smplx package's own modules, from files that were read safely.

Posing needs no smplx: ``SmplBody`` does it. Who wants smplx itself (its extra joints and facial
landmarks, or a program that expects its classes) would have it unpickle the official files freely;
here it is given arrays instead. The package is an optional extra, for non-commercial use.
"""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from torch import nn

from humansplat.body.smpl_files import SmplFile
from humansplat.errors import UserError


def create_smplx(
    file: SmplFile,
    *,
    num_betas: int = 10,
    num_expression: int = 10,
    flat_hand_mean: bool = True,
    num_pca_comps: int | None = None,
    batch_size: int = 1,
) -> nn.Module:
    """Call ``smplx.create`` for a file of the family.

    Args:
        file: What ``read_smpl_file`` reads.
        num_betas: Shape coefficients; smplx takes no more than 10 of a file that has fewer than 300.
        num_expression: Expression coefficients, for SMPL-X.
        flat_hand_mean: As in ``SmplBody``; smplx's own default is ``False``.
        num_pca_comps: As in ``SmplBody``; smplx's own default is 6.
        batch_size: Bodies in one call; smplx wants every tensor at this size.

    Raises:
        UserError: If the package is not installed, or the file lacks what smplx needs.
    """
    try:
        import smplx
    except ImportError as error:
        raise UserError('the smplx package is not installed: pip install "humansplat[smplx]"') from error
    needed = {"smpl": (), "smplh": ("hands_meanl",), "smplx": ("hands_meanl", "lmk_faces_idx", "lmk_bary_coords")}
    if missing := [key for key in needed[file.name] if key not in file.arrays]:
        raise UserError(f"{file.path} lacks {', '.join(missing)}, without which smplx makes no module of it")
    hands = {
        "flat_hand_mean": flat_hand_mean,
        "use_pca": num_pca_comps is not None,
        "num_pca_comps": num_pca_comps or 45,
    }
    common = {"num_betas": num_betas, "gender": file.gender, "batch_size": batch_size}
    if file.name == "smplx":  # takes no arrays, so it gets a file, of plain arrays only
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"SMPLX_{file.gender.upper()}.npz"
            np.savez(path, allow_pickle=False, **file.arrays)
            return smplx.create(str(path), num_expression_coeffs=num_expression, **hands, **common)
    arrays = SimpleNamespace(**file.arrays)
    # The name of a file that is not there: smplx takes the kind of model from it, and the arrays from us.
    return smplx.create(f"{file.name}_", data_struct=arrays, **(hands if file.name == "smplh" else {}), **common)
