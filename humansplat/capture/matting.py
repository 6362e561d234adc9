"""Closed-form matting: the alpha of a band of unknown pixels, from the colours around them.

Levin, Lischinski and Weiss, "A Closed-Form Solution to Natural Image Matting", PAMI 2008: within each
3 x 3 window alpha is taken as an affine function of colour (equation 12). Only windows that touch the
unknown band are built, so the cost follows the length of the silhouette, not the size of the picture.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy import sparse
from scipy.sparse.linalg import cg

# Variance of the colours that counts as noise; JPEG's is about this.
_NOISE_VARIANCE = 2e-5
_TOLERANCE = 2e-3
_MAX_ITERATIONS = 200
_OFFSETS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]


def solve_alpha(
    image: Float[np.ndarray, "h w 3"],
    prior: Float[np.ndarray, "h w"],
    unknown: Bool[np.ndarray, "h w"],
    weight: Float[np.ndarray, "h w"],
) -> Float[np.ndarray, "h w"]:
    """Solve for alpha where it is unknown.

    Args:
        image: sRGB in ``[0, 1]``.
        prior: Alpha as guessed so far, in ``[0, 1]``; kept where ``unknown`` is false.
        unknown: The band to solve for.
        weight: How much the prior counts inside the band, against the smoothness term's unit weight.

    Returns:
        Alpha in ``[0, 1]``.
    """
    height, width = prior.shape
    # The outermost pixels lie in too few windows; repeat them, so that the band may touch the border.
    image, prior, weight = (
        np.pad(a, [(2, 2), (2, 2)] + [(0, 0)] * (a.ndim - 2), "edge") for a in (image, prior, weight)
    )
    unknown = np.pad(unknown, 2)
    index = np.flatnonzero(unknown)
    if index.size == 0:
        return prior[2:-2, 2:-2].clip(0.0, 1.0)
    rows, columns, values = _laplacian_rows(image, unknown, index)
    flat = prior.ravel().astype(np.float64)
    known = ~unknown.ravel()
    is_known = known[columns]
    rhs = weight.ravel()[index] * flat[index]
    rhs -= np.where(is_known, values * flat[columns], 0.0).sum(axis=1)
    place = np.zeros(flat.size, dtype=np.int32)
    place[index] = np.arange(index.size)
    matrix = sparse.csr_array(
        (np.where(is_known, 0.0, values).ravel(), np.where(is_known, 0, place[columns]).ravel(), rows),
        shape=(index.size, index.size),
    ) + sparse.diags_array(weight.ravel()[index].astype(np.float64))
    jacobi = sparse.diags_array(1.0 / np.maximum(matrix.diagonal(), 1e-9))
    solution, _ = cg(matrix, rhs, x0=flat[index], rtol=_TOLERANCE, maxiter=_MAX_ITERATIONS, M=jacobi)
    flat[index] = solution
    alpha = flat.reshape(prior.shape)[2 : 2 + height, 2 : 2 + width]
    return alpha.clip(0.0, 1.0).astype(np.float32)


def _laplacian_rows(
    image: Float[np.ndarray, "h w 3"], unknown: Bool[np.ndarray, "h w"], index: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The matting Laplacian's rows of the unknown pixels.

    Returns:
        Row pointers, and columns and values ``[unknown, 25]``: one for each pixel of the 5 x 5 surroundings.
    """
    width = image.shape[1]
    touched = np.zeros_like(unknown)
    for dy, dx in _OFFSETS:
        touched[1:-1, 1:-1] |= unknown[1 + dy : unknown.shape[0] - 1 + dy, 1 + dx : unknown.shape[1] - 1 + dx]
    centres = np.flatnonzero(touched)
    steps = np.array([dy * width + dx for dy, dx in _OFFSETS])
    members = centres[:, None] + steps  # [windows, 9]
    colors = image.reshape(-1, 3)[members].astype(np.float32)
    colors -= colors.mean(axis=1, keepdims=True)
    covariance = colors.mT @ colors / 9.0 + np.eye(3, dtype=np.float32) * (_NOISE_VARIANCE / 9.0)
    affinity = (1.0 + colors @ np.linalg.inv(covariance) @ colors.mT) / 9.0  # [windows, 9, 9]

    row_of = np.full(unknown.size, -1, dtype=np.int64)
    row_of[index] = np.arange(index.size)
    values = np.zeros((index.size, 25))
    for a, (ay, ax) in enumerate(_OFFSETS):
        row = row_of[members[:, a]]
        inside = row >= 0
        row = row[inside]  # each pixel at most once, so that the sums below lose nothing
        for b, (by, bx) in enumerate(_OFFSETS):
            offset = (by - ay + 2) * 5 + (bx - ax + 2)
            values[row, offset] += float(a == b) - affinity[inside, a, b]
    reach = np.array([dy * width + dx for dy in range(-2, 3) for dx in range(-2, 3)])
    return np.arange(index.size + 1) * 25, index[:, None] + reach, values
