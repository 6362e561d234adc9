"""Several textured pieces as one Embree scene, with the light that does not depend on the camera baked in."""

from collections.abc import Sequence

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from jaxtyping import Float32, Int32, UInt8

from humansplat.render import mesh_kernels as kernels
from humansplat.render.lighting import Lighting
from humansplat.render.mesh_opaque import pack_faces
from humansplat.render.mesh_rays import bounding_spheres
from humansplat.render.shaded_mesh import ShadedMesh

OCCLUSION_RAYS = 12
OCCLUSION_RANGE = 0.5
"""Metres; what is farther away does not darken the surroundings' light."""
LAMP_RAYS = 6
BURIED = 0.15
"""A vertex that sees less of its surroundings takes its light from its neighbours."""
FILL_ROUNDS = 3
RAY_OFFSET = 2e-3
"""Metres between a surface and the start of its shadow rays: garments lie about this far above the skin."""

_ALPHA_MODES = {"opaque": kernels.OPAQUE, "cutout": kernels.CUTOUT, "blend": kernels.BLEND}


class MeshScene:
    """Meshes merged into flat arrays and an Embree scene; build once, trace many views."""

    def __init__(self, meshes: Sequence[ShadedMesh], lighting: Lighting) -> None:
        """Merge, build the acceleration structure and bake occlusion and shadows.

        Raises:
            ValueError: If there is no face at all.
        """
        if not sum(len(mesh.faces) for mesh in meshes):
            raise ValueError("nothing to render: the meshes have no faces")
        self.lighting = lighting
        self.light = kernels.LightArrays(
            environment=lighting.environment.astype(np.float32),
            directions=lighting.directions.astype(np.float32),
            colors=lighting.colors.astype(np.float32),
            shaded=lighting.shaded,
        )
        vertices = np.concatenate([mesh.vertices for mesh in meshes]).astype(np.float32)
        starts = _starts([len(mesh.vertices) for mesh in meshes])
        faces = np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts, strict=True)])
        faces = faces.astype(np.int32)
        self.embree = EmbreeScene(robust=True)
        TriangleMesh(self.embree, vertices, faces)
        # The first ray builds the tree, which threads must not race to.
        self.embree.run(np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32))

        normals = np.concatenate([_normals(mesh) for mesh in meshes])
        uvs, uv_faces, density = _merge_uvs(meshes)
        texels, levels, num_levels = _merge_textures(meshes)
        casts = lighting.shaded & np.array([mesh.casts_shadow for mesh in meshes])
        casting = faces[np.repeat(casts, [len(mesh.faces) for mesh in meshes])]
        occlusion, shadows = bake_visibility(vertices, normals, faces, casting, lighting)
        self.arrays = kernels.SceneArrays(
            faces=faces,
            face_piece=np.repeat(np.arange(len(meshes)), [len(mesh.faces) for mesh in meshes]).astype(np.int32),
            uv_faces=uv_faces,
            density=density,
            vertices=vertices,
            normals=normals,
            labels=np.concatenate([_labels(mesh) for mesh in meshes]),
            occlusion=occlusion,
            shadows=shadows,
            uvs=uvs,
            vertex_colors=_merge_colors(meshes),
            texels=texels,
            levels=levels,
            num_levels=num_levels,
            colored=np.array([mesh.vertex_colors is not None and not _textured(mesh) for mesh in meshes], np.bool_),
            alpha_mode=np.array([_ALPHA_MODES[mesh.alpha] for mesh in meshes], np.int32),
            two_sided=np.array([mesh.two_sided for mesh in meshes], np.bool_),
            color=np.array([mesh.color for mesh in meshes], np.float32),
            specular=np.array([mesh.specular for mesh in meshes], np.float32),
            roughness=np.array([mesh.roughness for mesh in meshes], np.float32),
            srgb_to_linear=_srgb_to_linear_table(),
            display=_display_table(lighting.shaded),
        )
        self.spheres = bounding_spheres(vertices, faces)
        self.records = None if len(lighting.directions) else pack_faces(self.arrays)


