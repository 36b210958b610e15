"""Asks badkeys and roca-detect about RSA keys; runs in their environment, reads and writes JSON lines.

Input: {"n": hex, "e": hex}. Output: {"badkeys": [names of checks], "roca": bool}.
"""

from __future__ import annotations

import json
import logging
import sys

from badkeys.checks import checkrsa
from roca.detect import RocaFingerprinter

#: The checks that badkeys runs by default, less its block list, which has to be downloaded, and its look at xz.
CHECKS = ["fermat", "roca", "rsainvalid", "rsapoly", "sharedprimes", "smalld", "smallfactors", "xzbackdoor"]


def main() -> None:
    logging.disable(logging.CRITICAL)
    fingerprinter = RocaFingerprinter()
    for line in sys.stdin:
        key = json.loads(line)
        n, e = int(key["n"], 16), int(key["e"], 16)
        roca = bool(fingerprinter.has_fingerprint(n))
        print(json.dumps({"badkeys": sorted(checkrsa(n, e=e, checks=CHECKS)), "roca": roca}))


if __name__ == "__main__":
    main()
