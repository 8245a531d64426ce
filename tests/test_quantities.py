"""Rates and sizes as people write them."""

import pytest

from candy.quantities import rate, size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("8000", 8000),
        ("500k", 500_000),
        ("10M", 10_000_000),
        ("10Mbit", 10_000_000),
        ("10mbit/s", 10_000_000),
        (" 1.5G ", 1_500_000_000),
        ("0.1k", 100),
    ],
)
def test_rates(text: str, expected: int) -> None:
    assert rate(text) == expected


@pytest.mark.parametrize("text", ["", "M", "-1", "10 M", "10MB", "10MB/s", "1,5M", "1e6", "0x10", "\u0661", "1" * 16])
def test_no_rates(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"^is not a rate in bits a second: write it like 10M or 500k, 0 for no limit$"
    ):
        rate(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("0", 0), ("200G", 200 * 10**9), ("1.5TB", 15 * 10**11), ("7b", 7), ("0.5k", 500)]
)
def test_sizes(text: str, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "G", "5Gbit", "5G/s", "5GiB", "-5"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match=r"^is not a number of bytes: write it like 200G or 1\.5T, 0 for no limit$"):
        size(text)
