import pytest

from humansplat.body.anny import AnnyBody


@pytest.fixture(scope="session")
def body():
    return AnnyBody.load()
