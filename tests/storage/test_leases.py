"""Leases: one holder at a time, a rising number, and a slow worker that finds out."""

from __future__ import annotations

import threading
import time

import pytest

from keyassay.storage import leases
from keyassay.storage.database import Actor, Database

ACTOR = Actor("111111111111", "worker:test")


def test_one_holder_until_it_ends_or_is_released(database: Database) -> None:
    first = leases.take(database, "work", "one", 60)
    assert first == leases.Lease("work", "one", 1)
    assert leases.take(database, "work", "two", 60) is None
    assert leases.take(database, "work", "one", 60) is None
    assert leases.take(database, "other work", "two", 60) is not None
    leases.release(database, first)
    second = leases.take(database, "work", "two", 0.05)
    assert second is not None
    assert second.fence == 2
    time.sleep(0.06)
    third = leases.take(database, "work", "one", 60)
    assert third is not None
    assert third.fence == 3


def test_a_slow_worker_finds_out(database: Database) -> None:
    slow = leases.take(database, "work", "slow", 0)
    assert slow is not None
    with database.write(ACTOR) as transaction:
        leases.check(transaction, slow)  # it ran out, and nobody took it
    assert leases.renew(database, slow, 0)
    quick = leases.take(database, "work", "quick", 60)
    assert quick is not None
    assert not leases.renew(database, slow, 60)
    leases.release(database, slow)
    with pytest.raises(leases.LeaseLostError), database.write(ACTOR) as transaction:
        leases.check(transaction, slow)
    with database.write(ACTOR) as transaction:
        leases.check(transaction, quick)
        leases.forget(transaction, "work")
    with pytest.raises(leases.LeaseLostError), database.write(ACTOR) as transaction:
        leases.check(transaction, quick)


def test_any_number_may_say_that_they_do_a_kind_of_work(database: Database) -> None:
    def announced(later: int = 0) -> bool:
        with database.read() as connection:
            return leases.is_announced(connection, "a kind of work", time.time_ns() // 1_000_000 + later)

    assert not announced()
    leases.announce(database, "a kind of work", "one", 60)
    leases.announce(database, "a kind of work", "two", 120)
    assert announced()
    assert announced(119_000)
    assert not announced(121_000)


def test_a_taker_waits_for_a_transaction_that_checked(database: Database) -> None:
    lease = leases.take(database, "work", "slow", 0)
    assert lease is not None
    taken: list[object] = []
    taker = threading.Thread(target=lambda: taken.append(leases.take(database, "work", "quick", 60)))
    with database.write(ACTOR) as transaction:
        leases.check(transaction, lease)
        taker.start()
        time.sleep(0.2)
        assert taken == []
    taker.join(20)
    assert taken == [leases.Lease("work", "quick", 2)]


def test_of_many_takers_one_gets_it(database: Database) -> None:
    found: list[leases.Lease | None] = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(leases.take(database, "work", str(n), 60))) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len([one for one in found if one is not None]) == 1
    assert len(found) == 8
