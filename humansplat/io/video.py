"""Videos: H.264 in MP4, which every browser and player shows."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from humansplat.errors import UserError
from humansplat.io.atomic import replacing


def write_video(frames: Iterable[Float[Tensor, "h w 3"]], path: Path, *, fps: int = 30) -> int:
    """Encode frames one after the other, as they come; memory does not grow with their number.

    Args:
        frames: sRGB in ``[0, 1]``, all of one size. An odd width or height is widened by one column or
            row, because the format's colours have half the resolution.
        path: Ends in ``.mp4``; appears whole or not at all.
        fps: Frames a second.

    Returns:
        The number of frames written.

    Raises:
        UserError: If the suffix is not ``.mp4``.
        ValueError: If there is no frame, or the frames differ in size.
    """
    if path.suffix.lower() != ".mp4":
        raise UserError(f"{path}: videos are written as .mp4, not as {path.suffix or 'no suffix'!r}")
    images = (_even_bytes(frame) for frame in frames)
    first = next(images, None)
    if first is None:
        raise ValueError(f"{path.name}: a video needs at least one frame")
    with replacing(path) as temporary:
        return _encode(first, images, temporary, fps)


def read_video(path: Path) -> Iterator[np.ndarray]:
    """Decode a video frame by frame: ``uint8 [h, w, 3]``, sRGB.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    import imageio_ffmpeg

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    for frame in reader:
        yield np.frombuffer(frame, dtype=np.uint8).reshape(height, width, 3)


def _encode(first: np.ndarray, rest: Iterator[np.ndarray], path: Path, fps: int) -> int:
    import imageio_ffmpeg

    height, width = first.shape[:2]
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=fps,
        codec="libx264",
        pix_fmt_out="yuv420p",
        macro_block_size=2,
        quality=8,
        ffmpeg_log_level="error",
        output_params=["-movflags", "+faststart"],  # plays before it is loaded whole
    )
    count = 1
    writer.send(None)
    try:
        writer.send(first)
        for image in rest:
            if image.shape != first.shape:
                raise ValueError(f"frame {count} is {image.shape[1::-1]}, the first was {(width, height)}")
            writer.send(np.ascontiguousarray(image))
            count += 1
    finally:
        writer.close()
    return count


def _even_bytes(frame: Float[Tensor, "h w 3"]) -> np.ndarray:
    image = (frame.detach().clamp(0, 1) * 255 + 0.5).to("cpu").numpy().astype(np.uint8)
    return np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge")
