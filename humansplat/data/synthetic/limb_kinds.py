"""The kinds of arms and legs that most photographs show, each with its natural spread."""

from collections.abc import Callable, Mapping

import numpy as np

from humansplat.data.synthetic.limbs import Limb, unit


def draw_arm(rng: np.random.Generator, kind: str) -> Limb:
    """An arm of a named kind with its natural spread; +x is away from the trunk, +z forward."""
    u = rng.uniform
    out = u(0.22, 0.5)
    kinds: dict[str, Callable[[], Limb]] = {
        "hanging": lambda: Limb(unit(out, -1, u(-0.2, 0.15)), unit(out * u(0.2, 0.9), -1, u(0.02, 0.45))),
        "apart": lambda: Limb(unit(u(0.5, 1.0), -1, u(-0.2, 0.2)), unit(u(0.3, 1.0), -1, u(0.0, 0.5))),
        "hip": lambda: Limb(unit(u(0.75, 1.1), -1, u(-0.5, -0.1)), unit(u(-0.9, -0.55), -0.8, u(0.25, 0.5))),
        "folded": lambda: Limb(unit(u(0.3, 0.5), -1, u(0.1, 0.4)), unit(u(-1.0, -0.5), u(-0.2, 0.35), u(0.7, 1.0))),
        "forward": lambda: Limb(unit(u(-0.05, 0.4), u(-0.9, 0.3), 1), unit(u(-0.3, 0.3), u(-0.5, 0.7), 1)),
        "holding": lambda: Limb(unit(u(0.2, 0.5), -1, u(0.0, 0.5)), unit(u(-0.4, 0.3), u(-0.3, 0.6), 1)),
        "side": lambda: Limb(unit(1, u(-0.4, 0.35), u(-0.3, 0.35)), unit(1, u(-0.5, 0.6), u(-0.1, 0.6))),
        "raised": lambda: Limb(unit(u(0.2, 0.9), 1, u(-0.15, 0.4)), unit(u(-0.4, 0.6), 1, u(-0.1, 0.5))),
        "waving": lambda: Limb(unit(1, u(-0.5, 0.2), u(-0.1, 0.4)), unit(u(-0.2, 0.5), 1, u(0.0, 0.5))),
        "head": lambda: Limb(unit(u(0.5, 1.0), u(-0.1, 0.6), u(0.2, 0.5)), unit(u(-0.9, -0.5), u(0.5, 1.0), -0.05)),
        "behind": lambda: Limb(unit(u(0.4, 0.6), -1, u(-0.6, -0.3)), unit(u(-0.5, -0.1), -1, u(-0.3, 0.0))),
        "swing_front": lambda: Limb(unit(0.25, -1, u(0.25, 0.8)), unit(u(-0.1, 0.2), u(-1.0, 0.2), u(0.6, 1.2))),
        "swing_back": lambda: Limb(unit(0.3, -1, u(-0.9, -0.3)), unit(u(0.0, 0.2), -1, u(-0.3, 0.6))),
    }
    return kinds[kind]()


ARM_KINDS = {
    "hanging": 0.34, "apart": 0.12, "hip": 0.09, "folded": 0.06, "forward": 0.06, "holding": 0.1, "side": 0.05,
    "raised": 0.04, "waving": 0.05, "head": 0.03, "behind": 0.06,
}  # fmt: skip
"""How often each kind of arm is drawn for people who stand or sit."""


def draw_legs(rng: np.random.Generator, kind: str) -> tuple[Limb, Limb, float]:
    """Left and right leg, and the lean of the trunk about the x axis; the right leg's x is mirrored already."""
    u = rng.uniform
    if kind == "standing":
        wide = u(0.0, 0.22)
        legs = [Limb(unit(wide + u(-0.03, 0.05), -1, u(-0.1, 0.14)), unit(wide, -1, u(-0.16, 0.0))) for _ in "LR"]
        if rng.random() < 0.35:  # the weight on one leg, the other knee loose
            legs[0] = Limb(unit(wide + 0.08, -1, u(0.1, 0.35)), unit(wide - 0.05, -1, u(-0.25, -0.05)))
        lean = u(-0.06, 0.08)
    elif kind == "wide":
        wide = u(0.25, 0.6)
        legs = [Limb(unit(wide * u(0.8, 1.1), -1, u(-0.2, 0.3)), unit(wide * u(0.7, 1), -1, u(-0.4, 0))) for _ in "LR"]
        lean = u(-0.05, 0.25)
    elif kind == "walking":
        stride = u(0.15, 0.6)
        legs = [
            Limb(unit(0.05, -1, stride), unit(0.03, -1, u(0.1, 0.9) * stride - 0.1)),
            Limb(unit(0.05, -1, -stride * u(0.5, 0.9)), unit(0.03, -1, -stride - u(0.0, 0.5))),
        ]
        lean = u(0.0, 0.1)
    elif kind == "running":
        legs = [
            Limb(unit(0.05, u(-0.9, -0.2), 1), unit(0.03, -1, u(-0.7, 0.2))),
            Limb(unit(0.05, -1, -u(0.2, 0.7)), unit(0.03, u(-0.5, 0.2), -1)),
        ]
        lean = u(0.05, 0.3)
    elif kind == "sitting":
        wide = u(0.0, 0.45)
        legs = [Limb(unit(wide * u(0.8, 1.2), u(-0.35, 0.0), 1), unit(wide * 0.4, -1, u(-0.35, 0.35))) for _ in "LR"]
        lean = u(-0.2, 0.25)
    elif kind == "squatting":
        wide = u(0.15, 0.5)
        legs = [Limb(unit(wide, u(-0.8, -0.05), 1), unit(wide * 0.6, -1, u(-0.8, -0.3))) for _ in "LR"]
        lean = u(0.2, 0.6)
    elif kind == "lunging":
        legs = [
            Limb(unit(0.12, u(-0.8, -0.3), 1), unit(0.05, -1, u(-0.2, 0.2))),
            Limb(unit(0.1, -1, -u(0.2, 0.7)), unit(0.05, -0.6, -1)),
        ]
        lean = u(-0.05, 0.2)
    elif kind == "kicking":
        legs = [
            Limb(unit(u(-0.1, 0.3), u(-0.7, 0.15), 1), unit(0.05, u(-0.8, 0.1), 1)),
            Limb(unit(0.08, -1, u(-0.05, 0.1)), unit(0.05, -1, -0.1)),
        ]
        lean = u(-0.25, 0.05)
    else:  # jumping
        legs = [
            Limb(unit(u(0.05, 0.5), -1, u(-0.3, 0.8)), unit(u(0, 0.3), u(-1.0, -0.4), u(-1.0, -0.2))) for _ in "LR"
        ]
        lean = u(-0.1, 0.2)
    if rng.random() < 0.5:
        legs.reverse()
    return legs[0], legs[1], lean


LEG_KINDS = {
    "standing": 0.5, "wide": 0.09, "walking": 0.15, "running": 0.06, "sitting": 0.07, "squatting": 0.03,
    "lunging": 0.04, "kicking": 0.02, "jumping": 0.04,
}  # fmt: skip
"""How often each kind of legs is drawn."""


def draw_kind(rng: np.random.Generator, shares: Mapping[str, float]) -> str:
    """One of the kinds, as often as their shares say."""
    names, weights = list(shares), np.array(list(shares.values()))
    return str(rng.choice(names, p=weights / weights.sum()))
