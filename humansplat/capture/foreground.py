"""The person's own colours at soft edges, freed from the background that shines through."""

import numpy as np
from jaxtyping import Float
from PIL import Image

# Weight of the colours' smoothness; rises with the alpha gradient (Germer et al. 2020, equation 5).
_SMOOTHNESS = 5e-3
_GRADIENT_WEIGHT = 0.1
_COARSE_ITERATIONS = 8
_FINE_ITERATIONS = 3


def estimate_foreground(
    image: Float[np.ndarray, "h w 3"], alpha: Float[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w 3"]:
    """Split ``image = alpha * foreground + (1 - alpha) * background`` and return the foreground.

    Coarse to fine, as in Germer, Uelwer, Conrad and Harmeling, "Fast Multi-Level Foreground Estimation",
    ICPR 2020. Where alpha is 0 the foreground is a smooth continuation.

    Args:
        image: sRGB in ``[0, 1]``.
        alpha: In ``[0, 1]``.
    """
    height, width = alpha.shape
    sizes = [(height, width)]
    while max(sizes[-1]) > 2:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    alphas = [alpha]
    images = [image]
    for size in sizes[1:]:
        alphas.append(_resized(alphas[-1], size))
        images.append(np.stack([_resized(images[-1][..., c], size) for c in range(3)], axis=-1))
    mean_front = (image * alpha[..., None]).sum((0, 1)) / max(float(alpha.sum()), 1e-6)
    mean_back = (image * (1 - alpha[..., None])).sum((0, 1)) / max(float((1 - alpha).sum()), 1e-6)
    front = np.broadcast_to(mean_front, (*sizes[-1], 3)).astype(np.float32)
    back = np.broadcast_to(mean_back, (*sizes[-1], 3)).astype(np.float32)
    for size, level_alpha, level_image in zip(sizes[::-1], alphas[::-1], images[::-1], strict=True):
        front, back = _nearest(front, size), _nearest(back, size)
        iterations = _COARSE_ITERATIONS if max(size) <= 64 else _FINE_ITERATIONS
        for _ in range(iterations):
            front, back = _relax(level_image, level_alpha, front, back)
    return front


def _relax(
    image: Float[np.ndarray, "h w 3"],
    alpha: Float[np.ndarray, "h w"],
    front: Float[np.ndarray, "h w 3"],
    back: Float[np.ndarray, "h w 3"],
) -> tuple[Float[np.ndarray, "h w 3"], Float[np.ndarray, "h w 3"]]:
    """Solve each pixel's two colours with its neighbours' held fixed."""
    total = np.zeros_like(alpha)
    front_sum, back_sum = np.zeros_like(front), np.zeros_like(back)
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        near = _shifted(alpha, axis, step)
        weight = _SMOOTHNESS + _GRADIENT_WEIGHT * np.abs(alpha - near)
        total += weight
        front_sum += weight[..., None] * _shifted(front, axis, step)
        back_sum += weight[..., None] * _shifted(back, axis, step)
    a, total = alpha[..., None], total[..., None]
    front_mean, back_mean = front_sum / total, back_sum / total
    # The 2 x 2 system's solution: the neighbours' means, moved to explain what they leave of the pixel.
    rest = (image - a * front_mean - (1 - a) * back_mean) / (a * a + (1 - a) ** 2 + total)
    return (front_mean + a * rest).clip(0, 1), (back_mean + (1 - a) * rest).clip(0, 1)


def _shifted(values: np.ndarray, axis: int, step: int) -> np.ndarray:
    """Neighbours along an axis; the border repeats itself."""
    index = np.clip(np.arange(values.shape[axis]) + step, 0, values.shape[axis] - 1)
    return np.take(values, index, axis=axis)


def _resized(values: Float[np.ndarray, "h w"], size: tuple[int, int]) -> Float[np.ndarray, "a b"]:
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BOX))


def _nearest(values: Float[np.ndarray, "h w 3"], size: tuple[int, int]) -> Float[np.ndarray, "a b 3"]:
    rows = np.arange(size[0]) * values.shape[0] // size[0]
    columns = np.arange(size[1]) * values.shape[1] // size[1]
    return values[rows][:, columns]
