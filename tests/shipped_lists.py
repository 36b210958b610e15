"""Which of Debian's keys are listed in the repository: the tests fail if a list named here loses a block."""

from __future__ import annotations

from keyassay.lists import lookup
from keyassay.lists.format import SHIPPED, BlockName, block_names
from keyassay.lists.recipes.debian_openssl import STATES

#: kind -> states whose blocks are all there. Blocks of other kinds and states may be there or not.
COMPLETE = {
    "rsa-512": STATES,
    "rsa-1024": STATES,
    "rsa-2048": STATES,
    "rsa-3072": STATES,
    "rsa-4096": ("rnd", "nornd", "noreadrnd"),
    "ec-secp160r1": STATES,
    "ec-p224": STATES,
    "ec-p256": STATES,
    "ec-p384": STATES,
    "ec-p521": STATES,
    "ec-secp256k1": STATES,
}

BLOCKS = lookup.DATA


def there(kind: str) -> list[BlockName]:
    """The blocks of a kind that are in the repository."""
    return [name for name in block_names(kind) if (BLOCKS / name.path).exists()]


#: kinds of which there is anything
LISTED = tuple(kind for kind in SHIPPED if there(kind))
