"""The engine of a checkout, in a process of its own: whichever candy comes first in PYTHONPATH.

throughput.py --against starts one for each of its two builds. It is told what to do in lines of JSON on standard input,
and answers each with one on standard output:

    {"workers": 1, "extended": true, "members": {"7": 184549377}}   descriptor: address, of connected TCP sockets
    {"engine": "/checkout/candy/_fastpath.so"}                      the members are bound; {"error": "…"}: it ends
    {}                                                              asks for totals since the start; any line does
    {"cpu_ns": 1, "sends": 2, "drops": {"queue_full": 0}}           of the workers; send calls; packets by reason

It ends with its standard input. It uses nothing but what every build's Engine has.
"""

import json
import sys


def say(answer: dict[str, object]) -> None:
    print(json.dumps(answer), flush=True)


def main() -> None:
    try:
        from candy import _fastpath
    except ImportError as error:
        # A build for another Python, for example.
        say({"error": str(error)})
        return
    order = json.loads(sys.stdin.readline())
    # The members of a bench never say a word on their own: no liveness.
    engine = _fastpath.Engine(order["workers"], ping_after=0, dead_after=0)
    try:
        engine.add_network()
        for descriptor, address in order["members"].items():
            engine.bind(engine.adopt(int(descriptor), extended=order["extended"]), address)
        say({"engine": _fastpath.__file__})
        for _ in sys.stdin:
            say({"cpu_ns": sum(engine.worker_cpu_ns()), "sends": engine.stats()["sends"], "drops": engine.drops()})
    finally:
        engine.stop()


if __name__ == "__main__":
    main()
