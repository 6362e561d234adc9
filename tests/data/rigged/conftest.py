import sys
from pathlib import Path

import pytest

from humansplat.body.anny import AnnyBody
from humansplat.data.synthetic.figure import Template, load_template

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def template() -> Template:
    return load_template(AnnyBody.load())
