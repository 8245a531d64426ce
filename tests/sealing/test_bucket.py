"""So many a second, and so many saved up."""

from candy.sealing.bucket import Bucket


def test_tokens() -> None:
    bucket = Bucket(2.0, 5.0)
    assert [bucket.take(1000.0) for _ in range(6)] == [True] * 5 + [False]
    assert not bucket.take(1000.4)
    assert bucket.take(1000.5)
    assert not bucket.take(1000.5)
    assert bucket.left(1003.0) == 5
    assert bucket.left(2000.0) == 5
    assert not bucket.take(2000.0, 6)
    assert bucket.take(2000.0, 5)
    assert bucket.left(2000.0) == 0


def test_a_clock_that_is_set_back_gives_nothing() -> None:
    bucket = Bucket(1.0, 1.0)
    assert bucket.take(100.0)
    assert not bucket.take(50.0)
    assert not bucket.take(50.9)
    assert bucket.take(51.0)
