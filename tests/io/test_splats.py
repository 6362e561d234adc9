import numpy as np
import plyfile
import pytest
import torch

from humansplat.errors import UserError
from humansplat.geometry.rotations import quaternion_to_matrix
from humansplat.io.splats import SH_C0, read_splats, write_splats
from humansplat.structures import Gaussians


@pytest.fixture
def splats(rng):
    n = 300
    return Gaussians(
        means=torch.randn(n, 3, generator=rng),
        quats=torch.nn.functional.normalize(torch.randn(n, 4, generator=rng), dim=-1),
        scales=torch.exp(-5 + torch.randn(n, 3, generator=rng)),
        opacities=torch.rand(n, generator=rng),
        colors=torch.rand(n, 3, generator=rng),
    )


def matched(splats, other):
    """Pair the splats of two sets by their nearest centres: some formats reorder."""
    index = torch.cdist(splats.means, other.means).argmin(dim=1)
    assert len(index.unique()) == len(index)
    return other.map(lambda tensor: tensor[index])


def test_ply_keeps_everything_in_order(splats, tmp_path):
    splats.save(tmp_path / "a.ply")
    again = Gaussians.load(tmp_path / "a.ply")
    torch.testing.assert_close(again.means, splats.means, atol=0, rtol=0)
    torch.testing.assert_close(again.quats, splats.quats, atol=1e-6, rtol=0)
    torch.testing.assert_close(again.scales, splats.scales, atol=0, rtol=1e-5)
    torch.testing.assert_close(again.opacities, splats.opacities, atol=2e-6, rtol=0)
    torch.testing.assert_close(again.colors, splats.colors, atol=1e-6, rtol=0)


def test_an_independent_reader_finds_the_usual_properties(splats, tmp_path):
    write_splats(splats, tmp_path / "a.ply")
    vertex = plyfile.PlyData.read(tmp_path / "a.ply")["vertex"]
    np.testing.assert_allclose(np.stack([vertex[axis] for axis in "xyz"], -1), splats.means.numpy())
    colors = 0.5 + SH_C0 * np.stack([vertex[f"f_dc_{i}"] for i in range(3)], -1)
    np.testing.assert_allclose(colors, splats.colors.numpy(), atol=1e-6)
    scales = np.exp(np.stack([vertex[f"scale_{i}"] for i in range(3)], -1))
    np.testing.assert_allclose(scales, splats.scales.numpy(), rtol=1e-5)
    np.testing.assert_allclose(1 / (1 + np.exp(-vertex["opacity"])), splats.opacities.numpy(), atol=2e-6)
    quats = np.stack([vertex[f"rot_{i}"] for i in range(4)], -1)
    np.testing.assert_allclose(quats, splats.quats.numpy(), atol=1e-6)


@pytest.mark.parametrize(("suffix", "position"), [(".compressed.ply", 5e-3), (".spz", 1e-4)])
def test_compressed_formats_stay_close(splats, tmp_path, suffix, position):
    write_splats(splats, tmp_path / f"a{suffix}")
    again = matched(splats, read_splats(tmp_path / f"a{suffix}"))
    torch.testing.assert_close(again.means, splats.means, atol=position, rtol=0)
    torch.testing.assert_close(again.scales, splats.scales, atol=0, rtol=0.04)
    torch.testing.assert_close(again.opacities, splats.opacities, atol=5e-3, rtol=0)
    torch.testing.assert_close(again.colors, splats.colors, atol=0.02, rtol=0)
    turned = quaternion_to_matrix(again.quats).mT @ quaternion_to_matrix(splats.quats)
    assert (turned.diagonal(dim1=-2, dim2=-1).sum(-1) > 1 + 2 * np.cos(0.02)).all()  # within 0.02 rad


@pytest.mark.parametrize("suffix", [".compressed.ply", ".spz"])
def test_compressed_formats_are_smaller(splats, tmp_path, suffix):
    write_splats(splats, tmp_path / "a.ply")
    write_splats(splats, tmp_path / f"b{suffix}")
    assert (tmp_path / f"b{suffix}").stat().st_size < 0.6 * (tmp_path / "a.ply").stat().st_size


def test_faint_splats_can_be_left_out(splats, tmp_path):
    write_splats(splats, tmp_path / "a.ply", min_opacity=0.5)
    again = read_splats(tmp_path / "a.ply")
    assert again.num_splats == (splats.opacities >= 0.5).sum()
    assert (again.opacities >= 0.4999).all()


def test_extreme_opacities_and_scales_survive(splats, tmp_path):
    extreme = Gaussians(
        means=splats.means[:2],
        quats=splats.quats[:2],
        scales=torch.tensor([[0.0, 1e-3, 1e-3], [1e-3, 1e-3, 1e-3]]),
        opacities=torch.tensor([0.0, 1.0]),
        colors=splats.colors[:2],
    )
    extreme.save(tmp_path / "a.ply")
    again = Gaussians.load(tmp_path / "a.ply")
    torch.testing.assert_close(again.opacities, extreme.opacities, atol=2e-6, rtol=0)
    assert torch.isfinite(again.scales).all()


@pytest.mark.parametrize("name", ["a.obj", "a", "a.sog"])
def test_other_suffixes_are_refused(splats, tmp_path, name):
    with pytest.raises(UserError, match=r"written as \.ply, \.compressed\.ply, \.spz"):
        write_splats(splats, tmp_path / name)


def test_batches_and_empty_sets_are_refused(splats, tmp_path):
    with pytest.raises(ValueError, match="one set of splats"):
        write_splats(splats.map(lambda tensor: tensor[None]), tmp_path / "a.ply")
    with pytest.raises(ValueError, match="no splat to write"):
        write_splats(splats, tmp_path / "a.ply", min_opacity=1.1)
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_are_not_finite_are_refused(splats, tmp_path):
    means = splats.means.clone()
    means[3, 1] = torch.nan
    broken = splats.map(lambda tensor: means if tensor is splats.means else tensor)
    with pytest.raises(ValueError, match="means holds a number that is not finite"):
        write_splats(broken, tmp_path / "a.ply")


@pytest.mark.parametrize("name", ["a.ply", "a.spz", "a.sog"])
@pytest.mark.parametrize("content", [b"", b"ply\n", b"not splats at all", b"ply\nformat ascii 1.0\nend_header\n"])
def test_files_that_are_not_splats_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        read_splats(tmp_path / name)


def test_a_truncated_file_is_refused(splats, tmp_path):
    write_splats(splats, tmp_path / "a.ply")
    content = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "a.ply").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"a\.ply"):
        read_splats(tmp_path / "a.ply")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_splats(tmp_path / "nothing.ply")
