import sys
from pathlib import Path

import pytest

from humansplat.body.smpl_files import SmplFile, read_smpl_file
from humansplat.body.smplx_module import create_smplx
from humansplat.errors import UserError

# That its modules pose as ours do is tested in test_smpl.py.


def test_without_the_package_its_extra_is_named(smpl_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "smplx", None)
    with pytest.raises(UserError, match=r'pip install "humansplat\[smplx\]"'):
        create_smplx(read_smpl_file("smpl", smpl_folder))


def test_what_smplx_needs_and_the_file_lacks_is_named(make_smpl_standin):
    pytest.importorskip("smplx", reason='pip install "humansplat[smplx]"')
    arrays = {key: value for key, value in make_smpl_standin("smplx").items() if key != "lmk_faces_idx"}
    with pytest.raises(UserError, match="model.npz lacks lmk_faces_idx"):
        create_smplx(SmplFile(name="smplx", gender="male", path=Path("model.npz"), arrays=arrays))
