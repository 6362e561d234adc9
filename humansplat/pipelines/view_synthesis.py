"""From a photo to the other sides of the person: SV3D as a diffusers pipeline.

Moving it to a device and offload to the CPU are diffusers' own (``pipeline.to``, ``enable_model_cpu_offload``,
``enable_sequential_cpu_offload``). :meth:`ViewSynthesizer.use_cuda_graphs` makes the host's share of the time small.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import torch
from diffusers import DiffusionPipeline
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from humansplat.errors import UserError
from humansplat.models.autoencoder import decode_latents, encode_images
from humansplat.models.edm import SIGMA_MAX, Denoise
from humansplat.models.edm_sampling import (
    Sampler,
    guidance_by_angle,
    guided,
    placed,
    sample,
    unit_noise,
    with_known,
)
from humansplat.models.loading import load_part
from humansplat.models.sv3d import CLIP_MEAN, CLIP_STD, SV3D, check_latents, load_sv3d
from humansplat.models.sv3d_unet import SV3DUNet, ViewConditions
from humansplat.pipelines.cuda_graphs import CudaGraphs, Function
from humansplat.pipelines.weights import ViewSampling, view_sampling
from humansplat.structures.base import TensorStruct

SAMPLING = ViewSampling(num_steps=25, sampler="dpm", guidance=(1.0, 2.5), sigma_max=SIGMA_MAX)
"""Of weights that state nothing."""
ORTHOGONAL = (0.0, math.pi / 2, math.pi, 3 * math.pi / 2)
"""Azimuths of the four views that the reconstruction takes, radians; the photo's first."""


class SynthesizedViews(TensorStruct):
    """Views of a person; the first is the photo's own."""

    latents: Float[Tensor, "b v c g g2"]
    """As the autoencoder's ``scaling_factor`` has it; the first view's are the photo's, not generated."""
    images: Float[Tensor, "b v 3 h w"] | None
    """sRGB in [0, 1]; the first view is the photo itself. None if they were not asked for."""


