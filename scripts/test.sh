#!/bin/sh
# All tests, two at a time. Those in network namespaces wait most of their time for what real programs do at their own
# pace, so three of their modules at a time run beside all others; what they say is shown at the end.
set -u
cd "$(dirname "$0")/.."
python=.venv/bin/python
said=$(mktemp)
waiting=
trap 'rm -f "$said"' EXIT
trap '[ -z "$waiting" ] || kill "$waiting" 2>/dev/null; exit 130' INT TERM

$python -m pytest -q -p no:cacheprovider -n 3 --dist loadfile tests/netns >"$said" 2>&1 &
waiting=$!
$python -m pytest -q -n 2 --ignore=tests/netns
others=$?
wait "$waiting"
netns=$?
waiting=
echo "tests/netns"
cat "$said"
[ "$others" -eq 0 ] && [ "$netns" -eq 0 ]
