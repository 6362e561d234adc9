"""Projection-aware windowed cross-attention: image cells see the body tokens that project near them."""

import importlib.util
import logging
import math
import os
from functools import cache
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from humansplat.errors import UserError
from humansplat.models.windowed_attention import dense, kernel_ops, xformers_attention
from humansplat.models.windowed_attention.sorted_windows import SortedWindows
from humansplat.models.windows import window_mask
from humansplat.structures.base import TensorStruct

Backend = Literal["auto", "dense", "cpu", "triton", "xformers"]

_BACKENDS = get_args(Backend)
_log = logging.getLogger(__name__)
_WIDE_WINDOW = 10.0
"""On the CPU, windows from this size on see so many tokens that a dense product is as fast."""
_SMALLEST_GRID = 64
_TRITON_TYPES = (torch.float32, torch.float16, torch.bfloat16)
_TRITON_DIMS = (1, 256)
_HAS_TRITON = importlib.util.find_spec("triton") is not None  # here, for torch.compile cannot trace the search


class Windows(TensorStruct):
    """Which tokens each query sees, in the form that one implementation wants; serves any number of layers."""

    backend: str
    """Which implementation: one of ``Backend``, never ``auto``."""
    mask: Bool[Tensor, "b v t j"] | None
    """Pairs that see each other, for ``dense`` and ``xformers``."""
    sorted: SortedWindows | None
    """Tokens sorted by place, for ``cpu`` and ``triton``."""
    num_views: int
    """Views whose cells ask."""


def windowed_attention(
    query: Float[Tensor, "b v t h d"],
    key: Float[Tensor, "b j h d"],
    value: Float[Tensor, "b j h d"],
    cells: Float[Tensor, "b v t 2"],
    tokens: Float[Tensor, "b v j 2"],
    inside: Bool[Tensor, "b v j"],
    window: float,
    *,
    backend: Backend = "auto",
    grid: int | None = None,
) -> Float[Tensor, "b v t h d"]:
    r"""Attend from image cells to the body tokens that project into a window around them.

    With :math:`c_i` the centre of query :math:`i`'s cell and :math:`p_j` the projection of token :math:`j` into its
    view, both in cells,

    .. math::
        S_i = \{ j : inside_j, \; \max(|p_{jx} - c_{ix}|, |p_{jy} - c_{iy}|) \le K / 2 \}, \qquad
        o_i = \sum_{j \in S_i} \frac{\exp(q_i \cdot k_j / \sqrt d)}{\sum_{l \in S_i} \exp(q_i \cdot k_l / \sqrt d)} v_j

    and :math:`o_i = 0` where :math:`S_i` is empty. The window is a square of side :math:`K` cells centred on the
    query's cell, for odd and even :math:`K` alike, and for any other positive number; its edges belong to it.
    All implementations give this result up to rounding:

    * ``dense``: masked scaled dot-product attention over all pairs, on any device.
    * ``cpu``: tokens sorted by place, a cost linear in the pairs that see each other; compiled by numba.
    * ``triton``: CUDA kernels over sorted tokens that build neither the mask nor a list of pairs; float32, float16,
      bfloat16, sums in float32.
    * ``xformers``: variable-length block-diagonal attention, where that package is installed.
    * ``auto``: ``triton`` on CUDA (``dense`` where Triton is missing or does not take the inputs), ``cpu`` on the CPU
      unless the window is wide, else ``dense``.

    Gradients reach query, key and value; ``cells``, ``tokens`` and the window choose pairs and get none. On CUDA the
    tokens of one cell, and with them the terms of every sum, are in no fixed order: last bits vary from run to run.

    Args:
        query: One query a cell: batch, view, cell, head, channel.
        key: One key a body token, shared by all views.
        value: Like ``key``.
        cells: Centres of the queries' cells, in cell units (the first cell's is ``(0.5, 0.5)``); any set, in any
            order. A whole grid is the common case.
        tokens: Projections of the body tokens into each view, in cell units.
        inside: Tokens in front of the camera and in the image; others are never seen.
        window: ``K``, side of the window in cells, > 0; ``inf`` lets every inside token be seen.
        backend: Which implementation.
        grid: Cells along a side of the image. For speed only: tokens are sorted into that many rows and columns.
            Taken from the number of queries when not given, at least 64.

    Returns:
        The attended values, in the type of ``query``.

    Raises:
        UserError: If the backend cannot run here, or the window is not positive.

    Reference: Pan et al., "HumanSplat", NeurIPS 2024, section 3.4. To attend several times with the same windows, call
    :func:`plan_windows` once and :func:`attend` for each layer.
    """
    if backend == "auto":
        backend = _choose(query.device, window)
        if backend == "triton" and _triton_refuses(query):
            backend = "dense"
    return attend(query, key, value, plan_windows(cells, tokens, inside, window, backend=backend, grid=grid))


