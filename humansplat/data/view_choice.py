"""Which views of a person a network is shown and which it has to match.

The world stays the person's own: the body faces +Z whatever view is the photograph, as it does in synthetic people,
whose photographs are taken from any side, and as it does after a fit. So cameras, joints and body parameters are used
as they are stored, and a photograph from behind is one whose camera stands on -Z.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from humansplat.config import ViewShares
from humansplat.data.rig import NUM_RIG_VIEWS, Role
from humansplat.errors import UserError
from humansplat.geometry.projection import orbit
from humansplat.structures import Cameras

GROUPS: dict[Role, str] = {
    "input": "rig",
    "orthogonal": "rig",
    "whole": "whole",
    "half": "half",
    "face": "face",
    "novel": "novel",
    "closeup": "closeup",
}
"""The share of ``ViewShares`` that a role counts to."""
QUARTER_TOLERANCE = 0.01
"""Metres, and cosine: how well a view must lie a quarter turn from another to be taken for orthogonal to it."""


@dataclass(frozen=True)
class ViewChoice:
    """Numbers of views of one person."""

    rig: tuple[int, int, int, int]
    """The photograph and the three views orthogonal to it, carried by 90, 180 and 270 degrees."""
    targets: tuple[int, ...]
    """Views to be matched, all different."""


@dataclass(frozen=True, kw_only=True)
class PersonViews:
    """What can be chosen of one person."""

    rigs: tuple[tuple[int, int, int, int], ...]
    """That of the photograph first, then those of the ring of whole bodies."""
    groups: dict[str, tuple[int, ...]]
    """Views by the share that they count to."""

    def choose(
        self,
        rng: np.random.Generator,
        *,
        num_targets: int,
        shares: ViewShares,
        ring_inputs: float = 0.0,
        photo_weight: float = 0.0,
        where: str = "a person",
    ) -> ViewChoice:
        """Draw the views of one step.

        Args:
            rng: Source of randomness.
            num_targets: Views to be matched.
            shares: How often the views of each kind are matched.
            ring_inputs: Probability that the photograph is one of the ring of whole bodies, where there is one.
            photo_weight: Probability that the photograph is put among the targets, besides its chance.
            where: Begins the message of an error.

        Raises:
            UserError: If the person has fewer views than asked for.
        """
        rig = self.rigs[0]
        if rng.random() < ring_inputs and len(self.rigs) > 1:
            rig = self.rigs[rng.integers(1, len(self.rigs))]
        left = {name: list(views) for name, views in self.groups.items() if getattr(shares, name) > 0}
        targets: list[int] = []
        if rng.random() < photo_weight:
            targets.append(rig[0])
            left = {name: [view for view in views if view != rig[0]] for name, views in left.items()}
        while len(targets) < num_targets:
            left = {name: views for name, views in left.items() if views}
            if not left:
                raise UserError(
                    f"{where} has {len(targets)} views of a share above 0, {num_targets} are to be matched: "
                    "lower the number or raise other shares"
                )
            names = list(left)
            bounds = np.cumsum([getattr(shares, name) for name in names])
            name = names[min(int(np.searchsorted(bounds, rng.random() * bounds[-1], "right")), len(names) - 1)]
            targets.append(left[name].pop(int(rng.integers(len(left[name])))))
        return ViewChoice(rig, tuple(targets))


def person_views(cameras: Cameras, roles: Sequence[Role], where: str) -> PersonViews:
    """Sort a person's views by what they can be used for.

    Args:
        cameras: ``[v]``.
        roles: Of each view.
        where: The file that they come from, for messages.

    Raises:
        UserError: If the four views of the rig do not come first.
    """
    if tuple(roles[:NUM_RIG_VIEWS]) != ("input", *["orthogonal"] * (NUM_RIG_VIEWS - 1)):
        raise UserError(
            f"{where} begins with the roles {list(roles[:NUM_RIG_VIEWS])} instead of one input and three orthogonal "
            "views: make the person anew"
        )
    groups: dict[str, list[int]] = {}
    for view, role in enumerate(roles):
        groups.setdefault(GROUPS[role], []).append(view)
    rigs = [(0, 1, 2, 3), *ring_rigs(cameras, groups.get("whole", []))]
    return PersonViews(rigs=tuple(rigs), groups={name: tuple(views) for name, views in groups.items()})


def ring_rigs(cameras: Cameras, ring: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """For each view of a ring the three that are a quarter, half and three quarters of a turn further.

    Args:
        cameras: ``[v]``, of all views.
        ring: The views of the ring in their order around the person.

    Returns:
        Nothing if their number is no multiple of four, or the views do not lie a quarter of a turn apart.
    """
    count = len(ring)
    if count == 0 or count % NUM_RIG_VIEWS:
        return []
    quarter = count // NUM_RIG_VIEWS
    views = cameras[torch.tensor(list(ring))]
    center = views.centers.mean(dim=0)
    rigs: list[tuple[int, int, int, int]] = []
    for step in (quarter, -quarter):  # a ring may go around either way
        order = (torch.arange(count)[:, None] + step * torch.arange(NUM_RIG_VIEWS)) % count  # [count, 4]
        expected = orbit(views, center.expand(count, 3), torch.arange(NUM_RIG_VIEWS) * (0.5 * torch.pi))
        found = views[order]
        same = (
            torch.allclose(expected.viewmats[..., :3, :3], found.viewmats[..., :3, :3], atol=QUARTER_TOLERANCE)
            and torch.allclose(expected.centers, found.centers, atol=QUARTER_TOLERANCE)
            and torch.allclose(expected.Ks, found.Ks, rtol=1e-3, atol=0.5)
        )
        if same:
            numbers = torch.tensor(list(ring))[order].tolist()
            rigs = [(row[0], row[1], row[2], row[3]) for row in numbers]
            break
    return rigs
