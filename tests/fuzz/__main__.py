"""
Opens damaged media and malformed conversations: `python -m tests.fuzz --number 10000`.

Prints what ended in another way than well or with a documented error, and the kind and seed to see it again with.
"""

import argparse
import sys

from .watch import Watched, faults
from .worker import KINDS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "--number", type=int, default=2000, help="inputs, of all kinds together (default: %(default)s)"
    )
    parser.add_argument("--first-seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--kind", choices=KINDS, action="append", help="can be repeated (default: all)")
    options = parser.parse_args()
    kinds = tuple(options.kind or KINDS)
    seeds = range(options.first_seed, options.first_seed + options.number // len(kinds))
    worker, found = Watched(), 0
    try:
        for fault in faults(seeds, kinds, worker):
            print(fault, flush=True)
            found += 1
    finally:
        worker.stop()
    print(f"{len(seeds) * len(kinds)} inputs, {found} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
