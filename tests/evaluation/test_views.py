import shutil

import pytest

from humansplat.errors import UserError
from humansplat.evaluation.views import given_views
from humansplat.pipelines.reconstructor import Reconstructor


def test_the_model_is_given_what_a_photo_would_get(four_views, tmp_path):
    folder = shutil.copytree(four_views, tmp_path / "four")
    assert given_views(Reconstructor.from_pretrained(folder, "cpu"), "auto") == "diffusion"
    (folder / "config.json").write_text('{"image_size": 64, "num_inputs": 4, "photo_alone": true}')
    assert given_views(Reconstructor.from_pretrained(folder, "cpu"), "auto") == "none"
    (folder / "config.json").write_text('{"image_size": 64, "num_inputs": 4}')
    shutil.rmtree(folder / "view_model")
    limit = Reconstructor.from_pretrained(folder, "cpu")
    assert given_views(limit, "auto") == "true"
    with pytest.raises(UserError, match="give weights that hold a view model"):
        given_views(limit, "none")