class ViewSynthesizer(DiffusionPipeline):
    """Generate latents and pictures of a person from other sides.

    Args:
        unet: SV3D's network.
        image_encoder: Embeds the photo.
        vae: Makes the latents; its ``scaling_factor`` must be the UNet's ``latent_scaling``.
        image_mean: Of the image encoder's input.
        image_std: Of the image encoder's input.

    Raises:
        ValueError: If the parts do not go together.
    """

    model_cpu_offload_seq = "vae->image_encoder->unet"

    def __init__(
        self,
        unet: SV3DUNet,
        image_encoder: CLIPVisionModelWithProjection,
        vae: AutoencoderKL,
        image_mean: tuple[float, ...] | list[float] = CLIP_MEAN,
        image_std: tuple[float, ...] | list[float] = CLIP_STD,
    ) -> None:
        super().__init__()
        check_latents(unet, vae)
        self.register_modules(unet=unet, image_encoder=image_encoder, vae=vae)
        self.register_to_config(image_mean=list(image_mean), image_std=list(image_std))
        self.model = SV3D(unet, image_encoder, tuple(image_mean), tuple(image_std))
        self._graphs: CudaGraphs | None = None

    @classmethod
    def from_folder(cls, folder: Path, dtype: torch.dtype = torch.float32) -> "ViewSynthesizer":
        """Load ``unet/``, ``image_encoder/`` and ``vae/`` strictly, from ours or a folder published for SV3D.

        Raises:
            UserError: If files are missing or tensors do not fit.
        """
        model = load_sv3d(folder, dtype)
        vae = load_part(AutoencoderKL, folder / "vae", dtype)
        return cls(model.unet, model.image_encoder, vae, model.image_mean, model.image_std)

    def use_cuda_graphs(self, most: int = 8) -> None:
        """Replay the networks that make the latents from CUDA graphs, from the next call on, with the same results.

        A GPU that waits for the host's thousands of launches waits no longer. The first call of each setting (sizes,
        guidance or none, one pass or two) takes as long as three steps more. All networks must be on one CUDA
        device, without offload. Moving the pipeline to another gives the graphs up, and they are recorded anew there;
        moving it to the CPU, which offload does, ends their use. The UNet's weights are laid channels last, as its
        kernels like them, and stay so.

        Args:
            most: Graphs that are kept, two or more, of three a setting; the memory that they work in is shared.

        Raises:
            UserError: If the networks are not on a CUDA device, or fewer than two graphs are to be kept.
        """
        self._graphs = CudaGraphs(self.device, most)
        self.unet.channels_last()

    def release_cuda_graphs(self) -> None:
        """Undo :meth:`use_cuda_graphs`, and free its memory."""
        self._graphs = None

    def to(self, *args: object, **kwargs: object) -> "ViewSynthesizer":
        """Move or cast all networks, see diffusers' ``DiffusionPipeline.to``; recorded graphs are given up."""
        most = None if self._graphs is None else self._graphs.most
        self.release_cuda_graphs()
        moved = super().to(*args, **kwargs)
        if most is not None and self.device.type == "cuda":
            self.use_cuda_graphs(most)
        return moved

    @torch.no_grad()
    def __call__(
        self,
        image: Float[Tensor, "b 3 h w"],
        azimuths: Sequence[float] = ORTHOGONAL,
        elevations: Sequence[float] | Float[Tensor, "b v"] | None = None,
        *,
        given: Mapping[int, Float[Tensor, "b 3 h w"]] | None = None,
        seeds: Sequence[int] = (0,),
        num_steps: int | None = None,
        sampler: Sampler | None = None,
        guidance: tuple[float, float] | None = None,
        sigma_max: float | None = None,
        sigma_min: float | None = None,
        decode: bool = True,
        one_pass: bool = True,
    ) -> SynthesizedViews:
        """Generate the views of one or more photos.

        Args:
            image: sRGB in [0, 1], the person before a white background.
            azimuths: Of the views from the photo's, radians; the first is 0, the photo's own.
            elevations: Of the views, radians, the same for all photos or each photo's own; None: all level.
            given: Photos of other views, by their places among the azimuths: taken as they are, like the first, and
                the others are made to go with them.
            seeds: One for each photo, or one for all. A photo's views depend on its own seed only.
            num_steps: Noise levels. This and the next four are, where they are None, what the weights state if they
                were distilled, otherwise those of :data:`SAMPLING`.
            sampler: ``euler``, ``heun`` (two evaluations a step) or ``dpm``.
            guidance: At the front and at the back; in between by angle. Equal to 1 both: the network runs once.
            sigma_max: Highest noise level.
            sigma_min: Lowest above 0.
            decode: Make pictures too.
            one_pass: Run the network's two branches of guidance in one batch; otherwise one after the other, in
                less memory.

        Raises:
            UserError: If the views do not begin with the photo's, there is no such sampler, or numbers do not fit.
        """
        device = self._execution_device
        elevation = torch.as_tensor([0.0] * len(azimuths) if elevations is None else elevations, device=device)
        seeds = list(seeds) * len(image) if len(seeds) == 1 else list(seeds)
        if not azimuths or azimuths[0] != 0 or elevation.shape[-1] != len(azimuths):
            raise UserError(
                f"azimuths {tuple(azimuths)} and {elevation.shape[-1]} elevations must be as many, and the first "
                "azimuth 0, the photo's"
            )
        wrong = [view for view in given or {} if not 0 < view < len(azimuths)]
        if wrong:
            raise UserError(
                f"photos are given of views {wrong}, but there are views 1 to {len(azimuths) - 1} beside the first"
            )
        if len(seeds) != len(image):
            raise UserError(f"{len(seeds)} seeds for {len(image)} photos; give one for each, or one for all")
        how = self._sampling(
            num_steps=num_steps, sampler=sampler, guidance=guidance, sigma_max=sigma_max, sigma_min=sigma_min
        )
        self._check_graphs()
        photo = image.to(device)
        photos = {0: photo} | {view: other.to(device) for view, other in (given or {}).items()}
        known = {view: self._encode(one) for view, one in photos.items()}
        azimuth = torch.tensor(azimuths, device=device).expand(len(image), -1)
        elevation = elevation.float().expand(len(image), -1)
        embedding = self._run("embed", self.image_encoder, self.model.embed_photo, photo)
        conditions = self.model.to_conditions(known[0], photo, azimuth, elevation, embedding)
        scale = guidance_by_angle(azimuth, *how.guidance)
        denoise = self._denoiser(conditions, scale, how.guidance != (1.0, 1.0), one_pass)
        noise = unit_noise(seeds, (len(azimuths), *known[0].shape[1:]), device)
        latents = placed(sample(with_known(denoise, known), noise, how.sigmas(), how.sampler), known)
        images = self._decode(latents, photos) if decode else None
        self.maybe_free_model_hooks()
        return SynthesizedViews(latents=latents, images=images)

    def _sampling(self, **asked: object) -> ViewSampling:
        chosen = {name: value for name, value in asked.items() if value is not None}
        if chosen.get("sampler", SAMPLING.sampler) not in get_args(Sampler):
            raise UserError(f"there is no sampler {chosen['sampler']!r}; use one of {', '.join(get_args(Sampler))}")
        return dataclasses.replace(stated_sampling(self.unet) or SAMPLING, **chosen)  # type: ignore[arg-type]

    def _denoiser(self, given: ViewConditions, scale: Tensor, is_guided: bool, one_pass: bool) -> Denoise:
        model, names = self.model, [field.name for field in dataclasses.fields(given)]

        def estimate(noised: Tensor, sigma: Tensor, scale: Tensor, *told: Tensor) -> Tensor:
            given = ViewConditions(**dict(zip(names, told, strict=True)))
            if not is_guided:
                return model.denoise_given(noised, sigma, given)
            bare = given.without_photo()
            if one_pass:
                both = torch.cat([noised, noised]), torch.cat([sigma, sigma]), given.joined(bare)
                full, without = model.denoise_given(*both).chunk(2)
            else:
                full, without = (model.denoise_given(noised, sigma, branch) for branch in (given, bare))
            return guided(full, without, scale)

        told = [getattr(given, name) for name in names]
        return lambda noised, sigma: self._run((is_guided, one_pass), self.unet, estimate, noised, sigma, scale, *told)

    def _run(self, name: object, network: torch.nn.Module, function: Function, *arguments: Tensor) -> Tensor:
        """A function that runs one of the networks, from its graph if they are in use."""
        if self._graphs is None:
            return function(*arguments)
        return self._graphs.run((name, next(network.parameters()).data_ptr()), function, *arguments)

    def _check_graphs(self) -> None:
        parts = (self.unet, self.image_encoder, self.vae)
        if self._graphs is not None and any(
            hasattr(part, "_hf_hook") or next(part.parameters()).device != self._graphs.device for part in parts
        ):
            raise UserError(
                f"CUDA graphs are in use, but not all networks stay on {self._graphs.device}: move the pipeline there "
                "without offload, or call release_cuda_graphs()"
            )

    def _encode(self, photo: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c g g2"]:
        def encode(picture: Tensor) -> Tensor:
            return encode_images(self.vae, picture.to(self.vae.dtype)).float()

        return self._run("encode", self.vae, encode, photo)

    def _decode(
        self, latents: Float[Tensor, "b v c g g2"], photos: Mapping[int, Float[Tensor, "b 3 h w"]]
    ) -> Float[Tensor, "b v 3 h w"]:
        # One view at a time: the decoder's memory is the picture's, and a view is work enough for a device.
        views = [
            photos[place] if place in photos else decode_latents(self.vae, view.to(self.vae.dtype)).float()
            for place, view in enumerate(latents.unbind(1))
        ]
        return torch.stack(views, dim=1)


def stated_sampling(unet: SV3DUNet) -> ViewSampling | None:
    """How a distilled network states that it is to be sampled; None of one that can be sampled anyhow.

    Raises:
        UserError: If what its configuration states is no such thing.
    """
    stated = unet.config.get("sampling")
    return None if stated is None else view_sampling(stated, "the UNet's config.json, sampling")
