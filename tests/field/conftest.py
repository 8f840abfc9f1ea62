import pytest

from .files import Files


@pytest.fixture(scope="session")
def file_of(tmp_path_factory) -> Files:
    return Files(tmp_path_factory.mktemp("field"))
