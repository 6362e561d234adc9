"""One rest pose for the skins of all body models, so that weights trained with one model read another.

``PosedBody.canonical`` names each point of a skin by where it is on the mean adult in the default
body's rest pose. Other models rest otherwise (the SMPL family in a T-pose) and put their joints
elsewhere inside the limbs; so each limb is turned to point at the place of the default body's next joint.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.geometry.rotations import matrix_to_axis_angle, rotation_between

HEIGHT = 1.6962
"""Of the default body's mean adult, metres."""
_AIMS = {
    "shoulder": (("elbow",), (0.3525, 1.1497, 0.0919)),
    "elbow": (("wrist",), (0.4752, 1.0250, 0.2524)),
    "wrist": (("middle1", "hand"), (0.5210, 0.9706, 0.3338)),
    "hip": (("knee",), (0.1443, 0.5032, 0.1037)),
    "knee": (("ankle",), (0.1852, 0.0756, 0.0771)),
}
"""For each joint of the left side the next one, by whichever name it has, and where the default body has that one."""
_LEG_DEPTH = 0.0837
"""Mean z of the default body's hips, knees and ankles, metres: its root joint lies behind them."""


def rest_placement(
    names: Sequence[str], joints: Float[Tensor, "j 3"], vertices: Float[Tensor, "v 3"]
) -> tuple[float, Float[Tensor, "3"]]:
    """The scale, and then the shift, by which a standing body takes the default body's place and height."""
    low, high = vertices[:, 1].min(), vertices[:, 1].max()
    scale = HEIGHT / float(high - low)
    legs = [index for index, name in enumerate(names) if name.endswith(("hip", "knee", "ankle"))]
    shift = torch.stack([-joints[0, 0], -low, -joints[legs, 2].mean()]) * scale
    return scale, shift + torch.tensor([0.0, 0.0, _LEG_DEPTH])


def rest_rotations(names: Sequence[str], parents: Sequence[int], joints: Float[Tensor, "j 3"]) -> Float[Tensor, "j 3"]:
    """Axis times angle by which each joint turns from its own rest pose to the default body's.

    Args:
        names: SMPL's, a side and a joint.
        parents: Of each joint; no joint comes before its parent.
        joints: Of the own rest pose, placed by ``rest_placement``.
    """
    world, placed, local = [torch.eye(3)], [joints[0]], [torch.zeros(3)]
    for index, name in enumerate(names[1:], start=1):
        above = world[parents[index]]
        placed.append(placed[parents[index]] + above @ (joints[index] - joints[parents[index]]))
        side, _, base = name.partition("_")
        turned = above
        if base in _AIMS:
            ends, (x, y, z) = _AIMS[base]
            end = next(names.index(f"{side}_{end}") for end in ends if f"{side}_{end}" in names)
            target = torch.tensor([x if side == "left" else -x, y, z])
            turned = rotation_between(above @ (joints[end] - joints[index]), target - placed[index]) @ above
        elif base == "ankle":  # feet stay flat on the ground
            turned = torch.eye(3)
        world.append(turned)
        local.append(matrix_to_axis_angle(above.T @ turned))
    return torch.stack(local)
