import sys
import zipfile

import numpy as np
import pytest

from humansplat.capture import graph as module
from humansplat.errors import UserError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HUMANSPLAT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_cache_folder_follows_the_environment(cache):
    assert module.graph_path() == cache / "pose_landmark_full.tflite"


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_cache_folder_of_each_platform(monkeypatch, platform, tmp_path):
    monkeypatch.delenv("HUMANSPLAT_CACHE", raising=False)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(sys, "platform", platform)
    folder = module.cache_folder()
    assert "humansplat" in folder.parts
    assert (tmp_path in folder.parents) == (platform != "darwin")


def test_a_wrong_file_in_the_graph_s_place_is_refused(cache):
    cache.mkdir()
    module.graph_path().write_bytes(b"not the graph")
    with pytest.raises(UserError, match="delete it"):
        module.ensure_graph()


def test_a_wrong_wheel_is_refused_and_leaves_nothing(cache):
    cache.mkdir()
    wheel = cache / "mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("mediapipe/modules/pose_landmark/pose_landmark_full.tflite", b"not the graph")
    with pytest.raises(UserError, match="sha256"):
        module.ensure_graph()
    assert list(cache.iterdir()) == [wheel]


def test_without_a_network_the_message_says_what_to_do(cache, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(UserError, match="pip download mediapipe==0.10.21.*copy the wheel into"):
        module.ensure_graph()
    assert not module.graph_path().exists()


def test_missing_runtime_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(UserError, match=r"humansplat\[photo\]"):
        module.PoseGraph()


def test_output_has_its_shapes_and_ranges(graph):
    output = graph(np.zeros((256, 256, 3), np.float32))
    assert 0.0 <= output.score < 0.5
    assert output.landmarks.shape == (39, 3)
    assert output.mask_logits.shape == (256, 256)
    for values in (output.visibility, output.presence):
        assert ((values >= 0) & (values <= 1)).all()


def test_sigmoid_does_not_overflow():
    with np.errstate(all="raise"):
        np.testing.assert_allclose(module.sigmoid(np.array([-1000.0, 0.0, 1000.0])), [0.0, 0.5, 1.0])
