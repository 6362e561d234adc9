"""One photograph -> a Gaussian person: capture, body fit, views, reconstruction."""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float
from torch import Tensor

from humansplat.body.fit_report import BodyFit
from humansplat.body.fit_silhouette import draw_silhouette, overlap
from humansplat.body.models import load_body_model
from humansplat.body.protocol import BodyModel
from humansplat.capture.capture import Capture, capture_person
from humansplat.capture.photo import Photo, Picture, load_photo
from humansplat.errors import UserError
from humansplat.geometry.projection import elevations, orbit, project
from humansplat.io.body_files.load import load_body_file
from humansplat.io.body_files.record import BodyRecord
from humansplat.metrics.image import silhouette_iou
from humansplat.models.autoencoder import PIXEL_CHANNELS, encode_images, on_white
from humansplat.models.conditioning import BodyConditioner
from humansplat.models.latent_reconstructor import LatentReconstructor
from humansplat.pipelines.body_estimation import BodyEstimator
from humansplat.pipelines.crop_cameras import camera_in_crop, camera_in_photo
from humansplat.pipelines.given_body import given_body
from humansplat.pipelines.reconstruction import Reconstruction
from humansplat.pipelines.report import Report
from humansplat.pipelines.second_photo import framed_as, painted
from humansplat.pipelines.weights import (
    LIFTERS,
    VIEW_MODEL,
    WEIGHT_FILE,
    WeightsFolder,
    find_weights,
    load_module,
)
from humansplat.render import render_gaussians
from humansplat.structures import Cameras, Gaussians, PosedBody

if TYPE_CHECKING:
    from humansplat.pipelines.view_synthesis import ViewSynthesizer

Views = Literal["none", "diffusion"]
Device = Literal["auto", "cpu", "cuda"]

MIN_OPACITY = 1 / 255
"""Fainter splats are dropped: no renderer draws an alpha below one step of an 8-bit image."""
MIN_BODY_IOU = 0.5
"""A body given by the user that overlaps the mask less than this is doubted in a warning."""


