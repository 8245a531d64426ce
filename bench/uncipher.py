"""A candy whose links with the original's clients seal nothing, for links.py to measure what the cipher costs there.

    python bench/uncipher.py DIR                # ten minutes at most; DIR is made
    python bench/links.py --without-cipher DIR

IV, tag and length stay as they are, so that as many bytes go the same way, and the IV is drawn; AES-GCM is left out
on both sides. The original's clients, and any other candy, take nothing of such a one's.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PART = "candy/engine/oldlink.pxi"
CHANGES = (
    ("    if k.own:\n        gcm_seal(", "    if k.ready:\n        return True\n    if k.own:\n        gcm_seal("),
    (
        "    if k.own:\n        return gcm_open(",
        "    if k.ready:\n        return True\n    if k.own:\n        return gcm_open(",
    ),
)


def uncipher(source: str) -> str:
    """The part without its cipher."""
    for found, instead in CHANGES:
        if source.count(found) != 1:
            raise SystemExit(f"uncipher: {PART} is not as this knows it")
        source = source.replace(found, instead)
    return source


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("uncipher: give one folder to build in")
    folder = Path(sys.argv[1]).resolve()
    kept_out = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "candy", folder / "candy", ignore=kept_out, dirs_exist_ok=True)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    (folder / PART).write_text(uncipher((ROOT / PART).read_text()))
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", ".", "--build-temp", "objects"]
    subprocess.run(command, cwd=folder, env=os.environ | {"CANDY_BUILD": "fast"}, check=True)


if __name__ == "__main__":
    main()
