"""Where state is kept."""

from pathlib import Path

import pytest

from candy.errors import ConfigError
from candy.settings import state_folder


@pytest.mark.parametrize(
    ("environ", "uid", "folder"),
    [
        ({"CANDY_STATE_DIR": "/a", "STATE_DIRECTORY": "/b", "HOME": "/h"}, 0, "/a"),
        ({"CANDY_STATE_DIR": "", "STATE_DIRECTORY": "/b:/c", "HOME": "/h"}, 1000, "/b"),
        ({"HOME": "/root", "XDG_STATE_HOME": "/x"}, 0, "/var/lib/candy"),
        ({"HOME": "/h", "XDG_STATE_HOME": "/x"}, 1000, "/x/candy"),
        ({"HOME": "/h", "XDG_STATE_HOME": "relative"}, 1000, "/h/.local/state/candy"),
        ({"HOME": "/h"}, 1000, "/h/.local/state/candy"),
    ],
)
def test_folder(environ: dict[str, str], uid: int, folder: str) -> None:
    assert state_folder(environ, uid) == Path(folder)


def test_folder_relative_to_the_current_one() -> None:
    assert state_folder({"CANDY_STATE_DIR": "here"}, 0) == Path.cwd() / "here"


def test_folder_without_home() -> None:
    with pytest.raises(ConfigError, match="CANDY_STATE_DIR"):
        state_folder({}, 1000)