def bake_visibility(
    vertices: Float32[np.ndarray, "v 3"],
    normals: Float32[np.ndarray, "v 3"],
    faces: Int32[np.ndarray, "f 3"],
    casting: Int32[np.ndarray, "g 3"],
    lighting: Lighting,
) -> tuple[Float32[np.ndarray, " v"], Float32[np.ndarray, "l v"]]:
    """Share of the surroundings, and of each lamp's disc, that each vertex sees.

    Per vertex rather than per ray: it serves all views, is the same from every side, and the
    vertices of a person are about a centimetre apart.

    Args:
        vertices: World frame, metres.
        normals: Unit normals.
        faces: Faces that connect the vertices, for smoothing the few samples.
        casting: The faces that cast shadows.
        lighting: Whose lamps.
    """
    num_lamps = len(lighting.directions)
    if not len(casting):
        return np.ones(len(vertices), np.float32), np.ones((num_lamps, len(vertices)), np.float32)
    blockers = EmbreeScene()
    TriangleMesh(blockers, vertices, casting)
    kept, places = _weld(vertices, normals, faces)
    vertices, normals, faces = vertices[kept], normals[kept], places[faces]

    rays = np.empty((len(vertices), OCCLUSION_RAYS, 3), np.float32)
    kernels.hemisphere_rays(normals, OCCLUSION_RAYS, rays)
    origins = np.repeat(vertices + RAY_OFFSET * normals, OCCLUSION_RAYS, axis=0)
    seen = ~_blocked(blockers, origins, rays.reshape(-1, 3), OCCLUSION_RANGE)
    columns = [seen.reshape(-1, OCCLUSION_RAYS).mean(axis=1)]

    directions = np.empty((num_lamps, len(vertices), LAMP_RAYS, 3), np.float32)
    sides = np.empty((num_lamps, len(vertices)), np.float32)
    kernels.lamp_rays(normals, lighting.directions.astype(np.float32), lighting.softness, LAMP_RAYS, directions, sides)
    for lamp in range(num_lamps):
        # Cloth and hair are lit from either side, so the ray starts on the lamp's side of the surface.
        starts = vertices + RAY_OFFSET * sides[lamp][:, None] * normals
        origins = np.repeat(starts, LAMP_RAYS, axis=0)
        seen = ~_blocked(blockers, origins, directions[lamp].reshape(-1, 3), 10.0)
        columns.append(seen.reshape(-1, LAMP_RAYS).mean(axis=1))
    visibility = np.stack(columns, axis=1).astype(np.float32)
    # What sees next to nothing lies under another piece. Nobody sees it either, but the faces around it may come out
    # (an eye from under its lids, a neck from a collar) and must not be dark there.
    trusted = visibility[:, 0] > BURIED
    for _ in range(FILL_ROUNDS):
        kernels.fill_from_neighbors(visibility, faces, trusted)
    smooth = kernels.smooth_over_faces(visibility, faces)
    return np.ascontiguousarray(smooth[places, 0]), np.ascontiguousarray(smooth[places, 1:].T)


