"""Interleavings need a build of the engine that can hold threads; with the fast one test_variants.py makes it."""

from candy import _fastpath

collect_ignore = ["test_variants.py" if _fastpath.HAS_POINTS else "test_interleavings.py"]
