"""Writers of small glTF files for tests: a builder, a humanoid of boxes, the default body as a Mixamo character."""

import io
import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from humansplat.data.rigged.retarget import house_joints
from humansplat.data.rigged.skeleton import find_humanoid
from humansplat.data.synthetic.figure import Template

CODES = {np.dtype(np.uint8): 5121, np.dtype(np.int16): 5122, np.dtype(np.uint16): 5123, np.dtype(np.uint32): 5125}
CODES |= {np.dtype(np.float32): 5126}
TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


class Builder:
    """Collects a document and its binary chunk."""

    def __init__(self) -> None:
        self.json: dict[str, Any] = {"asset": {"version": "2.0"}, "nodes": [], "bufferViews": [], "accessors": []}
        self.data = b""

    def add(self, key: str, **record: Any) -> int:
        self.json.setdefault(key, []).append(record)
        return len(self.json[key]) - 1

    def view(self, data: bytes) -> int:
        self.data += bytes(-len(self.data) % 4)
        offset = len(self.data)
        self.data += data
        return self.add("bufferViews", buffer=0, byteOffset=offset, byteLength=len(data))

    def accessor(self, values: np.ndarray, **record: Any) -> int:
        values = np.ascontiguousarray(values)
        width = 1 if values.ndim == 1 else int(np.prod(values.shape[1:]))
        code = CODES[values.dtype]
        return self.add(
            "accessors",
            bufferView=self.view(values.tobytes()),
            componentType=code,
            count=len(values),
            type=TYPES[width],
            **record,
        )

    def texture(self, picture: np.ndarray) -> int:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        image = self.add("images", bufferView=self.view(file.getvalue()), mimeType="image/png")
        return self.add("textures", source=image)

    def chunk(self) -> bytes:
        self.json["buffers"] = [{"byteLength": len(self.data)}]
        return json.dumps(self.json).encode()

    def glb(self) -> bytes:
        text = self.chunk()
        text += b" " * (-len(text) % 4)
        data = self.data + bytes(-len(self.data) % 4)
        body = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(data), 0x004E4942) + data
        return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body

    def save(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.glb())
        return path


MIXAMO = (
    ("Hips", "", "root"),
    ("Spine", "Hips", "spine05"),
    ("Spine1", "Spine", "spine03"),
    ("Spine2", "Spine1", "spine01"),
    ("Neck", "Spine2", "neck01"),
    ("Head", "Neck", "head"),
    ("HeadTop_End", "Head", "special01"),
    *(
        (f"{side}{name}", f"{side}{above}" if above not in ("Spine2", "Hips") else above, f"{house}.{side[0]}")
        for side in ("Left", "Right")
        for name, above, house in (
            ("Shoulder", "Spine2", "clavicle"),
            ("Arm", "Shoulder", "upperarm01"),
            ("ForeArm", "Arm", "lowerarm01"),
            ("Hand", "ForeArm", "wrist"),
            ("HandMiddle1", "Hand", "finger3-1"),
            ("HandMiddle2", "HandMiddle1", "finger3-2"),
            ("HandMiddle3", "HandMiddle2", "finger3-3"),
            ("UpLeg", "Hips", "upperleg01"),
            ("Leg", "UpLeg", "lowerleg01"),
            ("Foot", "Leg", "foot"),
            ("ToeBase", "Foot", "toe2-1"),
        )
    ),
)
"""Joint, the one that it hangs on, and the joint of the default body at whose place it is."""


