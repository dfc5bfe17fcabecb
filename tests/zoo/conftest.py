import shutil

import pytest

from tests.zoo.small import make_parts


@pytest.fixture(scope="package")
def parts():
    return make_parts()


@pytest.fixture(scope="package")
def written(parts, tmp_path_factory):
    return parts.write(tmp_path_factory.mktemp("zoo") / "points_small")


@pytest.fixture
def entry_folder(written, tmp_path):
    """A copy of a small entry, to be damaged."""
    return shutil.copytree(written, tmp_path / "copy" / written.name)
