"""The bodies that a model is given: fitted as they would be to a photo, true, or true ones with noise."""

import hashlib
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.body.perturbation import noised_body
from humansplat.capture.capture import Capture, capture_person
from humansplat.evaluation.subjects import Subject
from humansplat.geometry.projection import project, to_camera, unproject
from humansplat.geometry.rotations import rotation_between
from humansplat.pipelines.reconstructor import Reconstructor
from humansplat.structures import Cameras, PosedBody

Bodies = Literal["fitted", "true", "perturbed"]
PERTURBATION = 0.05
"""Standard deviation of the noise on perturbed bodies' parameters; see ``body.perturbation.noised_body``."""


def fit_subject(reconstructor: Reconstructor, subject: Subject) -> PosedBody:
    """The body fitted to view 0, at the true distance from the true camera.

    Raises:
        UserError: If nobody is found in the picture.
    """
    capture = capture_person(subject.image, size=reconstructor.weights.image_size)
    fit = reconstructor.fit(capture)
    return moved(fit.body, fit.camera, capture, subject.body, subject.cameras[0])


def perturbed_body(reconstructor: Reconstructor, subject: Subject) -> PosedBody:
    """The true body with noise that depends on the person's name only."""
    seed = int.from_bytes(hashlib.sha256(subject.name.encode()).digest()[:8], "big") >> 1  # seeds are signed
    generator = torch.Generator().manual_seed(seed)
    return noised_body(reconstructor.body_model, subject.body, PERTURBATION, generator)


def moved(body: PosedBody, camera: Cameras, capture: Capture, truth: PosedBody, true_camera: Cameras) -> PosedBody:
    """Carry a fitted body from its own world into the true one, so that it stays where it is in the picture.

    Its root goes along the true camera's ray to the true root's depth, its size follows, and the whole turns
    as that ray is turned against the one it was fitted on.

    Args:
        body: Fitted, unbatched.
        camera: The camera that it was fitted with, of the crop.
        capture: The crop.
        truth: For the depth of its root.
        true_camera: Of the picture that was cropped.
    """
    root = to_camera(body.joints[:1], camera.viewmats)[0]
    crop_pixel, _ = project(body.joints[:1], camera.viewmats, camera.Ks)
    pixel = crop_pixel @ capture.crop_to_photo[:, :2].mT + capture.crop_to_photo[:, 2]
    depth = to_camera(truth.joints[:1], true_camera.viewmats)[:, 2]
    place = unproject(pixel, depth, true_camera.viewmats, true_camera.Ks)
    true_root = to_camera(place, true_camera.viewmats)[0]
    focal = camera.Ks[0, 0] * capture.crop_to_photo[0, 0]
    scale = (depth[0] / true_camera.Ks[0, 0]) / (root[2] / focal)
    turn = rotation_between(root, true_root)
    to_world = true_camera.viewmats[:3, :3].mT @ turn @ camera.viewmats[:3, :3]

    def carry(points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        return place + scale * (points - body.joints[0]) @ to_world.mT

    return replace(body, vertices=carry(body.vertices), joints=carry(body.joints), parameters=None)
