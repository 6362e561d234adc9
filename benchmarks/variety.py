"""How much synthetic people differ: poses and builds of many seeds, pictures of some; and how many of them stand.

    python benchmarks/variety.py --assets ../shared/makehuman --num 2000
    python benchmarks/variety.py --assets ../shared/makehuman --num 200 --data DATA

The first draws shape and pose only. With ``--data`` the input views of a folder of people are compared as well.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.spatial.distance import cdist

from humansplat.data.format import read_manifest
from humansplat.data.synthetic import AssetLibrary
from humansplat.data.synthetic.balance import Balancer, should_stand
from humansplat.data.synthetic.figure import joint_transforms, rest_shape
from humansplat.data.synthetic.person import CHILD_SHARE, CHILDREN, draw_phenotypes
from humansplat.data.synthetic.poses import draw_pose

LIMBS = ("wrist", "lowerarm01", "upperarm01", "lowerleg01", "foot", "upperleg01", "finger3-1", "toe3-1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, required=True)
    parser.add_argument("--num", type=int, default=2000)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    poses(AssetLibrary(options.assets), options.num)
    if options.data is not None:
        pictures(options.data)


def poses(library: AssetLibrary, num: int) -> None:
    """Nearest neighbours among the joints of drawn bodies, and how they stand."""
    template = library.template
    keep = [template.joint(f"{name}.{side}") for name in LIMBS for side in "LR"] + [template.joint("head")]
    joints, standing, heights = [], [], []
    for seed in range(num):
        rng = np.random.default_rng(seed)
        child = float(rng.uniform(*CHILDREN)) if rng.random() < CHILD_SHARE else None
        drawn = draw_phenotypes(library, rng, child)
        shape = torch.tensor([drawn[name] for name in template.body.phenotype_names], dtype=torch.float32)
        rotations, name = draw_pose(template, library.motions("train"), rng, procedural=True, clips=library.clips)
        rest, places = rest_shape(template.body, shape)
        if should_stand(name):
            balancer = Balancer(template, rest, places)
            before = balancer.judge(rotations)
            rotations = balancer.settle(rotations)
            after = balancer.judge(rotations)
            standing.append((before.balanced, after.balanced))
            if before.heights.max() < 0.14:
                heights.append((before.heights.max(), after.heights.max()))
        transforms = joint_transforms(places, template.joint_parents, rotations)
        posed = np.einsum("jab,jb->ja", transforms[..., :3], places) + transforms[..., 3]
        joints.append((posed - posed[0])[keep].ravel())
    points = np.array(joints)
    distance = cdist(points, points) / np.sqrt(len(keep))
    np.fill_diagonal(distance, np.inf)
    nearest = distance.min(1)
    print(f"{num} people, nearest other one, root mean square over 17 joints: median {np.median(nearest):.3f} m,")
    print(f"least {nearest.min():.4f} m; closer than 2 cm: {(nearest < 0.02).mean():.2%}")
    first, last = np.array(standing).T
    print(f"{len(standing)} meant to stand: balanced {first.mean():.1%} as drawn, {last.mean():.1%} settled")
    lower, upper = np.array(heights).T * 1e3
    print(
        f"{len(heights)} on two feet, the higher sole above the ground: mean {lower.mean():.1f} mm and 90 % below "
        f"{np.percentile(lower, 90):.1f} mm as drawn; {upper.mean():.1f} and {np.percentile(upper, 90):.1f} mm settled"
    )


def pictures(data: Path) -> None:
    """Nearest neighbours among small input views: silhouettes and colours."""
    names = [str(record["name"]) for record in read_manifest(data)]
    views, layers = [], []
    for name in names:
        with Image.open(data / name / "images" / "000.png") as file:
            views.append(np.asarray(file.convert("RGBa").resize((32, 32), Image.Resampling.BOX), np.float32) / 255)
        layers.append(json.dumps(json.loads((data / name / "meta.json").read_text())["person"], sort_keys=True))
    colors = np.array(views).reshape(len(views), -1)
    alphas = np.array(views)[..., 3].reshape(len(views), -1)
    distance = cdist(colors, colors) / np.sqrt(colors.shape[1])
    np.fill_diagonal(distance, np.inf)
    both = alphas @ alphas.T
    overlap = both / np.maximum(alphas.sum(1)[:, None] + alphas.sum(1) - both, 1e-6)
    np.fill_diagonal(overlap, 0)
    print(f"{len(views)} pictures of 32 x 32, nearest other one: colour RMS median {np.median(distance.min(1)):.3f}")
    print(f"least {distance.min():.3f}; silhouette IoU median {np.median(overlap.max(1)):.2f},")
    print(f"largest {overlap.max():.2f}; {len(set(layers))} different records")


if __name__ == "__main__":
    main()
