"""Reading glTF: what the specification allows is read, what breaks it is one sentence."""

import base64
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from glb_files import Builder, box_humanoid

from humansplat.data.rigged.gltf import read_gltf
from humansplat.data.rigged.gltf_file import GltfFile
from humansplat.errors import UserError


def test_elements_are_read_with_stride_and_offset(tmp_path: Path) -> None:
    builder = Builder()
    table = np.arange(24, dtype=np.float32).reshape(4, 6)
    view = builder.view(table.tobytes())
    builder.json["bufferViews"][view]["byteStride"] = 24
    for offset, width in ((0, "VEC3"), (12, "VEC2"), (20, "SCALAR")):
        builder.add("accessors", bufferView=view, byteOffset=offset, componentType=5126, count=4, type=width)
    file = GltfFile(builder.save(tmp_path / "a.glb"))
    np.testing.assert_array_equal(file.accessor(0), table[:, :3])
    np.testing.assert_array_equal(file.accessor(1), table[:, 3:5])
    np.testing.assert_array_equal(file.accessor(2), table[:, 5:])


def test_normalized_integers_become_shares(tmp_path: Path) -> None:
    builder = Builder()
    builder.accessor(np.array([0, 128, 255], np.uint8), normalized=True)
    builder.accessor(np.array([-32768, -32767, 0, 32767], np.int16), normalized=True)
    builder.accessor(np.array([7, 9], np.uint16))
    file = GltfFile(builder.save(tmp_path / "a.glb"))
    np.testing.assert_allclose(file.accessor(0)[:, 0], [0, 128 / 255, 1], rtol=1e-6)
    np.testing.assert_allclose(file.accessor(1)[:, 0], [-1, -1, 0, 1], rtol=1e-6)
    assert file.accessor(2)[:, 0].tolist() == [7, 9]


@pytest.mark.parametrize("dense", [True, False])
def test_sparse_accessors_change_single_elements(tmp_path: Path, dense: bool) -> None:
    builder = Builder()
    base = np.arange(30, dtype=np.float32).reshape(10, 3)
    index = builder.accessor(base)
    where, new = np.array([1, 8], np.uint16), np.array([[1, 2, 3], [4, 5, 6]], np.float32) * 100
    record = builder.json["accessors"][index]
    record["sparse"] = {
        "count": 2,
        "indices": {"bufferView": builder.view(where.tobytes()), "componentType": 5123},
        "values": {"bufferView": builder.view(new.tobytes())},
    }
    if not dense:
        del record["bufferView"]
        base = np.zeros_like(base)
    expected = base.copy()
    expected[where] = new
    np.testing.assert_array_equal(GltfFile(builder.save(tmp_path / "a.glb")).accessor(0), expected)


@pytest.mark.parametrize("embedded", [True, False])
def test_buffers_lie_beside_the_file_or_inside_its_json(tmp_path: Path, embedded: bool) -> None:
    builder = box_humanoid()
    document = json.loads(builder.chunk())
    uri = "data:application/octet-stream;base64," + base64.b64encode(builder.data).decode()
    document["buffers"][0]["uri"] = uri if embedded else "the%20man.bin"
    (tmp_path / "the man.bin").write_bytes(builder.data)
    (tmp_path / "man.gltf").write_text(json.dumps(document))
    scene, other = read_gltf(tmp_path / "man.gltf"), read_gltf(builder.save(tmp_path / "man.glb"))
    np.testing.assert_array_equal(scene.drawn[0].primitives[0].vertices, other.drawn[0].primitives[0].vertices)


def test_strips_and_fans_become_triangles_of_the_same_winding(tmp_path: Path) -> None:
    for mode, expected in ((5, [[0, 1, 2], [2, 1, 3], [2, 3, 4]]), (6, [[0, 1, 2], [0, 2, 3], [0, 3, 4]])):
        builder = Builder()
        position = builder.accessor(np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32))
        mesh = builder.add("meshes", primitives=[{"attributes": {"POSITION": position}, "mode": mode}])
        builder.add("nodes", mesh=mesh)
        scene = read_gltf(builder.save(tmp_path / "a.glb"))
        assert scene.drawn[0].primitives[0].faces.tolist() == expected


