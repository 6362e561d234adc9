import pytest

from humansplat.body.models import load_body_model


@pytest.fixture(scope="session")
def body():
    return load_body_model()