class Reconstructor:
    """The road from a photo to splats. Every stage can be replaced by the caller's own result.

    Args:
        autoencoder: Makes the latents; ``None`` for weights in pixel space.
        network: Reads them.
        weights: Where both came from.
        device: ``auto`` takes CUDA where there is some.
    """

    def __init__(
        self,
        autoencoder: AutoencoderKL | None,
        network: LatentReconstructor,
        weights: WeightsFolder,
        device: Device = "auto",
    ) -> None:
        self.device = pick_device(device)
        self.autoencoder = None if autoencoder is None else autoencoder.to(self.device).eval()
        self.network = network.to(self.device).eval()
        self.weights = weights
        self.condition = BodyConditioner(
            num_tokens=network.num_body_tokens, map_size=weights.image_size // 2, body=network.body_use
        )
        self._estimator: BodyEstimator | None = None
        self._synthesizer: ViewSynthesizer | None = None  # loaded at first use

    @staticmethod
    def from_pretrained(name_or_dir: str | Path = "small", device: Device = "auto") -> "Reconstructor":
        """Load weights: a folder, the name of weights that ship with the package, or a name on the Hugging Face hub.

        Raises:
            UserError: If there are no such weights, they are damaged, or they do not fit the models.
        """
        weights = find_weights(name_or_dir)
        autoencoder = load_module(AutoencoderKL, weights.path / "vae") if weights.space == "latent" else None
        network = load_module(LatentReconstructor, weights.path / "reconstructor")
        channels = PIXEL_CHANNELS if autoencoder is None else autoencoder.config["latent_channels"]
        if network.config["latent_channels"] != channels:
            raise UserError(
                f"the reconstructor of {weights.path} reads latents of {network.config['latent_channels']} channels, "
                f"those of its {weights.space} space have {channels}; export the weights anew"
            )
        return Reconstructor(autoencoder, network, weights, device)

    @property
    def body_model(self) -> BodyModel:
        """The default body, loaded at first use."""
        return self._body_estimator().model

    def __call__(
        self,
        photo: Picture,
        mask: Picture | None = None,
        body: str | Path | BodyRecord | tuple[PosedBody, Cameras] | None = None,
        views: Views = "none",
        seed: int = 0,
        progress: Callable[[str], None] | None = None,
        back: Picture | None = None,
    ) -> Reconstruction:
        """Reconstruct one person from one photo.

        Args:
            photo: A file of any usual format, a Pillow image, an array or a tensor.
            mask: The person's mask, at the photo's size; found if it is not given.
            body: A body file of this photo (``docs/body-files.md`` lists the formats), or what ``load_body_file`` read
                of one; or an unbatched body and the photo's camera, in the pixels of the upright photo; fitted if it
                is not given.
            views: Where the unseen sides come from: ``none`` leaves them to the reconstruction network,
                ``diffusion`` samples their latents with the view model of the weights.
            seed: Of every sampler; ``none`` samples nothing. The same seed gives the same person.
            progress: Called with the name of each stage as it begins.
            back: A second photo, of the person in the same pose from behind, for ``diffusion``: that view is taken
                from it and not made up, and what can be seen from there gets its colours.

        Raises:
            UserError: If the photo, mask or body cannot be used, or the weights hold no view model, or need one.
        """
        self.check_views(views)
        if back is not None and views != "diffusion":
            raise UserError(
                "a photo of the back is for --views diffusion: give weights with a view model, or leave it"
            )
        tell = progress or (lambda stage: None)
        picture = load_photo(photo)
        report = Report(
            photo=Path(picture.name).name,
            model=self.weights.name,
            weights=dict(self.weights.sha256),
            device=str(self.device),
            views=views,
            seed=seed,
            view_sampling=asdict(self.weights.view_sampling) if views == "diffusion" else None,
        )
        tell("capture")
        with report.stage("capture"):
            capture = capture_person(picture, mask, size=self.weights.image_size)
        report.warnings.extend(capture.warnings)
        tell("body")
        with report.stage("body"):
            posed, camera = self._body(capture, picture, body, report)
        latents = behind = None
        opposite = orbit(camera, posed.joints[0], torch.tensor([math.pi]))[0]
        if views == "diffusion":
            tell("views")
            with report.stage("views"):
                behind = None if back is None else self._behind(back, posed, opposite, report)
                given = None if behind is None else on_white(behind)
                latents = self.view_latents(capture.composited(), camera, seed, given)
        tell("reconstruct")
        with report.stage("reconstruct"):
            splats = self.reconstruct(capture, posed, camera, latents)
            if behind is not None:
                splats = painted(splats, behind, opposite, camera)
            front = camera.map(lambda tensor: tensor[None].to(self.device))
            alpha = render_gaussians(splats, front).alphas[0].cpu()
        report.num_splats = splats.num_splats
        report.silhouette_iou = round(silhouette_iou(alpha, capture.mask).item(), 4)
        return Reconstruction(
            gaussians=splats.to("cpu"),
            body=posed,
            camera=camera,
            photo_camera=camera_in_photo(camera, capture, picture.width, picture.height),
            image=capture.composited(),
            mask=capture.mask,
            report=report,
        )

    def fit(self, capture: Capture) -> BodyFit:
        """The stage that poses the default body as the capture shows."""
        return self._body_estimator()(capture)

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "*batch 4 s s"]) -> Float[Tensor, "*batch c g g"]:
        """The latents of cut-out pictures, sRGB and straight alpha, on the reconstructor's device."""
        pictures = on_white(images.to(self.device))
        latents = encode_images(self.autoencoder, pictures.reshape(-1, *pictures.shape[-3:]))
        return latents.reshape(*pictures.shape[:-3], *latents.shape[-3:])

    def view_latents(
        self,
        photo: Float[Tensor, "3 s s"],
        camera: Cameras,
        seed: int = 0,
        back: Float[Tensor, "3 s s"] | None = None,
    ) -> Float[Tensor, "1 v c g g"]:
        """The stage that makes up what the photo does not show: the photo's latent, then those of the other views.

        Args:
            photo: Before white, at the weights' image size.
            camera: Of the crop, unbatched; its elevation is that of all views.
            seed: Of the noise that the views begin as.
            back: The person from behind, as ``photo``, if there is such a picture.

        Raises:
            UserError: If the weights hold no view model, or one that does not load.
        """
        self.check_views("diffusion")
        if self._synthesizer is None:
            self._synthesizer = self._load_synthesizer()
        how, elevation = self.weights.view_sampling, elevations(camera).item()
        made = self._synthesizer(
            photo[None],
            given=None if back is None else {self.network.num_views // 2: back[None]},
            elevations=[elevation] * self.network.num_views,
            seeds=[seed],
            num_steps=how.num_steps,
            sampler=how.sampler,
            guidance=how.guidance,
            sigma_max=how.sigma_max,
            sigma_min=how.sigma_min,
            decode=False,
        )
        return made.latents

    @torch.no_grad()
    def splats(
        self,
        images: Float[Tensor, "b 4 s s"],
        cameras: Cameras,
        body: PosedBody,
        latents: Float[Tensor, "b v c g g"] | None = None,
    ) -> Gaussians:
        """The networks alone: cut-out pictures and bodies to splats.

        Args:
            images: sRGB and straight alpha, of the weights' image size.
            cameras: ``[b, v]``: of each picture, and those that complete the network's views.
            body: Vertices ``[b, v, 3]``, in the cameras' world.
            latents: Of those four views, the photo's first, for weights that were trained with four;
                ``None`` encodes the picture.

        Returns:
            Splats ``[b, n]``, on the reconstructor's device.
        """
        size = self.weights.image_size
        if images.shape[-2:] != (size, size) or (cameras.width, cameras.height) != (size, size):
            raise ValueError(
                f"the weights {self.weights.name!r} take pictures of {size} x {size} px, got "
                f"{images.shape[-1]} x {images.shape[-2]} and cameras of {cameras.width} x {cameras.height}"
            )
        images, cameras, body = images.to(self.device), cameras.to(self.device), body.to(self.device)
        latents = self.encode(images)[:, None] if latents is None else latents.to(self.device)
        return self.network(latents, images, cameras, body, *self.condition(body, cameras))

    def check_views(self, views: Views) -> None:
        """Refuse what the weights cannot do.

        Raises:
            UserError: If they hold no view model, or need one.
        """
        weights = self.weights
        if views not in get_args(Views):
            raise UserError(f"there is no way {views!r} to get views; use 'none' or 'diffusion'")
        if views == "diffusion" and not weights.has_view_model:
            raise UserError(
                f"the weights {weights.name!r} hold no view model (no folder {VIEW_MODEL!r}); use --views none"
            )
        if views == "diffusion" and (weights.num_inputs == 1 or self.autoencoder is None):
            raise UserError(
                f"the reconstructor of the weights {weights.name!r} was not trained with the latents of four views; "
                "use --views none"
            )
        if views == "none" and not weights.photo_alone:
            remedy = "use --views diffusion" if weights.has_view_model else "give weights that hold a view model"
            raise UserError(
                f"the weights {weights.name!r} want the latents of {weights.num_inputs} views, and a view model makes "
                f"those of the unseen ones; {remedy}"
            )

    def _behind(self, back: Picture, body: PosedBody, camera: Cameras, report: Report) -> Float[Tensor, "4 s s"]:
        """The second photo's person, sRGB and straight alpha, framed as a camera behind the body would."""
        picture = load_photo(back)
        seen = capture_person(picture, None, size=self.weights.image_size)
        report.back = Path(picture.name).name
        report.warnings.extend(f"{report.back}: {warning}" for warning in seen.warnings)
        pixels, _ = project(body.vertices, camera.viewmats, camera.Ks)
        outline = draw_silhouette(pixels, body.faces, self.weights.image_size)
        return framed_as(torch.cat([seen.image, seen.mask[None]]), outline)

    def _load_synthesizer(self) -> "ViewSynthesizer":
        from humansplat.models.sv3d import load_sv3d  # only who diffuses needs the libraries behind it
        from humansplat.pipelines.view_synthesis import ViewSynthesizer

        assert self.autoencoder is not None
        # The sampler's sums and the autoencoder, which is the reconstructor's, too, stay float32.
        dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        model = load_sv3d(self.weights.path / VIEW_MODEL, dtype).to(self.device)
        parts = model.unet, model.image_encoder, self.autoencoder
        synthesizer = ViewSynthesizer(*parts, model.image_mean, model.image_std)
        if self.device.type == "cuda":
            synthesizer.use_cuda_graphs()
        return synthesizer

    def _body_estimator(self) -> BodyEstimator:
        if self._estimator is None:
            self._estimator = BodyEstimator(load_body_model())
        return self._estimator

    def _body(
        self,
        capture: Capture,
        picture: Photo,
        given: str | Path | BodyRecord | tuple[PosedBody, Cameras] | None,
        report: Report,
    ) -> tuple[PosedBody, Cameras]:
        """The posed body and the crop's camera: fitted, or as the caller gave them."""
        fitter = self._body_estimator()
        if given is None:
            fit = self.fit(capture)
            report.warnings.extend(fit.warnings)
            report.weights[f"{LIFTERS}/{WEIGHT_FILE}"] = self._body_estimator().lifter_sha256
            report.landmark_error_px = round(fit.landmark_error_px, 3)
            report.landmark_error_fraction = round(fit.landmark_error_fraction, 5)
            report.body_silhouette_iou = round(fit.silhouette_iou, 4)
            return fit.body, fit.camera
        if isinstance(given, tuple):
            body, of_photo = given
            camera = camera_in_crop(of_photo.resized(picture.width, picture.height), capture)
        else:
            if not isinstance(given, BodyRecord):
                given = load_body_file(given, template=fitter.model.pose({}))
            placed = given_body(given, capture, (picture.width, picture.height), lambda: self.fit(capture))
            body, camera = placed.body, placed.camera
            report.warnings.extend(placed.warnings)
        pixels, _ = project(body.vertices, camera.viewmats, camera.Ks)
        drawn = draw_silhouette(pixels, body.faces, self.weights.image_size)
        report.body_silhouette_iou = round(overlap(drawn, capture.mask > 0.5), 4)
        if report.body_silhouette_iou < MIN_BODY_IOU:
            report.warnings.append(
                f"the given body covers the person badly (overlap {report.body_silhouette_iou:.2f}); "
                "its camera must be that of this photo"
            )
        return body, camera

    def reconstruct(
        self,
        capture: Capture,
        body: PosedBody,
        camera: Cameras,
        latents: Float[Tensor, "1 v c g g"] | None = None,
    ) -> Gaussians:
        """The last stage: one capture to splats.

        Args:
            capture: At the weights' image size.
            body: Unbatched.
            camera: Of the crop, unbatched.
            latents: Of the views that :meth:`view_latents` made; ``None``: the photo's alone.

        Returns:
            Unbatched, those too faint to be seen left out; on the reconstructor's device.
        """
        turns = torch.arange(self.network.num_views) * (2 * math.pi / self.network.num_views)
        cameras = orbit(camera, body.joints[0], turns).map(lambda tensor: tensor[None])
        image = torch.cat([capture.image, capture.mask[None]])
        splats = self.splats(image[None], cameras, batched(body), latents)[0]
        return splats.where(splats.opacities >= MIN_OPACITY)


def batched(body: PosedBody) -> PosedBody:
    """One body as a batch of one; what all bodies of a model share has no batch axis."""
    return replace(
        body,
        vertices=body.vertices[None],
        joints=body.joints[None],
        parameters=body.parameters and {name: value[None] for name, value in body.parameters.items()},
    )


def pick_device(name: Device) -> torch.device:
    """The device that the user means.

    Raises:
        UserError: If there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda needs an NVIDIA GPU that torch can use; take --device cpu")
    return torch.device(name)
