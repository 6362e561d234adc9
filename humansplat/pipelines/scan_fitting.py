"""Fit a body model to a scan of a clothed person, standing anywhere and turned any way.

A multi-view SMPLify: the scan is rendered from all around, the pose graph and the lifter read every view, what they
say is triangulated, and the default body is fitted to that and then to the surface.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from humansplat.body.anny import AnnyBody
from humansplat.body.fit import one_thread
from humansplat.body.fit_terms import FOCAL
from humansplat.body.markers import MIRRORED_MARKERS, ROOT_MARKER
from humansplat.body.protocol import BodyModel
from humansplat.body.scan_check import BodyCheck, body_facing, checked_vertices
from humansplat.body.scan_pose import BodyParameters, MarkerEvidence, MarkerFitter
from humansplat.body.scan_refine import SurfaceFitter
from humansplat.body.scan_surface import ScanSurface
from humansplat.body.scan_surface_terms import SurfaceTarget
from humansplat.body.scan_transfer import check_model, transfer
from humansplat.body.scan_triangulate import Sightings, Triangulated, triangulate
from humansplat.capture.graph import PoseGraph
from humansplat.errors import UserError
from humansplat.models.lifter import MarkerLifter
from humansplat.pipelines.scan_views import ScanViews, see_scan, see_surface
from humansplat.pipelines.weights import load_module, shipped_lifter
from humansplat.render.shaded_mesh import ShadedMesh, merged
from humansplat.structures import PosedBody, ScanFit

HEIGHTS = (0.4, 2.6)
"""Metres of a scan along +Y that a person may have, sitting or with raised arms."""
LAPLACE_STD = 2.0**0.5
MIN_PIXEL_SHARE, MIN_DEPTH_SHARE = 0.0026, 0.003
"""Deviations that a view has at least: of places as shares of the picture's side, and of depths."""
MARKER_FACTOR, MIN_MARKER_STD = 1.5, 0.008
"""What triangulation leaves is multiplied by the first, views being wrong together; and metres."""
START_STD, START_SHAPE_STD = 0.03, 0.1
"""How far the markers, metres, and the shape of a given start may be off."""
MIN_AGREEMENT, MIN_SURE = 0.6, 0.5
"""Views' agreement and share of views that show a person, below which a fit is flagged."""
MIN_SCORE = 0.5
"""Of the pose graph for a view that shows one."""
MAX_LANDMARK_ERROR, MAX_FIT_OUTSIDE = 0.03, 0.03
"""Metres, and share of the body, above which it is. Good fits of synthetic people have 7 to 14 mm and less than 0.5 %;
fits that were begun from turned or disturbed bodies, all of them off by more than 100 mm, 40 mm and more."""
MAX_START_ERROR = 0.06
"""The same of a given start, which may be off."""
HEIGHT_STD = 0.2
"""Of the phenotype: a picture does not tell the height, and the scan does."""


class ScanFitter:
    """Fits a body model to scans; loads what it needs once.

    Args:
        model: The default body, also if none is given, or one of the SMPL family.
        graph: The pose graph; by default the one in the cache, fetched if need be.
        lifter: Folder of the lifter; by default the one that ships.

    Raises:
        UserError: If the model is neither the default body nor of the SMPL family.
    """

    def __init__(
        self, model: BodyModel | None = None, *, graph: PoseGraph | None = None, lifter: Path | None = None
    ) -> None:
        self.base = model if isinstance(model, AnnyBody) else AnnyBody.load()
        self.model = self.base if model is None else model
        check_model(self.model)
        self.lifter_folder = lifter or shipped_lifter(self.base.name)
        if graph is not None:
            self.graph = graph
        self.marker_fitter, self.surface_fitter = MarkerFitter(self.base), SurfaceFitter(self.base)

    @cached_property
    def graph(self) -> PoseGraph:
        """The pose graph, which a given start does without."""
        return PoseGraph(num_threads=1)

    @cached_property
    def lifter(self) -> MarkerLifter:
        """The lifter, which a given start does without."""
        return load_module(MarkerLifter, self.lifter_folder)

    @torch.no_grad()
    @one_thread()
    def __call__(self, meshes: Sequence[ShadedMesh], *, start: PosedBody | None = None) -> ScanFit:
        """Fit.

        Args:
            meshes: The scan's pieces: metres, +Y up, any place, any turn about the vertical.
            start: A fit of the default body to begin from, in the frame of the scan: then no landmarks are looked
                for.

        Raises:
            UserError: If the scan is no surface, or not of a person's size; if ``start`` is of another model; if the
                pose graph or the lifter's weights are missing.
        """
        surface, origin = scan_surface(meshes)
        meshes, points = moved(meshes, -origin), surface.samples[::8] - origin
        shift = torch.from_numpy(origin)
        if start is None:
            views = see_scan(meshes, points, self.graph, self.lifter)
            evidence, seen = marker_evidence(views, self.base)
            posed, doubts, outer = self.marker_fitter(evidence), view_flags(views, seen), views.outer
        else:
            posed = start_parameters(start, shift)
            evidence, doubts, outer = self._evidence_of(posed), (), see_surface(meshes, points)
        target = SurfaceTarget(outer.points, outer.normals)
        found = self.surface_fitter(posed, evidence, target)
        base = self.base.pose(vars(replace(found, translation=found.translation + shift)))
        missed = float((self._markers(base) - shift - evidence.points).norm(dim=-1).mean())
        limit, of_what = (MAX_LANDMARK_ERROR, "landmarks") if start is None else (MAX_START_ERROR, "start's landmarks")
        if missed > limit:
            doubts += (
                f"the body misses the {of_what} by {1000 * missed:.0f} mm on average (over {1000 * limit:.0f} mm)",
            )
        body = base
        if self.model is not self.base:
            body = transfer(self.model, base, SurfaceTarget(outer.points + shift, outer.normals))
        return judged(body, surface, self._checked, missed, doubts)

    @cached_property
    def _checked(self) -> Int[np.ndarray, " n"]:
        return checked_vertices(self.model.pose({}))

    def _markers(self, body: PosedBody) -> Float[Tensor, "k 3"]:
        return self.marker_fitter.markers.points(body.vertices[self.marker_fitter.markers.vertex_ids], body.joints)

    def _evidence_of(self, start: BodyParameters) -> MarkerEvidence:
        """A given start as the evidence of markers that lie where it has them."""
        points = self._markers(self.base.pose(vars(start)))
        stds = torch.full_like(points[:, 0], START_STD)
        shape_stds = torch.full_like(start.phenotypes, START_SHAPE_STD)
        return MarkerEvidence(points=points, stds=stds, shape=start.phenotypes, shape_stds=shape_stds)


