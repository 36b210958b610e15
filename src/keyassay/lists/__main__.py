"""``python -m keyassay.lists merge``: merge the blocks of a checkout into the lists that look-ups map."""

import sys

from keyassay.lists import lookup
from keyassay.lists.format import SHIPPED


def main(arguments: list[str]) -> int:
    """Merge what is not current; quiet about it with ``--quiet``."""
    if arguments[:1] != ["merge"]:
        sys.stderr.write("usage: python -m keyassay.lists merge [--quiet]\n")
        return 2
    for kind in SHIPPED:
        found = lookup.merged(kind)
        if "--quiet" not in arguments:
            state = "missing" if found is None else f"{found.blocks} of {found.complete_blocks} blocks"
            sys.stdout.write(f"{kind}: {state}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