def test_weights_are_made_to_sum_to_one(tmp_path: Path) -> None:
    builder = box_humanoid()
    attributes = builder.json["meshes"][0]["primitives"][0]["attributes"]
    count = builder.json["accessors"][attributes["POSITION"]]["count"]
    odd = np.tile(np.array([[2.0, 1.0, np.nan, -1.0]], np.float32), (count, 1))
    odd[0] = 0.0
    attributes["WEIGHTS_0"] = builder.accessor(odd)
    weights = read_gltf(builder.save(tmp_path / "a.glb")).drawn[0].primitives[0].weights
    assert weights is not None
    np.testing.assert_allclose(weights.sum(1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(weights[1], [2 / 3, 1 / 3, 0, 0], rtol=1e-6)
    assert weights[0, 0] == 1.0


def _circle(document: dict) -> None:
    document["nodes"][3]["children"] = [3]


def _two_parents(document: dict) -> None:
    document["nodes"][0]["children"] = [1, 2, 3, 3]


def _long_accessor(document: dict) -> None:
    document["accessors"][1]["count"] = 10**6


def _huge_accessor(document: dict) -> None:
    document["accessors"][1] = {"componentType": 5126, "type": "VEC3", "count": 10**12}


def _no_such_accessor(document: dict) -> None:
    document["meshes"][0]["primitives"][0]["attributes"]["POSITION"] = 99


def _no_such_vertex(document: dict) -> None:
    document["accessors"][4]["byteOffset"] = 1


def _no_such_joint(document: dict) -> None:
    document["skins"][0]["joints"] = document["skins"][0]["joints"][:3]


def _negative_view(document: dict) -> None:
    document["bufferViews"][0]["byteOffset"] = -4


def _compressed(document: dict) -> None:
    document["extensionsRequired"] = ["KHR_draco_mesh_compression"]


def _old(document: dict) -> None:
    document["asset"]["version"] = "1.0"


def _outside(document: dict) -> None:
    document["buffers"][0]["uri"] = "../../etc/passwd"


def _missing(document: dict) -> None:
    document["buffers"][0]["uri"] = "gone.bin"


def _scaled_by_nothing(document: dict) -> None:
    document["nodes"][0]["scale"] = [1.0, "x", 1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_circle, "form a circle|two parents"),
        (_two_parents, "two parents"),
        (_long_accessor, "leave buffer view"),
        (_huge_accessor, "1000000000000 elements"),
        (_no_such_accessor, "no accessor 99"),
        (_no_such_vertex, "name vertices|leave buffer view"),
        (_no_such_joint, "hangs on joints"),
        (_negative_view, "leaves its buffer"),
        (_compressed, "compressed with Draco; export it without"),
        (_old, "glTF 1.0"),
        (_outside, "not in its folder"),
        (_missing, "needs gone.bin beside it"),
        (_scaled_by_nothing, "not a valid glTF"),
    ],
)
def test_malformed_files_are_one_sentence(tmp_path: Path, change: object, message: str) -> None:
    builder = box_humanoid()
    builder.chunk()
    builder.json["buffers"] = [{"byteLength": len(builder.data)}]
    change(builder.json)  # type: ignore[operator]
    buffers = builder.json["buffers"]
    builder.chunk = lambda: json.dumps({**builder.json, "buffers": buffers}).encode()  # type: ignore[method-assign]
    with pytest.raises(UserError, match=message):
        read_gltf(builder.save(tmp_path / "bad.glb"))


def test_truncated_files_and_other_files_are_refused(tmp_path: Path) -> None:
    whole = box_humanoid().glb()
    path = tmp_path / "cut.glb"
    for length in (0, 3, 4, 12, 19, 20, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.glb is not a valid glTF"):
            read_gltf(path)
    path.write_bytes(b"glXF" + whole[4:])
    with pytest.raises(UserError, match="does not begin with 'glTF'"):
        read_gltf(path)
    path.write_bytes(b"glTF" + struct.pack("<I", 1) + whole[8:])
    with pytest.raises(UserError, match="binary glTF 1"):
        read_gltf(path)
    with pytest.raises(UserError, match="cannot read"):
        read_gltf(tmp_path / "none.glb")


def test_damaged_bytes_never_give_a_traceback(tmp_path: Path) -> None:
    whole = box_humanoid().glb()
    (length,) = struct.unpack_from("<I", whole, 12)
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged.glb"
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(20, 20 + length, 3):
            damaged[place] = rng.choice(np.frombuffer(b'0123456789[]{},:"-.e ', np.uint8))
        path.write_bytes(damaged)
        try:
            read_gltf(path)
        except UserError:
            refused += 1
    assert refused > 100


def test_negative_joints_are_refused(tmp_path: Path) -> None:
    builder = box_humanoid()
    attributes = builder.json["meshes"][0]["primitives"][0]["attributes"]
    count = builder.json["accessors"][attributes["JOINTS_0"]]["count"]
    attributes["JOINTS_0"] = builder.accessor(np.full((count, 4), -1, np.int16))
    with pytest.raises(UserError, match="hangs on joints -1 to 0"):
        read_gltf(builder.save(tmp_path / "a.glb"))