def start_parameters(start: PosedBody, origin: Float[Tensor, "3"]) -> BodyParameters:
    """A start's parameters, seen from ``origin``.

    Raises:
        UserError: If it is not the default body, or its parameters are not known.
    """
    if start.model != "anny" or start.parameters is None or start.vertices.ndim != 2:
        raise UserError(
            f"a scan's fit starts from one body of the model 'anny' with its parameters, got {start.model!r}"
        )
    given = {name: values.detach().float().cpu() for name, values in start.parameters.items()}
    return BodyParameters(
        phenotypes=given["phenotypes"], rotations=given["rotations"], translation=given["translation"] - origin
    )


def scan_surface(meshes: Sequence[ShadedMesh]) -> tuple[ScanSurface, Float[np.ndarray, "3"]]:
    """All pieces as one surface, and the middle of its ground.

    Raises:
        UserError: If there is no surface, or it is not of a person's size.
    """
    if not meshes:
        raise UserError("there is no mesh in the scan; give one")
    surface = ScanSurface(*merged(meshes))
    height = float(surface.size[1])
    if not HEIGHTS[0] <= height <= HEIGHTS[1]:
        raise UserError(
            f"the scan is {height:.3g} m high along +Y, which no person is; give it in metres, standing along +Y"
        )
    low, high = surface.samples.min(axis=0), surface.samples.max(axis=0)
    origin = (low + high) / 2
    origin[1] = low[1]
    return surface, origin.astype(np.float32)


def moved(meshes: Sequence[ShadedMesh], shift: Float[np.ndarray, "3"]) -> list[ShadedMesh]:
    """The same pieces elsewhere."""
    return [replace(mesh, vertices=mesh.vertices + shift) for mesh in meshes]


def marker_evidence(views: ScanViews, model: AnnyBody) -> tuple[MarkerEvidence, Triangulated]:
    """What all views together say of the markers and of the shape."""
    lifted, size = views.lifted, views.cameras.width
    across, along = (LAPLACE_STD * lifted.point_scales).unbind(dim=-1)
    sightings = Sightings(
        pixels=lifted.points[..., :2] * size,
        stds=(across + MIN_PIXEL_SHARE) * size,
        depths=lifted.points[..., 2] / FOCAL,
        depth_stds=along / FOCAL + MIN_DEPTH_SHARE,
    )
    seen = triangulate(sightings, views.cameras, mirrored=MIRRORED_MARKERS, reference=ROOT_MARKER)
    weights = lifted.phenotype_scales**-2
    shape_stds = (LAPLACE_STD * lifted.phenotype_scales.mean(dim=0)).clamp(min=0.03)
    shape_stds[model.phenotype_names.index("height")] = HEIGHT_STD
    evidence = MarkerEvidence(
        points=seen.points,
        stds=((MARKER_FACTOR * seen.stds).square() + MIN_MARKER_STD**2).sqrt(),
        shape=(weights * lifted.phenotypes).sum(dim=0) / weights.sum(dim=0),
        shape_stds=shape_stds,
    )
    return evidence, seen


def view_flags(views: ScanViews, seen: Triangulated) -> tuple[str, ...]:
    """What is doubtful in what the views say."""
    flags = []
    agreement = float(seen.agreement.mean())
    if agreement < MIN_AGREEMENT:
        flags.append(f"the views agree on the pose by {agreement:.0%} only (less than {MIN_AGREEMENT:.0%})")
    sure = float((views.scores > MIN_SCORE).float().mean())
    if sure < MIN_SURE:
        flags.append(f"a person was found in {sure:.0%} of the views only")
    return tuple(flags)


def judged(
    body: PosedBody,
    surface: ScanSurface,
    checked: Int[np.ndarray, " n"],
    landmark_error: float,
    doubts: tuple[str, ...],
) -> ScanFit:
    """Measure a fit and say what is wrong with it."""
    check = BodyCheck(surface, checked)
    points = body.vertices[checked].double().numpy()
    flags = list(doubts)
    outside, named = check.outside_share(points), check.flags(body)
    if outside > MAX_FIT_OUTSIDE and not named:
        flags.append(f"{outside:.0%} of the body lies outside the scan, which a good fit's does not")
    return ScanFit(
        body=body,
        facing=body_facing(body),
        landmark_error=landmark_error,
        coverage=1.0 - check.uncovered_share(points),
        outside=outside,
        flags=(*flags, *named),
    )
