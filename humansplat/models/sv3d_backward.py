"""Triton kernels of the gradients of those in ``sv3d_kernels``; ``sv3d_gradients`` launches them.

Everything is computed anew from what the forward pass was given, in float32: norms' statistics by row, probabilities
of attention over views, activations. Sums over rows, of which weights' gradients consist, are a sum per program first
and a sum of these afterwards, so nothing depends on timing.
"""

# mypy: ignore-errors
from typing import no_type_check

import triton
import triton.language as tl

from humansplat.models.sv3d_kernels import add_parts, load_sum


@triton.jit
@no_type_check
def _before_silu(given, value, factor, offset, silu: tl.constexpr):
    """The gradient of a norm's result from that of the SiLU behind it."""
    if silu:
        normed = value * factor[None, :] + offset[None, :]
        share = tl.sigmoid(normed)
        given = given * share * (1 + normed * (1 - share))
    return given


@triton.jit(do_not_specialize=["parts"])  # here and below: one compiled kernel for all sizes, as far as it goes
@no_type_check
def group_norm_sums(
    x, added, scales, given, sums, rows, rows_per_added, channels, parts,
    has_added: tl.constexpr, silu: tl.constexpr, span: tl.constexpr, tile: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """Sums of each channel over ``span`` rows of a segment: of the gradient, and of it times what was normed."""
    segment, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    channel = tl.program_id(2) * width + tl.arange(0, width)
    inside = channel < channels
    scale = scales + segment * 4 * channels + channel
    factor, offset = tl.load(scale, mask=inside, other=0.0), tl.load(scale + channels, mask=inside, other=0.0)
    mean = tl.load(scale + 2 * channels, mask=inside, other=0.0)
    inverse = tl.load(scale + 3 * channels, mask=inside, other=0.0)
    total, products = tl.zeros((tile, width), tl.float32), tl.zeros((tile, width), tl.float32)
    for start in range(0, span, tile):
        row = part * span + start + tl.arange(0, tile)
        known = (row < rows)[:, None] & inside[None, :]
        place = (segment * rows + row)[:, None] * channels + channel[None, :]
        value = load_sum(x, added, place, known, segment, row, channel, rows, rows_per_added, channels, has_added)
        slope = _before_silu(tl.load(given + place, mask=known, other=0.0).to(tl.float32), value, factor, offset, silu)
        total += slope
        products += slope * (value - mean[None, :]) * inverse[None, :]
    place = (segment * parts + part) * 2 * channels + channel
    tl.store(sums + place, tl.sum(total, 0), mask=inside)
    tl.store(sums + place + channels, tl.sum(products, 0), mask=inside)


@triton.jit(do_not_specialize=["parts", "group_width"])
@no_type_check
def group_norm_means(
    sums, weight, totals, means, channels, parts, group_width, count,
    tile: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """Sums of each channel over a segment, and the means over a group of both, weighted."""
    segment, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    within = tl.arange(0, width)
    channel, inside = group * group_width + within, within < group_width
    total, products = add_parts(sums, segment, channel, inside, channels, parts, tile, width)
    slope, bend = tl.sum(total, 0), tl.sum(products, 0)
    factor = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    place = segment * 2 * channels + channel
    tl.store(totals + place, bend, mask=inside)
    tl.store(totals + place + channels, slope, mask=inside)
    nothing = tl.zeros((width,), tl.float32)
    tl.store(means + place, nothing + tl.sum(slope * factor, 0) / count, mask=inside)
    tl.store(means + place + channels, nothing + tl.sum(bend * factor, 0) / count, mask=inside)


@triton.jit
@no_type_check
def group_norm_inputs(
    x, added, scales, given, means, out, rows, rows_per_added, channels,
    has_added: tl.constexpr, silu: tl.constexpr, tile: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """The gradient of a group norm's pictures."""
    segment = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * tile + tl.arange(0, tile)
    channel = tl.program_id(2) * width + tl.arange(0, width)
    inside = channel < channels
    scale, means = scales + segment * 4 * channels + channel, means + segment * 2 * channels + channel
    factor, offset = tl.load(scale, mask=inside, other=0.0), tl.load(scale + channels, mask=inside, other=0.0)
    mean = tl.load(scale + 2 * channels, mask=inside, other=0.0)
    inverse = tl.load(scale + 3 * channels, mask=inside, other=0.0)
    level, bend = tl.load(means, mask=inside, other=0.0), tl.load(means + channels, mask=inside, other=0.0)
    known = (row < rows)[:, None] & inside[None, :]
    place = (segment * rows + row)[:, None] * channels + channel[None, :]
    value = load_sum(x, added, place, known, segment, row, channel, rows, rows_per_added, channels, has_added)
    slope = _before_silu(tl.load(given + place, mask=known, other=0.0).to(tl.float32), value, factor, offset, silu)
    normal = (value - mean[None, :]) * inverse[None, :]
    slope = slope * factor[None, :] - (level[None, :] + normal * bend[None, :]) * inverse[None, :]
    tl.store(out + place, slope.to(out.dtype.element_ty), mask=known)


@triton.jit
@no_type_check
def gate_inputs(x, given, out, rows, half, tile: tl.constexpr, width: tl.constexpr):
    """The gradients of both halves of a gate's input."""
    row = tl.program_id(0).to(tl.int64) * tile + tl.arange(0, tile)
    channel = tl.program_id(1) * width + tl.arange(0, width)
    inside = (row < rows)[:, None] & (channel < half)[None, :]
    place = row[:, None] * (2 * half) + channel[None, :]
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(x + place + half, mask=inside, other=0.0).to(tl.float32)
    slope = tl.load(given + row[:, None] * half + channel[None, :], mask=inside, other=0.0).to(tl.float32)
    below = 0.5 * (1 + tl.erf(gate * 0.7071067811865476))
    density = 0.3989422804014327 * tl.exp(-0.5 * gate * gate)
    tl.store(out + place, (slope * gate * below).to(out.dtype.element_ty), mask=inside)
    tl.store(out + place + half, (slope * value * (below + gate * density)).to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["span", "parts"])
@no_type_check
def sum_norm_inputs(
    total, given_total, given_normed, weight, out, sums, rows, span, parts, channels, eps,
    has_total: tl.constexpr, tile: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    """The gradient of a sum that is normed, and sums over ``span`` rows of a segment of ``rows``.

    The sums are of the weight's, of the bias' and of the inputs' gradients.
    """
    segment, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    channel = tl.arange(0, width)
    inside = channel < channels
    factor = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    factors, offsets = tl.zeros((tile, width), tl.float32), tl.zeros((tile, width), tl.float32)
    inputs = tl.zeros((tile, width), tl.float32)
    for start in range(0, span, tile):
        row = part * span + start + tl.arange(0, tile)
        known = (row < rows)[:, None] & inside[None, :]
        place = (segment * rows + row)[:, None] * channels + channel[None, :]
        value = tl.load(total + place, mask=known, other=0.0).to(tl.float32)
        value = tl.where(known, value - (tl.sum(value, 1) / channels)[:, None], 0.0)
        scale = tl.rsqrt(tl.sum(value * value, 1) / channels + eps)[:, None]
        normal = value * scale
        slope = tl.load(given_normed + place, mask=known, other=0.0).to(tl.float32)
        factors += slope * normal
        offsets += slope
        slope = slope * factor[None, :]
        level, bend = tl.sum(slope, 1) / channels, tl.sum(slope * normal, 1) / channels
        slope = (slope - level[:, None] - normal * bend[:, None]) * scale
        if has_total:
            slope += tl.load(given_total + place, mask=known, other=0.0).to(tl.float32)
        tl.store(out + place, slope.to(out.dtype.element_ty), mask=known)
        inputs += tl.where(known, slope, 0.0)
    place = (segment * parts + part) * 3 * channels + channel
    tl.store(sums + place, tl.sum(factors, 0), mask=inside)
    tl.store(sums + place + channels, tl.sum(offsets, 0), mask=inside)
    tl.store(sums + place + 2 * channels, tl.sum(inputs, 0), mask=inside)


@triton.jit
@no_type_check
def attend_views_inputs(
    query, key, value, given, d_query, d_key, d_value, pixels, heads, scale,
    views: tl.constexpr, padded: tl.constexpr, dim: tl.constexpr, width: tl.constexpr, tile: tl.constexpr,
):  # fmt: skip
    """All views of ``tile`` pixels, one head: once over the views for the softmax' sums, once for the gradients."""
    head, pixel = tl.program_id(0) % heads, tl.program_id(0) // heads * tile + tl.arange(0, tile)
    batch, channel, view = tl.program_id(1).to(tl.int64), tl.arange(0, width), tl.arange(0, padded)
    known = (pixel < pixels)[:, None] & (channel < dim)[None, :]
    within = (pixel[:, None] * heads + head) * dim + channel[None, :]
    row = pixels * heads * dim
    every = known[None, :, :] & (view < views)[:, None, None]
    places = (batch * views + view)[:, None, None] * row + within[None, :, :]
    asked = tl.load(query + places, mask=every, other=0.0).to(tl.float32) * scale
    slope = tl.load(given + places, mask=every, other=0.0).to(tl.float32)
    highest = tl.full((padded, tile), float("-inf"), tl.float32)
    mass, fall = tl.zeros((padded, tile), tl.float32), tl.zeros((padded, tile), tl.float32)
    for other in range(views):
        place = (batch * views + other) * row + within
        k = tl.load(key + place, mask=known, other=0.0).to(tl.float32)
        v = tl.load(value + place, mask=known, other=0.0).to(tl.float32)
        logit = tl.sum(asked * k[None, :, :], 2) * 1.4426950408889634
        higher = tl.maximum(highest, logit)
        weight, fade = tl.exp2(logit - higher), tl.exp2(highest - higher)
        mass = mass * fade + weight
        fall = fall * fade + weight * tl.sum(slope * v[None, :, :], 2)
        highest = higher
    fall = fall / mass
    result = tl.zeros((padded, tile, width), tl.float32)
    for other in range(views):
        place = (batch * views + other) * row + within
        k = tl.load(key + place, mask=known, other=0.0).to(tl.float32)
        v = tl.load(value + place, mask=known, other=0.0).to(tl.float32)
        weight = tl.exp2(tl.sum(asked * k[None, :, :], 2) * 1.4426950408889634 - highest) / mass
        bend = weight * (tl.sum(slope * v[None, :, :], 2) - fall)
        result += bend[:, :, None] * k[None, :, :]
        tl.store(d_key + place, tl.sum(bend[:, :, None] * asked, 0).to(d_key.dtype.element_ty), mask=known)
        tl.store(d_value + place, tl.sum(weight[:, :, None] * slope, 0).to(d_value.dtype.element_ty), mask=known)
    tl.store(d_query + places, (result * scale).to(d_query.dtype.element_ty), mask=every)
