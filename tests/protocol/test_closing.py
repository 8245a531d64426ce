"""The table of close codes: each has a row, and each is one that may be sent."""

import re
from pathlib import Path

import pytest

import candy
from candy.protocol import closing
from candy.protocol.closing import CloseCode

ROOT = Path(candy.__file__).parent


def test_every_code_has_a_row() -> None:
    assert closing.__doc__ is not None
    rows = [int(code) for code in re.findall(r"^    (\d{4})  ", closing.__doc__, re.MULTILINE)]
    assert rows == sorted(CloseCode)


def test_a_peer_without_the_extension_gets_what_it_got_before_there_were_reasons() -> None:
    """field: an old peer knows "1012 for new routes, 1013 for a full pool or none, 4001 for a lost address"."""
    old = {code: closing.without_extension(code) for code in CloseCode if code >= CloseCode.REPLACED}
    # Those of candy.3 say something of a key, which such a peer has not shown.
    old = {code: known for code, known in old.items() if code < CloseCode.DEVICE_REVOKED or known is not None}
    assert old == {4001: 4001, 4002: None, 4003: 1013, 4004: 1013, 4005: None, 4006: None, 4007: 4001, 4008: 1012}
    assert all(closing.without_extension(code) is code for code in CloseCode if code < CloseCode.REPLACED)
    assert closing.without_extension(None) is None


@pytest.mark.parametrize("code", CloseCode)
def test_may_be_sent(code: CloseCode) -> None:
    """RFC 6455, section 7.4: never 1004, 1005, 1006 and 1015; 3000 to 4999 are registered or private."""
    assert code in range(1000, 1004) or code in range(1007, 1015) or code in range(3000, 5000)


def test_no_other_file_has_a_bare_code() -> None:
    codes = "|".join(str(int(code)) for code in CloseCode if code != CloseCode.NORMAL)
    for path in ROOT.rglob("*.py"):
        if path.name != "closing.py":
            code_lines = re.sub(r'""".*?"""|#.*', "", path.read_text(), flags=re.DOTALL)
            assert not re.search(rf"\b({codes})\b", code_lines), path
