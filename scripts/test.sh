#!/bin/sh
# All tests, two at a time. Those in network namespaces wait most of their time for what real programs do at their own
# pace, so three of their modules at a time run beside all others; what they say is shown at the end.
#
# Clusters with real servers of NATS take minutes: `make cluster`.
#
# On a busy machine a test's programs may wait longer than the test's patience. Whatever failed therefore runs once more
# with nothing beside it, under its name: what is broken fails again, and that fails the whole.
set -u
cd "$(dirname "$0")/.."
python=.venv/bin/python
apart="--ignore=tests/relay/cluster/test_cluster.py
    --ignore=tests/relay/cluster/test_faults.py
    --ignore=tests/relay/cluster/test_jetstream.py --ignore=tests/relay/cluster/test_programs.py
    --ignore=tests/relay/cluster/test_recorders.py"
said=$(mktemp)
waiting=
trap 'rm -f "$said"' EXIT
trap '[ -z "$waiting" ] || kill "$waiting" 2>/dev/null; exit 130' INT TERM

# passed STATUS FOLDER ARGUMENT...: whether pytest ended well with that status, or does so with what failed, alone.
passed() {
    [ "$1" -ne 0 ] || return 0
    [ "$1" -eq 1 ] || return 1
    folder=$2
    shift 2
    echo "once more, alone"
    $python -m pytest -v --last-failed --maxfail=1 -o cache_dir=".pytest_cache/$folder" "$@"
}

# pytest ends a test that hangs in Python; what hangs in a call of the engine is ended here, and -v tells its name.
bounded="timeout --kill-after=60 2400"

$bounded $python -m pytest -v -o cache_dir=.pytest_cache/netns --cache-clear -n 3 --dist loadfile $apart tests/netns \
    >"$said" 2>&1 &
waiting=$!
$bounded $python -m pytest -q -o cache_dir=.pytest_cache/others --cache-clear -n 2 --ignore=tests/netns $apart
others=$?
wait "$waiting"
netns=$?
waiting=
echo "tests/netns"
cat "$said"
passed "$others" others --ignore=tests/netns $apart && passed "$netns" netns $apart tests/netns
