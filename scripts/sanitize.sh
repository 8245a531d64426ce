#!/bin/sh
# Runs the engine's own tests, or those named, against a build with sanitizers, or with checks alone:
# sanitize.sh debug|asan|tsan [argument of pytest ...]. The build has a folder of its own (the extension and a copy of the
# Python files), so that the fast one in candy/ stays as it is. Ends with 77 where gcc lacks the sanitizer.
set -eu
cd "$(dirname "$0")/.."
kind=${1-}
case $kind in
debug) libraries= ;;
asan) libraries="libasan.so libubsan.so" ;;
tsan) libraries="libtsan.so" ;;
*)
    echo "usage: sanitize.sh debug|asan|tsan" >&2
    exit 2
    ;;
esac
shift
tree=build/$kind/tree

preload=
for library in $libraries; do
    path=$(gcc -print-file-name="$library" || :)
    case $path in
    /*) preload="$preload $path" ;;
    *)
        echo "sanitize.sh: gcc lacks $library: install the whole of gcc" >&2
        exit 77
        ;;
    esac
done

echo "build $kind"
PYTHONDONTWRITEBYTECODE= CANDY_BUILD=$kind .venv/bin/python setup.py -q build_py --build-lib "$tree" \
    build_ext --build-lib "$tree" --build-temp "build/$kind/objects"

# Python never frees all of its memory, so leaks can't be told from it; its own allocator would hide the engine's errors.
export LD_PRELOAD="${preload# }" PYTHONMALLOC=malloc PYTHONPATH="$tree"
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=0:exitcode=66
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1:exitcode=66
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:exitcode=66

# Longer than in make test: see tests/engine/test_stress.py.
export CANDY_STRESS="${CANDY_STRESS:-4}"

# Kernels put memory at more random places than the libtsan of an older gcc knows; not all containers let that be changed.
fixed=
if [ "$kind" = tsan ] && setarch -R true 2>/dev/null; then
    fixed="setarch -R"
fi

# -P: the current folder holds the fast build, and would be found first.
loaded=$($fixed .venv/bin/python -P -c 'import candy._fastpath as engine; print(engine.__file__)')
case $loaded in
*"/$tree/"*) ;;
*)
    echo "sanitize.sh: tests would run against $loaded instead of $tree" >&2
    exit 1
    ;;
esac
echo "test $kind"
# A report ends the process: only Python's own output may be captured, or it would be lost with it.
exec $fixed .venv/bin/python -P -m pytest -q -m engine --capture=sys "$@"
