"""A laboratory for each test, as a fixture."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from lab.laboratory import Laboratory


@pytest.fixture
def laboratory(tmp_path: Path, stack: ExitStack) -> Laboratory:
    return Laboratory(stack, tmp_path)
