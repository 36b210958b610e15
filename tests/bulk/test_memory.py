"""What a block took is given back when it is done, without the collector of cycles, which runs rarely in a scan."""

from __future__ import annotations

import gc

from census_keys import census
from keyassay.bulk.results import Settings
from keyassay.bulk.scan import Plan, assess_items
from keyassay.certificates.decoding import item_of_key
from keyassay.findings import Profile


def test_a_block_leaves_no_cycles():
    items = [item_of_key(key) for key in census().rsa["openssl"][:2_000]]
    plan = Plan.of(Settings(profile=Profile.FAST, fleet=False), len(items))
    assess_items(items, plan)  # tables and imports
    gc.collect()
    gc.disable()
    try:
        assess_items(items, plan)
        assert gc.collect() == 0
    finally:
        gc.enable()
