"""Makes a checkout's own build importable where candy is not installed, for this process and for what it starts.

Programs import it before anything of candy's.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("candy") is None:
    root = str(Path(__file__).parent.parent)
    sys.path.append(root)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), root)))
if find_spec("candy._fastpath") is None:
    sys.exit("candy's engine is not built: run 'make build', or 'python setup.py build_ext --inplace'")
