"""Files of scans, as they come out of scanners and modelling programs."""

from pathlib import Path

import numpy as np
import pytest
import toy_scans
import trimesh
from numpy.testing import assert_allclose
from PIL import Image

from humansplat.data.scans import textures
from humansplat.data.scans.obj import read_obj
from humansplat.data.scans.reading import read_scan
from humansplat.data.scans.rings import ring
from humansplat.errors import UserError
from humansplat.render.lighting import unlit
from humansplat.render.meshes import render_meshes


def test_obj_lines_of_every_kind_are_read(tmp_path: Path):
    path = tmp_path / "odd.obj"
    path.write_bytes(
        b"# made by hand\r\nmtllib a.mtl\r\nv 1e-1 -2.5E+1 +.5 0.1 0.2 0.3\nv\t1 0 0 0 0 0\n"
        b"v 1 1 0 1 1 1\nv 0 1 0 1 0 0\nvt 0.25 0.5\nvt 1 0 0\nvt 0 1\nvn 0 0 1\n\n"
        b"g group\nf 1/1/1 2/2/1 3/3/1 4/1/1\nusemtl red\nf -4//1 -3//1 -2//1\n"
        b"  f 1 2 3 # plain\nusemtl blue one\nl 1 2\nf 1/-3 2/-2 3/-1"
    )
    obj = read_obj(path)
    assert_allclose(obj.vertices[:2], [[0.1, -25.0, 0.5], [1, 0, 0]])
    assert obj.colors is not None
    assert_allclose(obj.colors[0], [0.1, 0.2, 0.3], rtol=1e-6)
    assert_allclose(obj.uvs, [[0.25, 0.5], [1, 0], [0, 1]])
    assert obj.faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2], [0, 1, 2], [0, 1, 2]]
    assert obj.uv_faces.tolist() == [[0, 1, 2], [0, 2, 0], [-1] * 3, [-1] * 3, [0, 1, 2]]
    assert obj.materials == ("", "red", "blue one")
    assert obj.face_materials.tolist() == [0, 0, 1, 1, 2]
    assert obj.libraries == ("a.mtl",)


@pytest.mark.parametrize("face", ["f 1 2 9", "f 1 2", "f 1/1 2/1 3/7", "f a b c", "f 0 1 2", "f -9 1 2"])
def test_faces_that_name_nothing_are_refused(tmp_path: Path, face: str):
    path = tmp_path / "wrong.obj"
    path.write_text(f"v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\n{face}\n")
    with pytest.raises(UserError, match="wrong.obj"):
        read_obj(path)


def test_obj_and_trimesh_agree(tmp_path: Path):
    shape = trimesh.creation.icosphere(2)
    shape.export(tmp_path / "ball.obj")
    obj = read_obj(tmp_path / "ball.obj")
    assert_allclose(obj.vertices[obj.faces], shape.triangles, atol=1e-6)


def test_pieces_of_a_scene_lie_where_it_puts_them(tmp_path: Path):
    ball = trimesh.creation.icosphere(2, radius=0.5)
    scene = trimesh.Scene()
    turn = trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0])
    scene.add_geometry(ball, node_name="low")
    scene.add_geometry(ball, node_name="high", transform=trimesh.transformations.translation_matrix([0, 2, 0]) @ turn)
    scene.export(tmp_path / "two.glb")
    scan = read_scan(tmp_path / "two.glb")
    assert len(scan.meshes) == 2
    assert_allclose(np.ptp(scan.points, axis=0), [1, 3, 1], atol=0.02)


def test_colours_come_from_textures_vertices_or_materials(tmp_path: Path):
    vertices, faces, uvs, uv_faces = toy_scans.surface()
    toy_scans.write_obj(tmp_path / "t" / "a.obj", vertices, faces, uvs, uv_faces, picture="a b.png")
    toy_scans.texture().save(tmp_path / "t" / "a b.png")
    toy_scans.write_ply(tmp_path / "b.ply", vertices, faces, toy_scans.colors())
    toy_scans.write_obj(tmp_path / "c.obj", vertices, faces)
    toy_scans.write_glb(tmp_path / "d.glb")
    path = tmp_path / "e" / "e.obj"  # no material is named: the picture beside it is meant
    toy_scans.write_obj(path, vertices, faces, uvs, uv_faces)
    toy_scans.texture().save(path.with_suffix(".jpg"))
    painted, coloured, plain, packed, beside = (
        read_scan(tmp_path / name).meshes[0] for name in ("t/a.obj", "b.ply", "c.obj", "d.glb", "e/e.obj")
    )
    assert painted.texture is not None
    assert np.array_equal(painted.texture, np.asarray(toy_scans.texture()))
    assert np.array_equal(coloured.vertex_colors, toy_scans.colors())  # type: ignore[arg-type]
    assert plain.texture is plain.vertex_colors is None
    assert packed.texture is not None
    assert beside.texture is not None
    # The same person to the eye, however the texture came.
    cameras = ring(toy_scans.person().vertices.double(), 1, 0.6, 0.9, 32)
    shown = [render_meshes([mesh], cameras, unlit()).rgba for mesh in (painted, packed)]
    assert float((shown[0] - shown[1]).abs().max()) < 0.05


def test_large_textures_are_reduced_and_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(textures, "MAX_SIDE", 64)
    Image.new("RGB", (200, 100), (10, 200, 30)).save(tmp_path / "large.png")
    notes: list[str] = []
    pixels = textures.load_texture(tmp_path / "large.png", notes)
    assert pixels.shape == (25, 50, 3)
    assert (pixels == (10, 200, 30)).all()
    assert notes == ["large.png was reduced from 200 x 100 to 50 x 25 px"]


def test_no_texture_is_lost_without_a_word(tmp_path: Path):
    toy_scans.write_glb(tmp_path / "good.glb")
    content = (tmp_path / "good.glb").read_bytes()
    start = content.index(b"\x89PNG")
    (tmp_path / "bad.glb").write_bytes(content[:start] + bytes(16) + content[start + 16 :])
    with pytest.raises(UserError, match=r"bad\.glb.*texture"):
        read_scan(tmp_path / "bad.glb")
    (tmp_path / "torn.glb").write_bytes(content[: start + 64] + bytes(len(content) - start - 64))
    with pytest.raises(UserError, match=r"torn\.glb.*image"):
        read_scan(tmp_path / "torn.glb")
    vertices, faces, uvs, uv_faces = toy_scans.surface()
    toy_scans.write_obj(tmp_path / "a.obj", vertices, faces, uvs, uv_faces, picture="a.png")
    toy_scans.texture().save(tmp_path / "a.png")
    with (tmp_path / "a.obj").open("a") as file:
        file.write("f 1 2 3\n")
    scan = read_scan(tmp_path / "a.obj")
    assert scan.meshes[0].texture is None
    assert scan.notes == ("a.png is not shown: some faces have no texture coordinates",)


def test_a_texture_that_a_ply_names_must_be_there(tmp_path: Path):
    toy_scans.write_ply(tmp_path / "a.ply", *toy_scans.surface()[:2])
    content = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "a.ply").write_bytes(
        content.replace(b"element vertex", b"comment TextureFile a.png\nelement vertex", 1)
    )
    with pytest.raises(UserError, match="a.png"):
        read_scan(tmp_path / "a.ply")
    for wrong in (b"solid", b"ply\nend_header\n"):
        (tmp_path / "a.ply").write_bytes(wrong)
        with pytest.raises(UserError):
            read_scan(tmp_path / "a.ply")
