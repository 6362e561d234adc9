"""A person that was reconstructed, and the files that it is saved as."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from humansplat.io.body import write_body
from humansplat.io.images import to_bytes, write_png
from humansplat.io.video import write_video
from humansplat.pipelines.preview import preview_image
from humansplat.pipelines.report import Report
from humansplat.pipelines.turntable import FPS, FRAMES, SIZE, azimuth_of, render_frames, turntable_cameras
from humansplat.structures import Cameras, Gaussians, PosedBody

FILES = ("splats.ply", "turntable.mp4", "preview.png", "body.npz", "report.json")
"""What a saved reconstruction consists of; the report comes last, and so tells that all is there."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """One person: splats, body and camera share a world frame (metres, +Y up, on the ground at the origin)."""

    gaussians: Gaussians
    body: PosedBody
    """Unbatched."""
    camera: Cameras
    """The camera of ``image``, unbatched."""
    photo_camera: Cameras
    """The same camera in the pixels of the upright photo, unbatched."""
    image: Float[Tensor, "3 s s"]
    """The person's crop of the photo, sRGB, before white."""
    mask: Float[Tensor, "s s"]
    """The person's soft mask in that crop."""
    report: Report

    @property
    def center(self) -> Float[Tensor, "3"]:
        """The root joint, which the other views are carried around; world frame, metres."""
        return self.body.joints[0]

    def turntable(
        self, path: str | Path, *, frames: int = FRAMES, size: int = SIZE, fps: int = FPS, progress: bool = False
    ) -> None:
        """Write a video that goes once around the person and starts at the photo's side.

        Args:
            path: Ends in ``.mp4``.
            frames: Number of pictures.
            size: Side of the pictures, pixels.
            fps: Pictures a second.
            progress: Show a bar on stderr.
        """
        splats = self.gaussians.to(self.report.device)  # many pictures: where the networks ran
        cameras = turntable_cameras(splats, frames=frames, size=size, start=azimuth_of(self.camera))
        pictures = render_frames(splats, cameras)
        with tqdm(pictures, "turntable", total=frames, unit="frame", disable=not progress, leave=False) as bar:
            write_video(iter(bar), Path(path), fps=fps)

    def preview(self) -> Float[Tensor, "3 s w"]:
        """The photo's crop beside four views, 90 degrees apart."""
        return preview_image(self.image, self.gaussians, self.camera, self.center)

    def save(self, folder: str | Path, *, video: bool = True, progress: bool = False) -> None:
        """Write ``splats.ply``, ``turntable.mp4``, ``preview.png``, ``body.npz`` and ``report.json``.

        The files of an older result take their place at the end, once all are written; other files of the
        folder stay.

        Args:
            folder: Made if it is missing.
            video: Also write the turntable.
            progress: Show a bar on stderr.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=target) as name:
            temporary = Path(name)
            with self.report.stage("save"):
                self.gaussians.save(temporary / "splats.ply")
                write_body(self.body, self.photo_camera, temporary / "body.npz")
                write_png(to_bytes(self.preview()), temporary / "preview.png")
            if video:
                with self.report.stage("turntable"):
                    self.turntable(temporary / "turntable.mp4", progress=progress)
            self.report.write(temporary / "report.json")
            for file in FILES:
                if (temporary / file).exists():
                    os.replace(temporary / file, target / file)
                else:
                    (target / file).unlink(missing_ok=True)  # an older video would show another result
