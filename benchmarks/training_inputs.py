"""Made-up people in the device's memory, and an autoencoder of Stable Diffusion's size: what a training step is fed.

The bodies are the default body's in random poses and shapes, the cameras those of the data's rig, the pictures
random colours with the body's silhouette as alpha. Nothing is read from disk, and nothing is learned from it.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from humansplat.body.anny import AnnyBody
from humansplat.data.dataset import PeoplePool
from humansplat.data.people import BodyTemplate
from humansplat.data.person_files import PersonTensors
from humansplat.data.rig import draw_rig
from humansplat.models.autoencoder import build_autoencoder, stable_diffusion_autoencoder
from humansplat.render.body_maps import SurfaceSamples, rasterize_body, sample_surface
from humansplat.structures import Cameras, PosedBody

NUM_NOVEL = 12
NUM_CLOSEUPS = 2


def made_up_pool(num_people: int, image_size: int, device: torch.device) -> PeoplePool:
    """A full pool of people who are on no disk."""
    body = AnnyBody.load()
    pool = PeoplePool(Path("made-up"), BodyTemplate.of(body), capacity=num_people, device=device)
    samples = sample_surface(body.canonical, body.faces).to(device)
    for seed in range(num_people):
        pool._store(_person(body, samples, seed, image_size, device))
    return pool


def _person(body: AnnyBody, samples: SurfaceSamples, seed: int, size: int, device: torch.device) -> PersonTensors:
    generator = torch.Generator().manual_seed(seed)
    posed = _posed(body, generator)
    rng = np.random.default_rng(seed)
    cameras = draw_rig(posed.vertices.numpy(), rng, size, NUM_NOVEL, NUM_CLOSEUPS)[0]
    pictures = _pictures(posed, cameras, samples, generator, device)
    return PersonTensors(name=f"person-{seed}", images=pictures, cameras=cameras, body=posed)


def _posed(body: AnnyBody, generator: torch.Generator) -> PosedBody:
    """Standing somehow: the root over the origin, the lowest vertex on the ground."""
    parameters = body.neutral()
    spread = 0.1 * torch.randn(parameters["phenotypes"].shape, generator=generator)
    parameters["phenotypes"] = (parameters["phenotypes"] + spread).clamp(0, 1)
    parameters["rotations"] = 0.15 * torch.randn(parameters["rotations"].shape, generator=generator)
    parameters["rotations"][0] = 0.0
    parameters["translation"] = torch.zeros(3)
    with torch.no_grad():
        lowest = body(**parameters).vertices[:, 1].amin()
        parameters["translation"][1] = -lowest
        return body(**parameters)


def _pictures(
    posed: PosedBody, cameras: Cameras, samples: SurfaceSamples, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Straight alpha, ``[v, 4, h, w]``, bytes."""
    size = cameras.width
    one = replace(posed, vertices=posed.vertices[None], joints=posed.joints[None], parameters=None).to(device)
    views = cameras.to(device).map(lambda x: x[None])
    hit = rasterize_body(one, views, samples, size=size // 2).hit[0, :, None].float()
    alpha = F.interpolate(hit, size=(size, size), mode="bilinear")
    colors = torch.rand(len(alpha), 3, 8, 8, generator=generator).to(device)
    colors = F.interpolate(colors, size=(size, size), mode="bilinear")
    return (torch.cat([colors, alpha], dim=1) * 255).byte().cpu()


def write_autoencoder(folder: Path, *, tiny: bool) -> None:
    """An untrained autoencoder: Stable Diffusion's architecture, or the least that works."""
    torch.manual_seed(0)
    autoencoder = build_autoencoder((16, 16, 16, 16)) if tiny else stable_diffusion_autoencoder()
    autoencoder.save_pretrained(folder)