def mixamo_body(
    template: Template,
    *,
    rest: np.ndarray | None = None,
    joints: np.ndarray | None = None,
    units: float = 100.0,
    prefix: str = "mixamorig:",
    animate: Callable[[Builder, dict[str, int]], None] | None = None,
    turn: np.ndarray | None = None,
    seed: int = 0,
) -> Builder:
    """The default body as Mixamo would rig it: fewer joints, bones with axes of their own, in centimetres.

    Args:
        template: The default body.
        rest: Its base mesh as bound; by default the mean adult at rest.
        joints: Its joints as bound.
        units: File units a metre, below a node that scales them back.
        prefix: Of the joints' names.
        animate: Adds animations, given the nodes by name.
        turn: Rotation of the whole character within the file.
        seed: Of the axes of the bones.
    """
    rest = template.canonical if rest is None else rest
    joints = template.joints if joints is None else joints
    rng = np.random.default_rng(seed)
    builder = Builder()
    nodes: dict[str, int] = {}
    frames: dict[str, np.ndarray] = {"": np.eye(4)}
    quaternions = {name: _random_quaternion(rng) for name, _, _ in MIXAMO}
    for name, above, house in MIXAMO:
        place = joints[template.joint(house)] if house in template.joint_names else joints[template.joint("head")]
        frame = np.eye(4)
        frame[:3, :3] = _matrix(quaternions[name])
        frame[:3, 3] = units * place + (np.array([0, 5, 0]) if name == "HeadTop_End" else 0)
        frames[name] = frame
        local = np.linalg.inv(frames[above]) @ frame
        nodes[name] = builder.add("nodes", name=prefix + name, matrix=local.T.ravel().tolist(), children=[])
        if above:
            builder.json["nodes"][nodes[above]]["children"].append(nodes[name])
    whole = np.eye(4) if turn is None else np.block([[turn, np.zeros((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]])
    whole[:3, :3] = whole[:3, :3] / units
    names = [name for name, _, _ in MIXAMO]
    binds = np.stack([np.linalg.inv(frames[name]).T.ravel() for name in names]).astype(np.float32)
    skin = builder.add("skins", joints=[nodes[name] for name in names], inverseBindMatrices=builder.accessor(binds))
    weights = _shared_weights(template, names)
    order = np.argsort(-weights, axis=1)[:, :8]
    shares = np.take_along_axis(weights, order, 1).astype(np.float32)
    texture = builder.texture(np.random.default_rng(1).integers(60, 220, (16, 16, 3)).astype(np.uint8))
    material = builder.add(
        "materials",
        name="skin",
        pbrMetallicRoughness={"baseColorTexture": {"index": texture}, "baseColorFactor": [0.9, 0.8, 0.7, 1.0]},
    )
    attributes = {
        "POSITION": builder.accessor((units * rest[template.skin_ids]).astype(np.float32)),
        "TEXCOORD_0": builder.accessor(rest[template.skin_ids][:, :2].astype(np.float32) % 1),
        "JOINTS_0": builder.accessor(order[:, :4].astype(np.uint8)),
        "WEIGHTS_0": builder.accessor(shares[:, :4]),
        "JOINTS_1": builder.accessor(order[:, 4:].astype(np.uint8)),
        "WEIGHTS_1": builder.accessor(shares[:, 4:]),
    }
    faces = builder.accessor(template.skin_faces.astype(np.uint16).ravel())
    mesh = builder.add("meshes", primitives=[{"attributes": attributes, "indices": faces, "material": material}])
    body = builder.add("nodes", name="Body", mesh=mesh, skin=skin)
    armature = builder.add("nodes", name="Armature", children=[nodes["Hips"], body], matrix=whole.T.ravel().tolist())
    builder.add("scenes", nodes=[armature])
    if animate is not None:
        animate(builder, nodes)
    return builder


def _shared_weights(template: Template, names: Sequence[str]) -> np.ndarray:
    """Weights of the default body's joints, each joint's given to the rig's joint that it is, or hangs on."""
    parents = tuple(names.index(above) if above else -1 for _, above, _ in MIXAMO)
    humanoid = find_humanoid(tuple(names), parents, frozenset(range(len(names))))
    owner = {template.joint(joint): node for slot, node in humanoid.items() for joint in house_joints(slot, humanoid)}
    chain = []
    for joint, parent in enumerate(template.joint_parents):
        chain.append(owner.get(joint, chain[parent] if parent >= 0 else names.index("Hips")))
    shared = np.zeros((len(template.skin_ids), len(names)))
    np.add.at(shared.T, np.array(chain), template.weights[template.skin_ids].T)
    return shared


def _random_quaternion(rng: np.random.Generator) -> np.ndarray:
    drawn = rng.normal(size=4)
    return drawn / np.linalg.norm(drawn)


def _matrix(quaternion: np.ndarray) -> np.ndarray:
    x, y, z, w = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


BOXES = (
    ("Hips", "", (0.0, 1.0, 0.0)),
    ("Spine", "Hips", (0.0, 1.2, 0.0)),
    ("Head", "Spine", (0.0, 1.5, 0.0)),
    *(
        (f"{side}{name}", f"{side}{above}" if above not in ("Spine", "Hips") else above, (sign * x, y, 0.0))
        for side, sign in (("Left", 1.0), ("Right", -1.0))
        for name, above, x, y in (
            ("Arm", "Spine", 0.2, 1.4),
            ("ForeArm", "Arm", 0.45, 1.4),
            ("Hand", "ForeArm", 0.7, 1.4),
            ("UpLeg", "Hips", 0.1, 0.95),
            ("Leg", "UpLeg", 0.1, 0.5),
            ("Foot", "Leg", 0.1, 0.08),
        )
    ),
)
"""A T-pose of boxes: joint, the one it hangs on, its place in metres."""


def box_humanoid(names: Callable[[str], str] = lambda name: f"mixamorig:{name}", units: float = 1.0) -> Builder:
    """A skinned humanoid of one box a bone, each vertex shared with the bone above."""
    builder = Builder()
    places = {name: np.array(place) * units for name, _, place in BOXES}
    nodes = {}
    for name, above, _ in BOXES:
        offset = places[name] - (places[above] if above else 0)
        nodes[name] = builder.add("nodes", name=names(name), translation=offset.tolist(), children=[])
        if above:
            builder.json["nodes"][nodes[above]]["children"].append(nodes[name])
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    triangles = np.array([face for a, b, c, d in quads for face in ((a, b, c), (a, c, d))], np.uint16)
    vertices, faces, joints, weights = [], [], [], []
    order = list(nodes)
    for index, (name, above, _) in enumerate(BOXES):
        faces.append(triangles + 8 * index)
        vertices.append(corners * 0.08 * units + places[name])
        joints += [[index, order.index(above) if above else index, 0, 0]] * 8
        weights += [[0.75, 0.25, 0.0, 0.0] if above else [1.0, 0.0, 0.0, 0.0]] * 8
    binds = np.broadcast_to(np.eye(4), (len(order), 4, 4)).copy()
    binds[:, :3, 3] = -np.stack([places[name] for name in order])
    skin = builder.add(
        "skins",
        joints=list(nodes.values()),
        inverseBindMatrices=builder.accessor(binds.swapaxes(1, 2).reshape(-1, 16).astype(np.float32)),
    )
    attributes = {
        "POSITION": builder.accessor(np.concatenate(vertices).astype(np.float32)),
        "JOINTS_0": builder.accessor(np.array(joints, np.uint8)),
        "WEIGHTS_0": builder.accessor(np.array(weights, np.float32)),
    }
    indices = builder.accessor(np.concatenate(faces).ravel())
    mesh = builder.add("meshes", primitives=[{"attributes": attributes, "indices": indices}])
    body = builder.add("nodes", name="Body", mesh=mesh, skin=skin)
    builder.add("scenes", nodes=[nodes["Hips"], body])
    return builder
