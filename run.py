"""python run.py demo | test | serve | bench NAME | train | lint | mutants: sets up what is missing, then does it."""

import sys


def refusal(version: tuple) -> str:
    """Why this Python will not do; empty when it will. Kept apart, so that an old Python can still read this file."""
    if version >= (3, 10):
        return ""
    return "FreeSteer needs Python 3.10 or newer and this is %d.%d: run it with a newer one." % version  # noqa: UP031


if __name__ == "__main__":
    if refusal(sys.version_info[:2]):
        sys.exit(refusal(sys.version_info[:2]))
    from tools.cli import main

    sys.exit(main(sys.argv[1:]))
