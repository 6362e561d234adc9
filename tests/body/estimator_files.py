"""Writes files as other programs write them, by the keys that they document, of one known person."""

import json
import pickle
from dataclasses import dataclass

import numpy as np
import torch

from humansplat.body.smpl import ROTATIONS
from humansplat.geometry.projection import project
from humansplat.geometry.rotations import axis_angle_to_matrix

WIDTH, HEIGHT = 640, 480
K = torch.tensor([[900.0, 0.0, 310.0], [0.0, 900.0, 250.0], [0.0, 0.0, 1.0]])
CENTRED = torch.tensor([[900.0, 0.0, 320.0], [0.0, 900.0, 240.0], [0.0, 0.0, 1.0]])
SMPLX_ORDER = (
    "global_orient", "body_pose", "jaw_pose", "leye_pose", "reye_pose", "left_hand_pose", "right_hand_pose",
)  # fmt: skip


@dataclass
class Person:
    """A body in a camera's frame (x right, y down, z ahead), and what a file should give back."""

    model: object
    parameters: dict
    joints: torch.Tensor
    vertices: torch.Tensor

    def numbers(self, *names):
        return {name: self.parameters[name].numpy() for name in names}

    def matrices(self, name):
        return axis_angle_to_matrix(self.parameters[name].unflatten(-1, (-1, 3)))[None].numpy()

    def pixels(self, intrinsics, shift=0.0):
        return project(self.joints + shift, torch.eye(4), intrinsics)[0]


def make_person(model, rng, *, transl=(0.2, 0.1, 5.0), hands=True):
    """Somebody who faces the camera, about, with an arm and a leg lifted."""
    parameters = {
        name: 0.2 * torch.randn(*shape, generator=rng)
        for name, shape in model.parameter_shapes.items()
        if hands or "hand" not in name
    }
    parameters["betas"] = torch.randn(10, generator=rng)
    if "expression" in parameters:
        parameters["expression"] = torch.randn(10, generator=rng)
    parameters["global_orient"] = torch.tensor([3.0, 0.2, 0.1])  # upright for a camera with y down
    parameters["transl"] = torch.tensor(transl)
    posed = model.pose(parameters)
    return Person(model, parameters, posed.joints, posed.vertices)


def write_pickle(path, content):
    path.write_bytes(pickle.dumps(content))
    return path


def pixie(person, folder):
    """``--saveParam``: everything as matrices, before the body is moved."""
    content = {
        "shape": np.pad(person.parameters["betas"].numpy(), (0, 190))[None],
        "exp": np.pad(person.parameters["expression"].numpy(), (0, 40))[None],
        "global_pose": person.matrices("global_orient"),
        "body_pose": person.matrices("body_pose"),
        "partbody_pose": person.matrices("body_pose")[:, :17],
        "jaw_pose": person.matrices("jaw_pose"),
        "left_hand_pose": person.matrices("left_hand_pose"),
        "right_hand_pose": person.matrices("right_hand_pose"),
        "body_cam": np.array([[0.9, 0.05, 0.3]], np.float32),
        "light": np.zeros((1, 27), np.float32),
        "tex": np.zeros((1, 50), np.float32),
        "bbox": np.array([200.0, 100.0, 400.0, 460.0]),
    }
    return write_pickle(folder / "me_param.pkl", content)


def hmr2(person, folder, **more):
    content = {
        "pred_smpl_params": {
            "global_orient": torch.from_numpy(person.matrices("global_orient")),
            "body_pose": torch.from_numpy(person.matrices("body_pose")),
            "betas": person.parameters["betas"][None],
        },
        "pred_cam": torch.tensor([[0.9, 0.05, 0.3]]),
        "focal_length": torch.full((1, 2), 5000.0),
        **more,
    }
    torch.save(content, folder / "out.pt")
    return folder / "out.pt"


def hybrik_x(person, folder, people=1):
    thetas = torch.cat([torch.from_numpy(person.matrices(name)[0]).flatten() for name in SMPLX_ORDER])
    shape = torch.cat([person.parameters["betas"], torch.zeros(1), person.parameters["expression"]])
    content = {
        "pred_uvd": torch.zeros(71, 3), "pred_scores": torch.zeros(29), "pred_camera": torch.ones(1),
        "f": torch.tensor(1000.0), "pred_betas": shape, "pred_thetas": thetas, "pred_phi": torch.zeros(54, 2),
        "pred_cam_root": person.joints[0], "transl": person.parameters["transl"],
        "transl_camsys": person.parameters["transl"], "bbox": torch.tensor([150.0, 40.0, 380.4, 270.4]),
        "height": torch.tensor(HEIGHT), "width": torch.tensor(WIDTH),
    }  # fmt: skip
    stacked = {name: np.stack([value.numpy()] * people) for name, value in content.items()}
    return write_pickle(folder / "res_SMPLX.pk", {**stacked, "img_path": np.array(["me.png"] * people)})


def smpler_x(person, folder):
    (folder / "smplx").mkdir()
    (folder / "meta").mkdir()
    rows = {name: person.parameters[name].numpy().reshape(-1, 3) for name in (*SMPLX_ORDER, "transl")}
    shapes = {name: person.parameters[name].numpy()[None] for name in ("betas", "expression")}
    np.savez(folder / "smplx" / "00001_0.npz", **rows, **shapes)
    meta = {"focal": [900.0, 900.0], "princpt": [310.0, 250.0], "bbox": [0, 0, 1, 1], "img_path": "me.png"}
    (folder / "meta" / "00001_0.json").write_text(json.dumps(meta))
    return folder / "smplx" / "00001_0.npz"


def nlf(person, folder):
    """The lists of ``detect_smpl_batched``: one tensor a picture, with all its people."""
    pose = torch.cat([person.parameters[name] for name in ROTATIONS[person.model.name]])
    content = {
        "pose": [pose[None]],
        "betas": [person.parameters["betas"][None]],
        "trans": [person.parameters["transl"][None]],
        "joints3d": [1000 * person.joints[None]],
        "joints2d": [person.pixels(K)[None]],
        "boxes": [torch.zeros(1, 5)],
    }
    return write_pickle(folder / "nlf.pkl", content)


def amass(person, folder, frames=1):
    poses = torch.cat([person.parameters[name] for name in ROTATIONS[person.model.name]]).numpy()
    np.savez(
        folder / "walk_poses.npz",
        poses=np.stack([poses] * frames),
        trans=np.stack([person.parameters["transl"].numpy()] * frames),
        betas=np.pad(person.parameters["betas"].numpy(), (0, 6)),
        gender=np.array("female"),
        mocap_framerate=np.array(120.0),
        dmpls=np.zeros((frames, 8)),
    )
    return folder / "walk_poses.npz"


def easymocap(person, folder, poses, **more):
    """``Rh`` turns about the model's origin, so ``Th`` is not smplx's translation."""
    at_rest = person.joints[0] - person.parameters["transl"]
    turn = axis_angle_to_matrix(person.parameters["global_orient"])
    content = {
        "id": 3,
        "Rh": [person.parameters["global_orient"].tolist()],
        "Th": [(person.joints[0] - turn @ at_rest).tolist()],
        "poses": [poses.tolist()],
        "shapes": [person.parameters["betas"].tolist()],
        **more,
    }
    (folder / "000000.json").write_text(json.dumps([content]))
    return folder / "000000.json"
