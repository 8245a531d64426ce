"""Compiles candy's extension modules; everything else stands in pyproject.toml.

    candy._fastpath      the engine
    bench._endpoints     what the benchmarks measure with: built in place alone, never installed

CANDY_BUILD chooses how:
    fast      (default) what users get; runs on any machine of the architecture, so never -march=native
    debug     bounds, None and assert checks on; tests can hold threads at points
    asan      debug, with the address and undefined-behaviour sanitizers
    tsan      debug, with the thread sanitizer
    mutant    as debug, but the quickest to compile: see scripts/mutants.py

The generated C lies in build/<variant>/.
"""

import os
import sys
from glob import glob

if sys.platform != "linux":
    sys.exit(f"candy-vpn needs Linux (TUN devices, epoll): it can't be built on {sys.platform}")

from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer

CHECKED = ["-O1", "-g", "-UNDEBUG", "-fno-omit-frame-pointer"]
FLAGS = {
    "fast": ["-O3", "-g"],
    "debug": CHECKED,
    # Reports name functions and lines; all else that -g writes makes the build half as long again.
    "asan": [*CHECKED, "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "tsan": [*CHECKED, "-g1", "-fsanitize=thread"],
    "mutant": ["-O0", "-g0", "-UNDEBUG"],
}
# The exceptions are what Cython's own code never heeds.
WARNINGS = [
    "-Wall",
    "-Wextra",
    *(f"-Wno-{w}" for w in ("unused-parameter", "unused-variable", "missing-field-initializers")),
]

variant = os.environ.get("CANDY_BUILD") or "fast"
if variant not in FLAGS:
    sys.exit(f"CANDY_BUILD={variant} is unknown: use one of {', '.join(FLAGS)}")
checked = variant != "fast"

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": checked,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": checked,
}
# What is `cdef inline` in the engine is so for the sake of a packet's way. By itself gcc makes a call of forward(), and
# a packet of 64 bytes costs a fifth more.
FAST: list[tuple[str, str | None]] = [
    ("CYTHON_WITHOUT_ASSERTIONS", "1"),
    ("CYTHON_INLINE", "inline __attribute__((always_inline))"),
]
MACROS = [("CANDY_POINTS", "1")] if checked else FAST

Options.warning_errors = True


class BuildExtensions(build_ext):
    """build_ext with the variant's directives, that never takes another variant's file for its own."""

    def finalize_options(self) -> None:
        if self.inplace or self.editable_mode:
            # Built here, then copied to the sources.
            self.build_lib = self.build_lib or f"build/{variant}/lib"
            self.build_temp = self.build_temp or f"build/{variant}/objects"
        else:
            self.distribution.ext_modules = [engine]
            if self.build_lib is None:
                # A wheel is built in folders that all variants share.
                self.force = True
        super().finalize_options()

    def build_extension(self, extension: Extension) -> None:
        folder = f"build/{variant}"
        [source] = extension.sources
        # cythonize() sees a change of any part of the engine, but not one of the directives.
        force = self.force or newer("setup.py", f"{folder}/{source.removesuffix('.pyx')}.c")
        [translated] = cythonize([extension], build_dir=folder, compiler_directives=DIRECTIVES, force=force, quiet=True)
        extension.sources = translated.sources
        super().build_extension(extension)

    def copy_extensions_to_source(self) -> None:
        # Unless forced, a file beside the sources that is newer stays, also when it is another variant's.
        self.force = True
        super().copy_extensions_to_source()


def extension(name: str, *parts: str) -> Extension:
    """A module of Cython, and the files that it includes."""
    return Extension(
        name,
        [f"{name.replace('.', '/')}.pyx"],
        depends=[*sorted(glob("candy/engine/*")), *parts],
        include_dirs=["candy"],
        define_macros=MACROS,
        extra_compile_args=[*FLAGS[variant], "-fno-strict-aliasing", "-pthread", *WARNINGS],
        extra_link_args=["-pthread", *(f for f in FLAGS[variant] if f.startswith("-fsanitize="))],
    )


engine = extension("candy._fastpath")
endpoints = extension("bench._endpoints", *sorted(glob("bench/*.pxi")))

# A source distribution and a checkout have bench/, and only a build in place has a use for it.
setup(ext_modules=[engine, endpoints], cmdclass={"build_ext": BuildExtensions})