def _weld(vertices: np.ndarray, normals: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices that faces use, one for each place and side; and for every vertex its place among those.

    Else the two sides of a texture's seam would get different samples, and unused vertices rays.
    """
    used = np.unique(faces)
    keys = np.concatenate([np.rint(1e5 * vertices[used]), np.rint(2 * normals[used])], axis=1).astype(np.int32)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    places = np.zeros(len(vertices), np.int32)
    places[used] = inverse.reshape(-1)
    return used[first], places


def _blocked(scene: EmbreeScene, origins: np.ndarray, directions: np.ndarray, reach: float) -> np.ndarray:
    hits = scene.run(origins, directions, np.full(len(origins), reach, np.float32), query="OCCLUDED")
    return hits == 0


def _starts(lengths: Sequence[int]) -> list[int]:
    return [0, *np.cumsum(lengths)[:-1].tolist()]


def _normals(mesh: ShadedMesh) -> np.ndarray:
    if mesh.normals is not None:
        return mesh.normals.astype(np.float32)
    return kernels.vertex_normals(mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32))


def _labels(mesh: ShadedMesh) -> np.ndarray:
    if mesh.parts is None:
        return np.zeros(len(mesh.vertices), np.uint8)
    return (mesh.parts + 1).astype(np.uint8)


def _textured(mesh: ShadedMesh) -> bool:
    return mesh.texture is not None and mesh.uvs is not None


def _merge_colors(meshes: Sequence[ShadedMesh]) -> np.ndarray:
    if all(mesh.vertex_colors is None for mesh in meshes):
        return np.zeros((1, 3), np.uint8)
    blank = (np.zeros((len(mesh.vertices), 3), np.uint8) for mesh in meshes)
    return np.concatenate(
        [none if mesh.vertex_colors is None else mesh.vertex_colors for none, mesh in zip(blank, meshes, strict=True)]
    )


def _merge_uvs(meshes: Sequence[ShadedMesh]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texture coordinates ``[t, 2]``, corners ``[f, 3]`` and texels per metre ``[f]`` of all pieces."""
    uvs, corners, densities, start = [], [], [], 0
    for mesh in meshes:
        if mesh.uvs is None or mesh.texture is None:
            corners.append(np.zeros((len(mesh.faces), 3), np.int32))
            densities.append(np.zeros(len(mesh.faces), np.float32))
            continue
        own = (mesh.faces if mesh.uv_faces is None else mesh.uv_faces).astype(np.int32)
        texels = float(mesh.texture.shape[0] * mesh.texture.shape[1])
        vertices, faces = mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32)
        densities.append(kernels.texel_density(vertices, faces, mesh.uvs.astype(np.float32), own, texels))
        corners.append(own + start)
        uvs.append(mesh.uvs)
        start += len(mesh.uvs)
    merged = np.concatenate(uvs) if uvs else np.zeros((1, 2))
    return merged.astype(np.float32), np.concatenate(corners).astype(np.int32), np.concatenate(densities)


def _merge_textures(meshes: Sequence[ShadedMesh]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texels ``[n, 4]`` of all levels, table of the levels ``[m, MAX_LEVELS, 3]`` and their number ``[m]``."""
    table = np.zeros((len(meshes), kernels.MAX_LEVELS, 3), np.int64)
    counts = np.zeros(len(meshes), np.int32)
    images: list[np.ndarray] = []
    placed: dict[int, int] = {}  # pieces that share a texture share its levels
    used = 0
    for piece, mesh in enumerate(meshes):
        if mesh.texture is None or mesh.uvs is None:
            continue
        if id(mesh.texture) in placed:
            table[piece], counts[piece] = table[placed[id(mesh.texture)]], counts[placed[id(mesh.texture)]]
            continue
        placed[id(mesh.texture)] = piece
        level = with_alpha(mesh.texture)
        for index in range(kernels.MAX_LEVELS):
            height, width = level.shape[:2]
            table[piece, index] = used, width, height
            counts[piece] = index + 1
            images.append(level.reshape(-1, 4))
            used += height * width
            if max(height, width) == 1:
                break
            level = kernels.halve(level)
    return (np.concatenate(images) if images else np.zeros((1, 4), np.uint8)), table, counts


def with_alpha(texture: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w 4"]:
    """The texture with an alpha channel, opaque where it had none."""
    if texture.shape[2] == 4:
        return np.ascontiguousarray(texture)
    return np.concatenate([texture, np.full((*texture.shape[:2], 1), 255, np.uint8)], axis=2)


def _srgb_to_linear_table() -> np.ndarray:
    values = np.arange(256) / 255.0
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _display_table(shoulder: bool) -> np.ndarray:
    """Linear light -> sRGB; see ``SceneArrays.display``.

    Args:
        shoulder: Bend the curve above a light of 0.75, so that highlights do not clip.
    """
    light = np.linspace(0.0, 2.0, 513) ** 2
    if shoulder:
        light = np.where(light > 0.75, 1.0 - 0.25 * np.exp(-(light - 0.75) / 0.25), light)
    light = np.minimum(light, 1.0)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055).astype(np.float32)
