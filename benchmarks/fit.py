"""Judge body fits on people of a data set that `humansplat synthesize` wrote, whose bodies are known.

python benchmarks/fit.py DATA [--limit 100] [--mirror | --noise]

Landmarks and mask come from the capture of each person's first view, as for a photograph. Joint errors are distances
of the main joints in the camera's axes with the root joints put together; the IoU is the fitted naked body's against
the clothed silhouette; seconds are the fit's own.

--noise adds how the fits are wrong, in the terms of `humansplat.body.noise`: root mean squares, and in brackets an
estimate that a few wild fits do not move. Fits that take the front for the back are left out there. The last lines are
sections for a training configuration.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from humansplat.body.anny import AnnyBody
from humansplat.body.fit_report import BodyFit
from humansplat.body.noise_measure import (
    BodyErrors,
    SeenPose,
    body_bones,
    estimated_levels,
    pose_errors,
    report,
    seen_pose,
)
from humansplat.capture.capture import Capture, capture_person
from humansplat.data.format import read_manifest, read_person
from humansplat.data.people import mirrored_joints
from humansplat.data.synthetic.poses import WIDE
from humansplat.errors import UserError
from humansplat.geometry.projection import project
from humansplat.pipelines.body_estimation import BodyEstimator
from humansplat.structures import Cameras, PosedBody

TRUNK = ("root", "spine03", "spine01", "neck01", "head")
LIMBS = ("clavicle", "upperarm01", "lowerarm01", "wrist", "finger3-1", "upperleg01", "lowerleg01", "foot", "toe2-1")


def main_joints(names: tuple[str, ...]) -> list[int]:
    """Indices of trunk and limb joints, one a joint of the anatomical kind."""
    chosen = [*TRUNK, *(f"{limb}.{side}" for limb in LIMBS for side in "LR")]
    return [names.index(name) for name in chosen]


def joint_errors(fit: BodyFit, body: PosedBody, camera: Cameras, chosen: list[int], mirror: bool) -> np.ndarray:
    """Distances in mm, camera's axes, roots together."""
    found = fit.body.joints @ fit.camera.viewmats[:3, :3].mT
    true = body.joints @ camera.viewmats[:3, :3].mT
    if mirror:
        true = true * torch.tensor([-1.0, 1.0, 1.0])
    return 1000 * ((found - found[0]) - (true - true[0]))[chosen].norm(dim=-1).numpy()


def turned_degrees(fit: BodyFit, camera: Cameras, mirror: bool) -> float:
    """Difference of the azimuths from which fit and truth are seen, 0 to 180."""
    azimuths = [np.arctan2(float(c.centers[0]), float(c.centers[2])) for c in (fit.camera, camera)]
    difference = azimuths[0] - (-azimuths[1] if mirror else azimuths[1])
    return abs(float(np.degrees((difference + np.pi) % (2 * np.pi) - np.pi)))


def pose_seen(body: PosedBody, camera: Cameras, model: AnnyBody) -> SeenPose:
    """A pose in the axes of the camera's line of sight to the root."""
    assert body.parameters is not None
    viewing = F.normalize(body.joints[0] - camera.centers, dim=0)
    return seen_pose(model.skeleton, body.parameters["rotations"], body.joints, viewing)


def body_errors(fit: BodyFit, seen: Capture, body: PosedBody, camera: Cameras, model: AnnyBody) -> BodyErrors:
    """What is wrong with a fit, unbatched.

    The root's depth is the one at which a body of the true size looks as large in the photo as the fitted one does.
    """
    assert fit.body.parameters is not None
    assert body.parameters is not None
    scale = seen.crop_to_photo[:, :2]
    crop_pixel, depth = project(fit.body.joints[:1], fit.camera.viewmats, fit.camera.Ks)
    pixel, true_depth = project(body.joints[:1], camera.viewmats, camera.Ks)
    missed = (crop_pixel @ scale.mT + seen.crop_to_photo[:, 2] - pixel)[0] * true_depth / camera.Ks[0, 0]
    sizes = [
        (model.rest_joints(parameters["phenotypes"])[0] - model.rest_joints(parameters["phenotypes"])).norm()
        for parameters in (fit.body.parameters, body.parameters)
    ]
    looks = depth * camera.Ks[0, 0] / (fit.camera.Ks[0, 0] * scale[0, 0]) * sizes[1] / sizes[0]
    return BodyErrors(
        **pose_errors(pose_seen(fit.body, fit.camera, model), pose_seen(body, camera, model), model.joint_names),
        phenotypes=fit.body.parameters["phenotypes"] - body.parameters["phenotypes"],
        place=torch.cat([missed[:1], -missed[1:], true_depth - looks]),
    )


