import sys

import numpy as np
import pytest
import torch
from PIL import Image

from humansplat import cli
from humansplat.io.video import read_video
from humansplat.structures import Gaussians


@pytest.fixture
def humansplat(monkeypatch, capsys):
    """Run the command line in this process; gives exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["humansplat", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        captured = capsys.readouterr()
        return done.value.code, captured.out, captured.err

    return run


@pytest.fixture
def splats(rng, tmp_path):
    n = 200
    scene = Gaussians(
        means=torch.rand(n, 3, generator=rng) * torch.tensor([0.5, 1.7, 0.3]),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(n, 4),
        scales=torch.full((n, 3), 0.03),
        opacities=torch.full((n,), 0.9),
        colors=torch.rand(n, 3, generator=rng),
    )
    scene.save(tmp_path / "scene.ply")
    return tmp_path / "scene.ply"


def one_sentence(text):
    lines = [line for line in text.splitlines() if line.startswith("humansplat: ")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


class TestReconstruct:
    def test_a_missing_photo_is_named_in_one_sentence(self, humansplat, tiny_weights, tmp_path):
        photo = tmp_path / "nobody.jpg"
        code, _, error = humansplat("reconstruct", photo, "--out", tmp_path / "out", "--model", tiny_weights)
        assert code == 2
        assert "nobody.jpg does not exist" in one_sentence(error)
        assert not (tmp_path / "out").exists()

    def test_all_bad_photos_are_listed_at_the_end(self, humansplat, tiny_weights, tmp_path):
        (tmp_path / "text.jpg").write_text("no picture")
        Image.new("RGB", (60, 60)).save(tmp_path / "tiny.png")
        photos = [tmp_path / "text.jpg", tmp_path / "tiny.png"]
        code, _, error = humansplat("reconstruct", *photos, "--out", tmp_path / "out", "--model", tiny_weights)
        assert code == 2
        assert "2 of 2 photos failed" in error
        listed = error[error.index("photos failed") :]
        assert "text.jpg" in listed
        assert "tiny.png is 60 x 60 px" in listed

    def test_unknown_weights_are_refused_before_anything_is_done(self, humansplat, tmp_path):
        code, _, error = humansplat("reconstruct", "a.jpg", "--out", tmp_path / "out", "--model", "huge")
        assert code == 2
        assert "no folder 'huge' exists" in one_sentence(error)

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            ([], "no photo is given"),
            (["a/me.jpg", "b/me.png"], "would both be written to me"),
            (["a.jpg", "b.jpg", "--mask", "m.png"], "belong to one photo, 2 are given"),
            (["a.jpg", "b.jpg", "--body", "b.npz"], "belong to one photo, 2 are given"),
            (["a.jpg", "b.jpg", "--back", "c.jpg"], "belong to one photo, 2 are given"),
        ],
    )
    def test_arguments_that_make_no_sense_are_refused(self, humansplat, tmp_path, arguments, complaint):
        code, _, error = humansplat("reconstruct", *arguments, "--out", tmp_path)
        assert code == 2
        assert complaint in one_sentence(error)

    def test_a_body_file_is_refused_before_the_photo_is_read(self, humansplat, tiny_weights, tmp_path):
        np.savez(tmp_path / "two.npz", poses=np.zeros((2, 72)))
        options = ["--out", tmp_path, "--model", tiny_weights, "--body", tmp_path / "two.npz"]
        code, _, error = humansplat("reconstruct", "a.jpg", *options)
        assert code == 2
        assert "choose one with --person 0 to 1" in one_sentence(error)

    def test_the_view_model_is_missed_by_name(self, humansplat, tiny_weights, tmp_path):
        options = ["--out", tmp_path, "--model", tiny_weights, "--views", "diffusion"]
        code, _, error = humansplat("reconstruct", "a.jpg", *options)
        assert code == 2
        assert "hold no view model" in one_sentence(error)


class TestRender:
    def test_a_video_goes_around(self, humansplat, splats, tmp_path):
        code, told, _ = humansplat("render", splats, "--out", tmp_path / "a.mp4", "--frames", 5, "--size", 32)
        assert code == 0
        assert "a.mp4" in told
        assert len(list(read_video(tmp_path / "a.mp4"))) == 5

    def test_pictures_go_into_a_folder(self, humansplat, splats, tmp_path):
        code, _, _ = humansplat("render", splats, "--out", tmp_path / "views", "--frames", 3, "--size", 32)
        assert code == 0
        assert sorted(path.name for path in (tmp_path / "views").iterdir()) == ["000.png", "001.png", "002.png"]
        with Image.open(tmp_path / "views" / "000.png") as image:
            assert image.size == (32, 32)
            assert np.asarray(image).min() < 200

    @pytest.mark.parametrize(
        ("name", "out", "complaint"),
        [
            ("nothing.ply", "a.mp4", "no such file"),
            ("scene.ply", "a.gif", "give FILE.mp4 or a folder"),
            ("scene.txt", "a.mp4", "splats are read as .ply"),
            ("broken.ply", "a.mp4", "not a splat file"),
        ],
    )
    def test_what_cannot_be_rendered_is_refused(self, humansplat, splats, tmp_path, name, out, complaint):
        (tmp_path / "scene.txt").write_text("x")
        (tmp_path / "broken.ply").write_text("ply\n")
        code, _, error = humansplat("render", tmp_path / name, "--out", tmp_path / out)
        assert code == 2
        assert complaint in one_sentence(error)


class TestBody:
    @pytest.fixture
    def photo(self, tmp_path):
        Image.new("RGB", (200, 300), (200, 210, 220)).save(tmp_path / "me.png")
        return tmp_path / "me.png"

    def test_the_body_is_drawn_where_its_camera_sees_it(self, humansplat, photo, tmp_path):
        points = np.array([[-0.3, -0.8, 4.0], [0.3, -0.8, 4.0], [0.3, 0.8, 4.0], [-0.3, 0.8, 4.0]])
        faces, K = np.array([[0, 2, 1], [0, 3, 2]]), np.array([[500.0, 0, 110], [0, 500.0, 150], [0, 0, 1]])
        np.savez(tmp_path / "body.npz", vertices=points, faces=faces, K=K)
        out = tmp_path / "drawn" / "body.png"
        code, told, _ = humansplat("body", tmp_path / "body.npz", "--show", photo, "--out", out)
        assert code == 0
        assert "4 vertices, without pose, betas, gender" in told
        with Image.open(out) as image:
            drawn = np.asarray(image).astype(int)
        changed = np.abs(drawn - [200, 210, 220]).max(axis=-1) > 10
        rows, columns = np.nonzero(changed)
        assert (columns.min(), columns.max() + 1) == pytest.approx((110 - 37.5, 110 + 37.5), abs=1)
        assert (rows.min(), rows.max() + 1) == pytest.approx((50, 250), abs=1)
        assert changed[50:250, 73:147].all()

    @pytest.mark.parametrize(
        ("name", "out", "complaint"),
        [
            ("none.npz", "a.png", "no such body file"),
            ("me.png", "a.png", "body files end in"),
            ("two.npz", "a.png", "holds 2 people or frames; choose one with --person 0 to 1"),
            ("two.npz", "a.jpg", "give FILE.png"),
        ],
    )
    def test_what_cannot_be_drawn_is_refused(self, humansplat, photo, tmp_path, name, out, complaint):
        np.savez(tmp_path / "two.npz", poses=np.zeros((2, 72)), K=np.eye(3))
        code, _, error = humansplat("body", tmp_path / name, "--show", photo, "--out", tmp_path / out)
        assert code == 2
        assert complaint in one_sentence(error)
        assert not (tmp_path / out).exists()


class TestOthers:
    def test_synthesizing_needs_assets(self, humansplat, tmp_path):
        missing = tmp_path / "nowhere"
        code, _, error = humansplat("synthesize", "--assets", missing, "--out", tmp_path / "out", "--num", 1)
        assert code == 2
        assert "nowhere" in one_sentence(error)

    def test_evaluating_needs_people(self, humansplat, tiny_weights, tmp_path):
        options = ["--model", tiny_weights, "--data", tmp_path, "--out", tmp_path / "out"]
        code, _, error = humansplat("evaluate", *options)
        assert code == 2
        assert "manifest.jsonl" in one_sentence(error)

    def test_the_doctor_tells_what_each_thing_is_for(self, humansplat):
        code, told, _ = humansplat("doctor")
        assert code in (0, 1)
        for name in ("torch", "ai-edge-litert", "weights", "pose graph", "ffmpeg", "gsplat"):
            assert name in told
        assert all("--" in line for line in told.splitlines()[1:])

    def test_unknown_commands_are_refused(self, humansplat):
        assert humansplat("fly")[0] == 2

    def test_a_place_that_cannot_be_written_is_named(self, humansplat, splats, tmp_path):
        (tmp_path / "file").write_text("in the way")
        code, _, error = humansplat("render", splats, "--out", tmp_path / "file" / "a.mp4", "--frames", 1)
        assert code == 2
        assert "file" in one_sentence(error)
