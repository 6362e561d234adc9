from pathlib import Path

import numpy as np
import pytest

from humansplat.data.synthetic.makehuman import (
    parse_bvh,
    read_bvh,
    read_expression,
    read_face_unit_names,
    read_mhclo,
    read_mhmat,
    read_obj,
)
from humansplat.errors import UserError

from .conftest import bvh_text

PROXY = """# made up
name cap
obj_file cap.obj
x_scale 0 1 2.0
y_scale 0 2 2.0
z_scale 0 3 4.0
material cap.mhmat
verts 0
2
0 1 2 0.5 0.25 0.25 0.2 -0.1 0.4

delete_verts
0 - 2 5
"""
BASE = np.array([[0, 0, 0], [0.4, 0, 0], [0, 0.2, 0], [0, 0, 0.8], [1, 1, 1], [2, 2, 2]], np.float32)


@pytest.fixture
def proxy(tmp_path: Path) -> Path:
    path = tmp_path / "cap.mhclo"
    path.write_text(PROXY)
    return path


def test_a_proxy_vertex_is_carried_by_its_base_vertices_and_scaled_offset(proxy: Path) -> None:
    binding = read_mhclo(proxy, num_base=6)
    fitted = binding.fit(BASE)
    np.testing.assert_allclose(fitted[0], BASE[2])
    # Scales: 0.4 m against 2 dm, so the offset of 0.2 dm becomes 0.2 * 0.4 / 2 = 0.04 m, and so on.
    expected = 0.5 * BASE[0] + 0.25 * BASE[1] + 0.25 * BASE[2] + [0.2 * 0.2, -0.1 * 0.1, 0.4 * 0.2]
    np.testing.assert_allclose(fitted[1], expected, rtol=1e-6)
    assert binding.deleted.tolist() == [True, True, True, False, False, True]
    assert (binding.name, binding.obj_file, binding.material) == ("cap", "cap.obj", "cap.mhmat")


def test_offsets_grow_with_the_body(proxy: Path) -> None:
    binding = read_mhclo(proxy, num_base=6)
    np.testing.assert_allclose(binding.fit(2 * BASE), 2 * binding.fit(BASE), rtol=1e-6)


def test_values_are_transferred_with_the_binding_weights(proxy: Path) -> None:
    binding = read_mhclo(proxy, num_base=6)
    np.testing.assert_allclose(binding.transfer(np.arange(6.0)[:, None]), [[2.0], [0.75]])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0 1 2 0.5", "0 1 9 0.5", "does not bind to the hm08 base mesh of 6 vertices"),
        ("0 1 2 0.5", "0 1 x 0.5", "is not a MakeHuman proxy file"),
        ("0 - 2 5", "0 -", "is not a MakeHuman proxy file"),
        ("y_scale 0 2 2.0\n", "", "lacks one of the lines x_scale"),
        ("2\n0 1 2 0.5 0.25 0.25 0.2 -0.1 0.4\n", "", "does not bind"),
    ],
)
def test_damaged_proxies_are_refused(proxy: Path, old: str, new: str, message: str) -> None:
    assert old in PROXY
    proxy.write_text(PROXY.replace(old, new))
    with pytest.raises(UserError, match=message):
        read_mhclo(proxy, num_base=6)


def test_quads_of_an_obj_become_two_triangles(tmp_path: Path) -> None:
    path = tmp_path / "quad.obj"
    path.write_text(
        "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nf 1/4 2/3 3/2 4/1\nf 1/1 2/2 3/3\n"
    )
    mesh = read_obj(path)
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2]]
    assert mesh.uv_faces.tolist() == [[3, 2, 1], [3, 1, 0], [0, 1, 2]]


@pytest.mark.parametrize("text", ["v 0 0\nf 1 2 3\n", "v 0 0 0\n", "v 0 0 0\nf 1 2 7\n", "v a b c\n"])
def test_damaged_meshes_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.obj"
    path.write_text(text)
    with pytest.raises(UserError, match=r"bad\.obj"):
        read_obj(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*nothing\.bvh"):
        read_bvh(tmp_path / "nothing.bvh")


def test_a_material_names_only_textures_that_exist(tmp_path: Path) -> None:
    (tmp_path / "a b.png").write_bytes(b"")
    path = tmp_path / "m.mhmat"
    path.write_text("# no\ndiffuseTexture a b.png\naomapTexture gone.png\ntransparent True\n")
    material = read_mhmat(path)
    assert material.diffuse_texture == tmp_path / "a b.png"
    assert material.ao_texture is None
    assert material.transparent


def test_bvh_angles_turn_about_the_named_axes_in_their_order() -> None:
    text = bvh_text(90.0).replace("0 0 0 0 0 0 0 90.0 0", "9 9 9 90 0 90 0 90.0 0")
    motion = parse_bvh(text, "test")
    assert motion.joint_names == ("root", "upperarm01.L")
    np.testing.assert_allclose(motion.rotations[0, 1] @ [0, 0, 1], [1, 0, 0], atol=1e-6)
    # X after Z: the x axis goes to y by Z and then to z by X.
    np.testing.assert_allclose(motion.rotations[0, 0] @ [1, 0, 0], [0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(motion.offsets, [[0, 0, 0], [1, 0, 0]])


@pytest.mark.parametrize(
    "text",
    [
        *("", "HIERARCHY\nROOT a\n{\nOFFSET 0 0 0\nCHANNELS 1 Xrotation\n}\nMOTION\n", "MOTION"),
        bvh_text(1.0).replace("Zrotation", "Wrotation"),
    ],
)
def test_damaged_motions_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not a BVH motion"):
        parse_bvh(text, "test")


def test_a_motion_whose_numbers_do_not_fill_the_frames_is_refused() -> None:
    with pytest.raises(UserError, match="is not a BVH motion"):
        parse_bvh(bvh_text(1.0) + "5\n", "test")


def test_expressions_and_face_units(tmp_path: Path) -> None:
    expression = tmp_path / "smile.mhpose"
    expression.write_text('{"unit_poses": {"ChinDown": 0.5}}')
    assert read_expression(expression) == {"ChinDown": 0.5}
    units = tmp_path / "units.json"
    units.write_text('{"framemapping": [\n"Rest",\n "ChinDown"  \n], "x": "raw\nbreak"}')
    assert read_face_unit_names(units) == ("Rest", "ChinDown")
    for path in (expression, units):
        path.write_text("[1, 2")
    with pytest.raises(UserError, match="is not a MakeHuman expression"):
        read_expression(expression)
    with pytest.raises(UserError, match="lists no face units"):
        read_face_unit_names(units)