def print_noise(errors: list[BodyErrors], model: AnnyBody) -> None:
    """The errors of all fits together, and the levels that would draw them."""
    together = BodyErrors(**{name: torch.stack([getattr(e, name) for e in errors]) for name in vars(errors[0])})
    bones = body_bones(model.joint_names)
    print(f"\nerrors of {len(errors)} fits, degrees and cm")
    print("\n".join(report(together, bones, model.phenotype_names)))
    for label, robust in (("as measured", False), ("without the wild ones", True)):
        levels = ", ".join(f"{k}: {v:.3g}" for k, v in vars(estimated_levels(together, bones, robust)).items())
        print(f"{label}:\n  noise: {{{levels}}}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--mirror", action="store_true", help="mirror every picture, and the true body with it")
    parser.add_argument("--noise", action="store_true", help="print how the fits are wrong, joint by joint")
    arguments = parser.parse_args()
    if arguments.mirror and arguments.noise:
        parser.error("--noise takes the pictures as they are; leave out --mirror")
    model = AnnyBody.load()
    estimate, template = BodyEstimator(model), model.pose({})
    chosen, swap = main_joints(model.joint_names), mirrored_joints(model.joint_names)
    rows, wrong, wide = [], [], []
    for line in read_manifest(arguments.data)[: arguments.limit]:
        folder = arguments.data / str(line["name"])
        person = read_person(folder, template, views=[0])
        picture = Image.open(folder / "images" / "000.png")
        body, camera = person.body, person.cameras[0]
        try:
            seen = capture_person(ImageOps.mirror(picture) if arguments.mirror else picture)
        except UserError as error:
            print(f"{folder.name}: not captured: {error}")
            continue
        start = time.perf_counter()
        fit = estimate(seen)
        seconds = time.perf_counter() - start
        if arguments.mirror:
            body = PosedBody(**{**vars(body), "joints": body.joints[swap]})
        errors = joint_errors(fit, body, camera, chosen, arguments.mirror)
        turned = turned_degrees(fit, camera, arguments.mirror)
        if arguments.noise and turned < 90:
            wrong.append(body_errors(fit, seen, body, camera, model))
        rows.append(
            (errors.mean(), fit.silhouette_iou, fit.landmark_error_fraction, turned, seconds, bool(fit.warnings))
        )
        wide.append(str(json.loads((folder / "meta.json").read_text())["person"].get("pose", "")).startswith(WIDE))
        print(
            f"{folder.name}: joints {rows[-1][0]:5.0f} mm  IoU {rows[-1][1]:.3f}  landmarks {rows[-1][2]:.1%}"
            f"  azimuth off {turned:3.0f} deg  {seconds:.1f} s  {'warned' if fit.warnings else ''}",
            flush=True,
        )
    table = np.array(rows, dtype=float)
    is_wide = np.array(wide)
    parts = {"all": table, "without a warning": table[table[:, 5] == 0]}
    if is_wide.any() and not is_wide.all():
        parts |= {"ordinary poses": table[~is_wide], "wide poses": table[is_wide]}
    for label, part in parts.items():
        print(
            f"{label}: {len(part)} people; joint error mean {part[:, 0].mean():.1f}, "
            f"median {np.median(part[:, 0]):.1f}, 90 % below {np.quantile(part[:, 0], 0.9):.1f} mm; "
            f"IoU mean {part[:, 1].mean():.3f}, above 0.80 in {np.mean(part[:, 1] > 0.8):.0%}; "
            f"front taken for back {np.mean(part[:, 3] > 90):.0%}; "
            f"seconds median {np.median(part[:, 4]):.2f}, most {part[:, 4].max():.2f}"
        )
    if wrong:
        print_noise(wrong, model)


if __name__ == "__main__":
    main()
