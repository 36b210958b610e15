"""``--walk``: keys of sizes without a complete list, decided by trying what every Debian stream makes as divisors.

After all checks of a run: every different modulus that nothing has broken and that the lists cannot decide is walked
for, all of them together, and what is found is a finding of rsa-debian-openssl like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from keyassay.bulk.fleet import Spool
from keyassay.certificates.fleet import NotRun
from keyassay.certificates.limits import Limits
from keyassay.certificates.public_key import RsaPublicKey
from keyassay.checks import check
from keyassay.checks.rsa_debian_openssl import walked
from keyassay.errors import KeyassayError
from keyassay.findings import Classification, Finding
from keyassay.lists import lookup, walk

#: the check whose findings a walk makes
CHECK = "rsa-debian-openssl"
#: process ids of a whole walk
PIDS = range(32_768)


class Walking:
    """The walk of one run.

    Attributes:
        notes: what could not be done.
        remarks: what was done, how deep, and how likely a weak key was missed.
        interrupted: the user broke it off.
    """

    def __init__(self, depth: float, jobs: int, progress: Callable[[str, float], None]) -> None:
        """Prepare.

        Args:
            depth: in mean distances between primes.
            jobs: worker processes.
            progress: told (phase, share).
        """
        self.notes: list[NotRun] = []
        self.remarks: list[str] = []
        self.interrupted = False
        self._depth = depth
        self._jobs = jobs
        self._progress = progress

    def find(self, spool: Spool, found: dict[int, list[Finding]], limits: Limits) -> None:
        """Walk for the keys of a run, and add the findings to those there are.

        Args:
            spool: the results of the run.
            found: by ordinal: findings that fleet checks have made; grows.
            limits: keys above them are left alone.
        """
        holders: dict[int, list[tuple[int, RsaPublicKey]]] = {}
        for ordinal, key in _undecided(spool, found, limits):
            holders.setdefault(key.modulus, []).append((ordinal, key))
        in_reach = [one for one in holders if walk.LEAST_BITS <= one.bit_length() <= walk.MOST_BITS]
        without_list = [one for one in in_reach if walk.unlisted(one.bit_length(), PIDS)]
        candidates = [one for one in without_list if walk.possible(one)]
        for bits in sorted({one.bit_length() for one in without_list}):
            self._remark(bits, without_list)
        to_do = walk.groups(candidates, lambda bits: walk.unlisted(bits, PIDS))
        place = folder()
        try:
            for divisor in walk.walk(
                to_do,
                place,
                depth=self._depth,
                jobs=self._jobs,
                progress=lambda share: self._progress("walking for Debian keys", share),
            ):
                key_made = walk.key_of(divisor)
                if key_made is not None:
                    walk.remember(divisor.modulus, divisor.stream, key_made.blocks)
                verdict = walked(divisor.stream, divisor.prime, key_made)
                for ordinal, key in holders[divisor.modulus]:
                    found.setdefault(ordinal, []).append(check(CHECK).finding(key, verdict))
        except KeyboardInterrupt:
            self.interrupted = True
            self.remarks = []
            reason = f"the walk was interrupted; the same scan with --walk goes on from what lies in {place}"
            self.notes.append(NotRun(CHECK, reason))
        except KeyassayError as error:
            self.remarks = []
            self.notes.append(NotRun(CHECK, f"no walk: {error}"))

    def _remark(self, bits: int, moduli: list[int]) -> None:
        those = [one for one in moduli if one.bit_length() == bits]
        left = sum(map(walk.possible, those))
        text = f"{len(those):,} key{'' if len(those) == 1 else 's'} of {bits} bits without a complete list: "
        if left < len(those):
            text += f"{len(those) - left:,} cannot be Debian's by N modulo 3 or its leading bits"
            text += ", " if left else ""
        if left:
            miss = walk.missed(self._depth)
            text += f"{left:,} walked to depth {self._depth:g}, a weak one is missed with probability {miss:.1e}"
        self.remarks.append(text)


def _undecided(spool: Spool, found: dict[int, list[Finding]], limits: Limits) -> Iterator[tuple[int, RsaPublicKey]]:
    """RSA keys that nothing has broken, with their ordinals."""
    ordinal = 0
    for number in range(len(spool)):
        for result in spool.block(number):
            key = result.item.key
            if isinstance(key, RsaPublicKey) and not limits.exceeded_by(key):
                findings: Iterable[Finding] = (*result.findings, *found.get(ordinal, ()))
                if all(one.classification is not Classification.BROKEN for one in findings):
                    yield ordinal, key
            ordinal += 1


def folder() -> Path:
    """Where walks keep what they have done."""
    return lookup.cache_folder() / "walks"
