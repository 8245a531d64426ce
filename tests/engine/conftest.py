"""Interleavings need a build of the engine that can hold threads; for the fast one test_points.py makes it."""

from candy import _fastpath

collect_ignore = ["test_points.py" if _fastpath.HAS_POINTS else "test_interleavings.py"]
