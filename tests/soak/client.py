"""A client process of a soak: callers of one driver, who do what people do, until they are told to stop.

It says one JSON value a line: samples, one a second; `resting` when its callers are done, whereupon it waits for `rest`,
so that the server is kind by then; and at the end what it has found.
"""

import argparse
import asyncio
import json
import threading

from tests.soak import callers_aio, callers_threads
from tests.soak.watch import KEPT, Commands, Tally, say


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.client", description=__doc__)
    parser.add_argument("--driver", choices=("threads", "asyncio"), required=True)
    parser.add_argument("--ports", type=json.loads, required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--callers", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    tally, told = Tally(), Commands()
    tally.listen()
    threads = threading.active_count()
    life = (options.ports, options.ca, options.seed, options.callers, options.rate, options.seconds, tally, told)
    if options.driver == "threads":
        callers_threads.run(*life)
    else:
        asyncio.run(callers_aio.live(*life))
        if threading.active_count() > threads:
            tally.violation(f"threads are left: {[thread.name for thread in threading.enumerate()]}")
    if tally.warned > tally.dropped:
        tally.violation(f"{tally.warned} warnings of calls dropped unclosed, where {tally.dropped} were")
    say(
        {
            "end": {
                "violations": tally.violations[:KEPT],
                "more": max(0, len(tally.violations) - KEPT),
                "totals": tally.totals(),
                "failures": dict(tally.failures.most_common()),
                "dropped": tally.dropped,
                "warned": tally.warned,
                "logged": dict(tally.logged.most_common()),
            }
        }
    )


if __name__ == "__main__":
    main()
