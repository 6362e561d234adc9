import numpy as np
import pytest
import torch

from humansplat.errors import UserError
from humansplat.io.video import read_video, write_video


def frames(count, height=48, width=64):
    for index in range(count):
        image = torch.full((height, width, 3), 0.2)
        image[:, : width * (index + 1) // count, 0] = 0.9
        yield image


def test_frames_come_back_in_order(tmp_path):
    assert write_video(frames(8), tmp_path / "a.mp4", fps=10) == 8
    decoded = list(read_video(tmp_path / "a.mp4"))
    assert len(decoded) == 8
    for image, truth in zip(decoded, frames(8), strict=True):
        assert image.shape == (48, 64, 3)
        assert np.abs(image / 255 - truth.numpy()).mean() < 0.05
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_odd_sizes_are_widened(tmp_path):
    write_video(frames(3, height=47, width=63), tmp_path / "a.mp4")
    assert next(read_video(tmp_path / "a.mp4")).shape == (48, 64, 3)


def test_the_video_plays_everywhere(tmp_path):
    write_video(frames(2), tmp_path / "a.mp4")
    content = (tmp_path / "a.mp4").read_bytes()
    assert b"avc1" in content  # H.264
    assert content.index(b"moov") < content.index(b"mdat")  # plays while it loads


def test_a_video_needs_frames_of_one_size(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"):
        write_video([], tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="frame 1 is"):
        write_video([torch.zeros(8, 8, 3), torch.zeros(8, 10, 3)], tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"\.mp4, not as '\.gif'"):
        write_video(frames(2), tmp_path / "a.gif")
