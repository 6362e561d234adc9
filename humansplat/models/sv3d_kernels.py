"""Triton kernels of SV3D's network on a GPU: what PyTorch does in several passes over memory.

Group norm of pictures that lie channels last, which PyTorch's does not take as they are, with what a residual block
adds before it and the SiLU behind it; layer norm with the sums before it; the gate of a feed-forward layer; attention
over a handful of views, where the tiles of the usual kernels would be nearly empty. Sums are float32, in an order that
does not depend on timing. These functions give no gradients; those of ``sv3d_gradients`` do.
"""

# mypy: ignore-errors
from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from humansplat.models.windowed_attention.triton_direct import on_device_of

_CHANNELS = 64
"""That a program of the norm takes together."""
_ROWS = 256
"""That a program of the norm's sums takes, in tiles."""


@triton.jit
@no_type_check
def load_sum(
    x, added, place, known, segment, row, channel, rows, rows_per_added, channels, has_added: tl.constexpr
):  # fmt: skip
    """Rows of pictures with what is added to them, as float32."""
    value = tl.load(x + place, mask=known, other=0.0).to(tl.float32)
    if has_added:
        of = (segment * (rows // rows_per_added) + row // rows_per_added)[:, None] * channels + channel[None, :]
        value += tl.load(added + of, mask=known, other=0.0).to(tl.float32)
    return value


@triton.jit(do_not_specialize=["parts"])  # here and below: one compiled kernel for all sizes, as far as it goes
@no_type_check
def _sum_rows(
    x, added, sums, rows, rows_per_added, channels, parts,
    has_added: tl.constexpr, span: tl.constexpr, tile: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """Sums and sums of squares of each channel over ``span`` rows of a segment."""
    segment, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    channel = tl.program_id(2) * width + tl.arange(0, width)
    inside = channel < channels
    total, squares = tl.zeros((width,), tl.float32), tl.zeros((width,), tl.float32)
    for start in range(0, span, tile):
        row = part * span + start + tl.arange(0, tile)
        known = (row < rows)[:, None] & inside[None, :]
        place = (segment * rows + row)[:, None] * channels + channel[None, :]
        value = load_sum(x, added, place, known, segment, row, channel, rows, rows_per_added, channels, has_added)
        total += tl.sum(value, 0)
        squares += tl.sum(value * value, 0)
    place = (segment * parts + part) * 2 * channels + channel
    tl.store(sums + place, total, mask=inside)
    tl.store(sums + place + channels, squares, mask=inside)


@triton.jit
@no_type_check
def add_parts(sums, segment, channel, inside, channels, parts, tile: tl.constexpr, width: tl.constexpr):
    """Both sums of each channel over a segment's parts, still in ``tile`` rows."""
    first, second = tl.zeros((tile, width), tl.float32), tl.zeros((tile, width), tl.float32)
    for start in range(0, parts, tile):
        part = start + tl.arange(0, tile)
        known = (part < parts)[:, None] & inside[None, :]
        place = (segment * parts + part)[:, None] * 2 * channels + channel[None, :]
        first += tl.load(sums + place, mask=known, other=0.0)
        second += tl.load(sums + place + channels, mask=known, other=0.0)
    return first, second


@triton.jit(do_not_specialize=["parts", "group_width"])
@no_type_check
def _to_scale(
    sums, weight, bias, scales, channels, parts, group_width, count, eps,
    tile: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """Factor and offset of each channel of a group, from its sums; and its mean and inverse deviation."""
    segment, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    within = tl.arange(0, width)
    channel, inside = group * group_width + within, within < group_width
    total, squares = add_parts(sums, segment, channel, inside, channels, parts, tile, width)
    mean = tl.sum(tl.sum(total, 1), 0) / count
    variance = tl.maximum(tl.sum(tl.sum(squares, 1), 0) / count - mean * mean, 0.0)
    inverse, nothing = tl.rsqrt(variance + eps), tl.zeros((width,), tl.float32)
    factor = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32) * inverse
    offset = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32) - mean * factor
    place = segment * 4 * channels + channel
    tl.store(scales + place, factor, mask=inside)
    tl.store(scales + place + channels, offset, mask=inside)
    tl.store(scales + place + 2 * channels, nothing + mean, mask=inside)
    tl.store(scales + place + 3 * channels, nothing + inverse, mask=inside)


@triton.jit
@no_type_check
def _apply_scale(
    x, added, scales, out, rows, rows_per_added, channels,
    has_added: tl.constexpr, silu: tl.constexpr, tile: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    segment = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * tile + tl.arange(0, tile)
    channel = tl.program_id(2) * width + tl.arange(0, width)
    inside = channel < channels
    known = (row < rows)[:, None] & inside[None, :]
    place = (segment * rows + row)[:, None] * channels + channel[None, :]
    value = load_sum(x, added, place, known, segment, row, channel, rows, rows_per_added, channels, has_added)
    factor = tl.load(scales + segment * 4 * channels + channel, mask=inside, other=0.0)
    offset = tl.load(scales + (segment * 4 + 1) * channels + channel, mask=inside, other=0.0)
    value = value * factor[None, :] + offset[None, :]
    if silu:
        value = value * tl.sigmoid(value)
    tl.store(out + place, value.to(out.dtype.element_ty), mask=known)


@triton.jit
@no_type_check
def _gate(x, out, rows, half, tile: tl.constexpr, width: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * tile + tl.arange(0, tile)
    channel = tl.program_id(1) * width + tl.arange(0, width)
    inside = (row < rows)[:, None] & (channel < half)[None, :]
    place = row[:, None] * (2 * half) + channel[None, :]
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(x + place + half, mask=inside, other=0.0).to(tl.float32)
    result = value * (0.5 * gate * (1 + tl.erf(gate * 0.7071067811865476)))
    tl.store(out + row[:, None] * half + channel[None, :], result.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows_per_extra", "extras"])
@no_type_check
def _sum_norm(
    tokens, change, extra, weight, bias, total, normed, rows, rows_per_extra, extras, channels, eps,
    has_extra: tl.constexpr, has_change: tl.constexpr, tile: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    row, channel = tl.program_id(0) * tile + tl.arange(0, tile), tl.arange(0, width)
    inside = channel < channels
    known = (row < rows)[:, None] & inside[None, :]
    place = row.to(tl.int64)[:, None] * channels + channel[None, :]
    value = tl.load(tokens + place, mask=known, other=0.0).to(tl.float32)
    if has_change:
        value += tl.load(change + place, mask=known, other=0.0).to(tl.float32)
    if has_extra:
        of = (row // rows_per_extra % extras)[:, None] * channels + channel[None, :]
        value += tl.load(extra + of, mask=known, other=0.0).to(tl.float32)
    rounded = value.to(total.dtype.element_ty)
    if has_extra or has_change:
        tl.store(total + place, rounded, mask=known)
    value = rounded.to(tl.float32)
    value = tl.where(known, value - (tl.sum(value, 1) / channels)[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(value * value, 1) / channels + eps)
    factor = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    offset = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    result = value * scale[:, None] * factor[None, :] + offset[None, :]
    tl.store(normed + place, result.to(normed.dtype.element_ty), mask=known)


@triton.jit
@no_type_check
def _attend_views(
    query, key, value, out, pixels, heads, scale,
    views: tl.constexpr, padded: tl.constexpr, dim: tl.constexpr, width: tl.constexpr, tile: tl.constexpr,
):  # fmt: skip
    """All views of ``tile`` pixels, one head; a running softmax over the views."""
    head, pixel = tl.program_id(0) % heads, tl.program_id(0) // heads * tile + tl.arange(0, tile)
    batch, channel, view = tl.program_id(1).to(tl.int64), tl.arange(0, width), tl.arange(0, padded)
    known = (pixel < pixels)[:, None] & (channel < dim)[None, :]
    within = (pixel[:, None] * heads + head) * dim + channel[None, :]
    row = pixels * heads * dim
    every = known[None, :, :] & (view < views)[:, None, None]
    places = (batch * views + view)[:, None, None] * row + within[None, :, :]
    asked = tl.load(query + places, mask=every, other=0.0).to(tl.float32) * (scale * 1.4426950408889634)
    highest = tl.full((padded, tile), float("-inf"), tl.float32)
    mass = tl.zeros((padded, tile), tl.float32)
    result = tl.zeros((padded, tile, width), tl.float32)
    for other in range(views):
        place = (batch * views + other) * row + within
        k = tl.load(key + place, mask=known, other=0.0).to(tl.float32)
        v = tl.load(value + place, mask=known, other=0.0).to(tl.float32)
        logit = tl.sum(asked * k[None, :, :], 2)
        higher = tl.maximum(highest, logit)
        weight, fade = tl.exp2(logit - higher), tl.exp2(highest - higher)
        mass = mass * fade + weight
        result = result * fade[:, :, None] + weight[:, :, None] * v[None, :, :]
        highest = higher
    tl.store(out + places, (result / mass[:, :, None]).to(out.dtype.element_ty), mask=every)


def group_norm(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, added: Tensor | None = None, silu: bool = True
) -> Tensor:
    """Group norm of ``x + added``, and SiLU.

    Args:
        x: [s, c, h, w], channels last in memory.
        groups: Of channels.
        weight: [c].
        bias: [c].
        eps: Of the norm.
        added: [s, c] or [s, c, h], the same everywhere else; None: nothing.
        silu: Whether it follows.
    """
    return group_norm_and_scales(x, groups, weight, bias, eps, added, silu)[0]


def group_norm_and_scales(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, added: Tensor | None, silu: bool
) -> tuple[Tensor, Tensor]:
    """Group norm, and of each channel [s, 4, c]: factor, offset, and mean and inverse deviation of its group."""
    segments, channels = x.shape[:2]
    rows = x.shape[2] * x.shape[3]
    out = torch.empty_like(x)
    parts, together = triton.cdiv(rows, _ROWS), channels_together(channels)
    sums = torch.empty(segments, parts, 2, channels, dtype=torch.float32, device=x.device)
    scales = torch.empty(segments, 4, channels, dtype=torch.float32, device=x.device)
    given, per_added = lay_added(x, added)
    options = {"has_added": added is not None, "tile": 64, "width": together}
    group_width, blocks, tiles = channels // groups, triton.cdiv(rows, 64), triton.cdiv(channels, together)
    with on_device_of(x):
        _sum_rows[segments, parts, tiles](x, given, sums, rows, per_added, channels, parts, span=_ROWS, **options)
        _to_scale[segments, groups](
            sums, weight, bias, scales, channels, parts, group_width, float(group_width * rows), eps,
            tile=16, width=triton.next_power_of_2(group_width),
        )  # fmt: skip
        _apply_scale[segments, blocks, tiles](x, given, scales, out, rows, per_added, channels, silu=silu, **options)
    return out, scales


def channels_together(channels: int) -> int:
    """That a program of the group norm takes, a power of 2."""
    return min(_CHANNELS, triton.next_power_of_2(channels))


def lay_added(x: Tensor, added: Tensor | None) -> tuple[Tensor, int]:
    """What is added to pictures, channels last, and the number of pixels that share one; or anything at all."""
    if added is None:
        return x, x.shape[2] * x.shape[3]
    if added.ndim == 2:
        return added.contiguous(), x.shape[2] * x.shape[3]
    return added.transpose(1, 2).contiguous(), x.shape[3]


def gate(x: Tensor) -> Tensor:
    """The first half of the channels [..., 2 c] times GELU of the second."""
    x = x.contiguous()
    half = x.shape[-1] // 2
    out = x.new_empty(*x.shape[:-1], half)
    rows, width = out.numel() // half, min(256, triton.next_power_of_2(half))
    with on_device_of(x):
        _gate[triton.cdiv(rows, 8), triton.cdiv(half, width)](x, out, rows, half, tile=8, width=width)
    return out


def sum_norm(
    tokens: Tensor, change: Tensor | None, extra: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Sum of tokens with what is added to them, and its layer norm.

    Args:
        tokens: [..., p, c].
        change: Like them; None: nothing.
        extra: [m, 1, ..., c] with as many axes as the tokens and m of the first, or [v, 1, c] for tokens [b, v, p, c];
            None: nothing.
        weight: [c].
        bias: [c].
        eps: Of the norm.
    """
    tokens, channels = tokens.contiguous(), tokens.shape[-1]
    rows, extras = tokens.numel() // channels, 1
    per_extra, given, added = rows, tokens, tokens
    if extra is not None:
        given, extras = extra.contiguous(), extra.numel() // channels
        per_extra = rows // extras if extra.ndim == tokens.ndim else tokens.shape[-2]
    if change is not None:
        added = change.contiguous()
    normed = torch.empty_like(tokens)
    total = tokens if change is None and extra is None else torch.empty_like(tokens)
    width = triton.next_power_of_2(channels)
    tile = max(4, 2048 // width)
    with on_device_of(tokens):
        _sum_norm[(triton.cdiv(rows, tile),)](
            tokens, added, given, weight, bias, total, normed, rows, per_extra, extras, channels, eps,
            has_extra=extra is not None, has_change=change is not None, tile=tile, width=width,
        )  # fmt: skip
    return total, normed


def attend_views(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Attention of every pixel over its views; all [b, v, p, heads * d], contiguous."""
    batch, views, pixels, channels = query.shape
    out, dim = torch.empty_like(query), channels // heads
    padded, width = triton.next_power_of_2(views), triton.next_power_of_2(dim)
    tile = max(8, 2048 // (padded * width))
    with on_device_of(query):
        _attend_views[triton.cdiv(pixels, tile) * heads, batch](
            query, key, value, out, pixels, heads, dim**-0.5,
            views=views, padded=padded, dim=dim, width=width, tile=tile,
        )  # fmt: skip
    return out
