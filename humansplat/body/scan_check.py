"""Whether a posed body lies inside a scan, as the body of a clothed person does, and in which way it does not."""

import math

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from humansplat.body.parts import PART_NAMES
from humansplat.body.scan_surface import ScanSurface
from humansplat.errors import UserError
from humansplat.geometry.sampling import farthest_points
from humansplat.structures import PosedBody

NUM_CHECKED = 800
"""Vertices that are looked at, spread evenly over the canonical body."""
MARGIN = 0.025
"""Metres; what is outside by less is a fit's inaccuracy."""
MAX_OUTSIDE = 0.06
"""Share of the body that may lie outside by more than that."""
MAX_PART_OUTSIDE = 0.45
"""The same of one part, of those that have ``MIN_PART_VERTICES`` of the checked vertices."""
MIN_PART_VERTICES = 12
FAR_FROM_BODY = 0.22
MAX_UNCOVERED = 0.10
"""Share of the scan that may be farther than ``FAR_FROM_BODY`` metres from the body: skirts, hats, bags."""
SIZE_RANGE = (0.80, 1.12)
"""The body's height as a share of the scan's: hair, hats and shoes make scans taller, fits make little mistakes."""
BETTER = 0.5
"""A moved, turned or mirrored body that sticks out by less than this share of what the given one does is named."""
_TRUNK = ("hips", "spine", "spine1", "spine2", "neck")


def check_body(body: PosedBody, vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> tuple[str, ...]:
    """Say in which ways a posed body does not lie inside a scan.

    Args:
        body: One body, in the frame of the scan, metres.
        vertices: The scan's; several pieces one after the other. Holes and inner layers do no harm.
        faces: Vertex indices.

    Returns:
        One sentence for each way; empty if nothing is wrong.

    Raises:
        UserError: If the body is a batch, or the scan is no surface.
    """
    if body.vertices.ndim != 2:
        raise UserError(f"one body is checked at a time, got a batch of shape {tuple(body.vertices.shape[:-2])}")
    return BodyCheck(ScanSurface(vertices, faces)).flags(body)


class BodyCheck:
    """``check_body`` for many bodies against one scan.

    Args:
        surface: The scan.
        chosen: Indices of the vertices that are looked at; by default spread evenly over each body.
    """

    def __init__(self, surface: ScanSurface, chosen: Int[np.ndarray, " n"] | None = None) -> None:
        self.surface, self.chosen = surface, chosen

    def flags(self, body: PosedBody) -> tuple[str, ...]:
        """See ``check_body``."""
        points = body.vertices.detach().cpu().double().numpy()
        if not np.isfinite(points).all():
            return ("the body has vertices that are not numbers",)
        gross = self._wrong_size(points)
        if gross:
            return gross
        chosen = checked_vertices(body) if self.chosen is None else self.chosen
        return (*self._sticking_out(body, points, chosen), *self._uncovered(points[chosen]))

    def outside_share(self, points: Float[np.ndarray, "n 3"]) -> float:
        """Share of points that lie outside the scan by more than ``MARGIN``."""
        return float(self.surface.outside(points, MARGIN).mean())

    def uncovered_share(self, points: Float[np.ndarray, "n 3"]) -> float:
        """Share of the scan's surface that is far from all of these points of the body."""
        distances, _ = cKDTree(points).query(self.surface.samples[::4], distance_upper_bound=FAR_FROM_BODY)
        return float(np.isinf(distances).mean())

    def _wrong_size(self, points: np.ndarray) -> tuple[str, ...]:
        """What makes all other questions pointless."""
        size = np.ptp(points, axis=0)
        ratio = float(size[1] / max(self.surface.size[1], 1e-9))
        if not SIZE_RANGE[0] <= ratio <= SIZE_RANGE[1]:
            return (
                f"the body is {size[1]:.3g} m high and the scan {self.surface.size[1]:.3g} m, a ratio of {ratio:.3g}:"
                " unit or scale is wrong",
            )
        return ()

    def _sticking_out(self, body: PosedBody, points: np.ndarray, chosen: np.ndarray) -> tuple[str, ...]:
        outside = self.surface.outside(points[chosen], MARGIN)
        share = float(outside.mean())
        labels = body.parts.detach().cpu().numpy()[chosen]
        total, out = (np.bincount(labels[which], minlength=len(PART_NAMES)) for which in (slice(None), outside))
        bad = [
            PART_NAMES[part]
            for part in np.argsort(-out)
            if total[part] >= MIN_PART_VERTICES and out[part] > MAX_PART_OUTSIDE * total[part]
        ]
        if share <= MAX_OUTSIDE and not bad:
            return ()
        where = f", most of {_listed(bad[:6])}" if bad else ""
        sentences = [f"{share:.0%} of the body lies outside the scan by more than {1000 * MARGIN:.0f} mm{where}"]
        better = self._better(body, points, chosen, share)
        return (*sentences, better) if better else tuple(sentences)

    def _better(self, body: PosedBody, points: np.ndarray, chosen: np.ndarray, share: float) -> str | None:
        """The mistake of convention that would explain why the body sticks out, if one does."""
        scan = self.surface.samples
        middle = (scan.min(axis=0) + scan.max(axis=0)) / 2
        found = {}
        for name, changed in _changes(body, points).items():
            shift = middle - (changed.min(axis=0) + changed.max(axis=0)) / 2
            found[name.format(_vector(shift))] = self.outside_share(changed[chosen] + shift)
        name = min(found, key=lambda name: found[name])
        if found[name] > BETTER * share:
            return None
        return f"{name}, only {found[name]:.0%} of it would lie outside"

    def _uncovered(self, points: np.ndarray) -> tuple[str, ...]:
        share = self.uncovered_share(points)
        if share <= MAX_UNCOVERED:
            return ()
        return (f"{share:.0%} of the scan is farther than {1000 * FAR_FROM_BODY:.0f} mm from the body",)


def checked_vertices(body: PosedBody) -> Int[np.ndarray, " n"]:
    """Vertices spread evenly over a body's skin; the same for all bodies of one model."""
    return farthest_points(body.canonical.detach().cpu(), NUM_CHECKED, first=0).numpy()


def _changes(body: PosedBody, points: Float[np.ndarray, "v 3"]) -> dict[str, Float[np.ndarray, "v 3"]]:
    """The body with usual mistakes undone, as far as where it stands does not matter."""
    changed = {"moved by {} m": points}
    for degrees in (180, 90, -90):
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn = np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])
        changed[f"turned by {degrees} degrees about the vertical and put where the scan is"] = points @ turn.T
    left = body_left(body)
    changed["mirrored left to right and put where the scan is"] = points - 2 * (points @ left)[:, None] * left
    return changed


def body_left(body: PosedBody) -> Float[np.ndarray, "3"]:
    """Unit vector to a body's left: along which the trunk's canonical x grows."""
    trunk = np.isin(body.parts.detach().cpu().numpy(), [PART_NAMES.index(name) for name in _TRUNK])
    if not trunk.any():
        trunk[:] = True
    points = body.vertices.detach().cpu().double().numpy()[trunk]
    across = body.canonical.detach().cpu().double().numpy()[trunk, 0]
    left = (points - points.mean(axis=0)).T @ (across - across.mean())
    return left / max(float(np.linalg.norm(left)), 1e-12)


def body_facing(body: PosedBody) -> float:
    """Azimuth to which a body's trunk faces, radians about +Y; 0 faces +Z."""
    left = body_left(body)
    return math.atan2(-float(left[2]), float(left[0]))


def _vector(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.2f}" for value in values) + ")"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