def plan_windows(
    cells: Float[Tensor, "b v t 2"],
    tokens: Float[Tensor, "b v j 2"],
    inside: Bool[Tensor, "b v j"],
    window: float,
    *,
    backend: Backend = "auto",
    grid: int | None = None,
) -> Windows:
    """Find what :func:`attend` needs to know about who sees whom; see :func:`windowed_attention`."""
    if grid is not None and grid < 1:
        raise UserError(f"grid is {grid}; give the number of cells along a side of the image, at least 1")
    if not window > 0:
        raise UserError(f"window is {window}; give the side of the window in cells, a number above 0")
    if backend not in _BACKENDS:
        raise UserError(f"backend is {backend!r}; choose one of {', '.join(_BACKENDS)}")
    if backend == "auto":
        backend = _choose(cells.device, window)
    if not cells.device == tokens.device == inside.device:
        raise UserError(
            f"cells, tokens and inside are on {cells.device}, {tokens.device} and {inside.device}; use one"
        )
    views = cells.shape[1]
    cells, tokens = _plain(cells), _plain(tokens)
    if backend in ("dense", "xformers"):
        if backend == "xformers":
            xformers_attention.require()
        mask = window_mask(cells, tokens, inside, window)
        return Windows(backend=backend, mask=mask, sorted=None, num_views=views)
    _require_device(backend, cells.device)
    if grid is None:
        grid = max(_SMALLEST_GRID, math.isqrt(max(cells.shape[2] - 1, 0)) + 1)
    ordered = kernel_ops.sort_windows(cells, tokens, inside, float(window), grid, backend)  # type: ignore[arg-type]
    return Windows(backend=backend, mask=None, sorted=ordered, num_views=views)


def attend(
    query: Float[Tensor, "b v t h d"],
    key: Float[Tensor, "b j h d"],
    value: Float[Tensor, "b j h d"],
    windows: Windows,
) -> Float[Tensor, "b v t h d"]:
    """Windowed attention with the windows found before; see :func:`windowed_attention`."""
    if not query.dtype == key.dtype == value.dtype:
        raise UserError(f"query, key and value are {query.dtype}, {key.dtype} and {value.dtype}; give one type to all")
    if windows.sorted is not None:
        place = windows.sorted.cells.device
        if not query.device == key.device == value.device == place:  # a kernel would read what is not there
            names = f"{query.device}, {key.device}, {value.device} and {place}"
            raise UserError(f"query, key, value and windows are on {names}; use one device")
        if windows.backend == "triton" and _triton_refuses(query):
            raise UserError(
                f"backend='triton' takes float32, float16 or bfloat16 and at most {_TRITON_DIMS[1]} channels a head, "
                f"not {query.dtype} and {query.shape[-1]}; use backend='dense'"
            )
        return kernel_ops.attend(query, key, value, windows.sorted, windows.backend)  # type: ignore[arg-type]
    assert windows.mask is not None
    if windows.backend == "xformers":
        return xformers_attention.attend(query, key, value, windows.mask)
    return dense.attend(query, key, value, windows.mask)


def _plain(x: Tensor) -> Tensor:
    """In float32 and without a gradient; the tensor itself where it is that already, which is quicker to see."""
    return x if x.dtype == torch.float32 and not x.requires_grad else x.detach().float()


def _choose(device: torch.device, window: float) -> Backend:
    if device.type == "cpu":
        return "cpu" if window < _WIDE_WINDOW else "dense"
    if device.type == "cuda":
        if _HAS_TRITON:
            return "triton"
        _notice("Triton is not installed: windowed attention falls back to a dense mask, which is slower")
    return "dense"


def _require_device(backend: str, device: torch.device) -> None:
    if backend == "cpu" and device.type != "cpu":
        raise UserError(f"backend='cpu' needs tensors on the CPU, not on {device}; use backend='auto'")
    if backend != "triton":
        return
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise UserError(f"backend='triton' needs tensors on a CUDA device, not on {device}; use backend='auto'")
    if not _HAS_TRITON:
        raise UserError("backend='triton' needs the triton package, which is not installed; use backend='dense'")


def _triton_refuses(query: Tensor) -> bool:
    return query.dtype not in _TRITON_TYPES or not _TRITON_DIMS[0] <= query.shape[-1] <= _TRITON_DIMS[1]


@cache
def _notice(message: str) -> None:
    """Log a message the first time only."""
    _log.warning(message)
