"""Which processors do AES themselves, by what the kernel says of them."""

from pathlib import Path

import pytest

from candy.host.processor import has_aes


@pytest.mark.parametrize(
    ("cpuinfo", "has"),
    [
        ("processor\t: 0\nflags\t\t: fpu sse2 pclmulqdq ssse3 aes avx\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd aes pmull sha1 sha2\n", True),
        ("processor\t: 0\nFeatures\t: half thumb fastmult vfp\n", False),
        ("flags\t\t: fpu aes\n", False),
        ("isa\t: rv64imafdc\n", False),
        ("", False),
    ],
)
def test_by_its_flags(tmp_path: Path, cpuinfo: str, has: bool) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo)
    assert has_aes(file) is has


def test_what_cannot_be_read_has_none(tmp_path: Path) -> None:
    assert not has_aes(tmp_path / "none")
