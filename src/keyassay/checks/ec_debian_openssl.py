"""Elliptic curve keys from Debian's OpenSSL with the predictable random generator (CVE-2008-0166).

Weakness: from September 2006 to May 2008 Debian's OpenSSL (0.9.8c-1 to 0.9.8g-8, Ubuntu's too) had lost its seeding:
what a key came out as was decided by the process id, the platform and whether ~/.rnd was there and could be read, or
was not looked at. That leaves 393,216 keys on each curve, and this project has made all of them again.

Method: SHA-256 of the x coordinate, padded to the field's size, is looked up in the list of the curve. The list names
the stream (platform, state, process id), the stream gives d, and only a point that equals dG is a finding. The x
coordinate covers d and its negative; compressed points are looked up as they are.

Cost: 1.5 us a key; 0.2 ms for a hit.

Profiles: the same in all, `aws` included.

Mistakes: none: the private key is made again from the stream and gives the public key.

Blind spots: curves other than secp160r1, P-224, P-256, P-384, P-521 and secp256k1. Keys made by a vulnerable original
were compared on P-256 and P-384 in the states rnd, nornd and noreadrnd; for the other curves, and in the state direct,
the lists rest on the description of the generator.

Not in the lists that come with the program, but in ones that `keyassay lists build` makes within minutes and this check
then uses (see docs/list-format.md): the second key of a process, keys made with one file of up to 2048 bytes or a
device given by `-rand`, keys of mips, mipsel and alpha. In no list: the third and later keys, keys after other random
numbers (TLS servers), several or larger files with `-rand`, a system without /dev/urandom, and platforms with yet
another `struct stat` unless ~/.rnd played no part.

Remedy: a new key from a sound system. The other keys of that machine and time are as bad: replace all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from keyassay.certificates.batches import EcBatch
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import EcPublicKey, PublicKey
from keyassay.checks import REASON_PREFIX, Context, batch_check
from keyassay.findings import Classification, Confidence, EcPrivateKey, Profile, Severity, Step, Value, Verdict
from keyassay.lists.debian import coordinate_bytes, curve_order, curves, ec_key, find_ec, gap
from keyassay.lists.format import Kind
from keyassay.lists.recipes.debian_openssl import Stream


@dataclass(frozen=True, kw_only=True)
class DebianEcKey(EcPrivateKey):
    """The stream that made the key."""

    kind: Kind
    stream: Stream

    def proves(self, subject: PublicKey | Item) -> bool:
        """The stream gives d or its negative, and dG is the key's point."""
        if not super().proves(subject) or not isinstance(subject, EcPublicKey):
            return False
        d, _, _ = ec_key(subject.curve, self.stream, self.kind.variant)
        return self.d in (d, curve_order(subject.curve) - d)

    def describe(self) -> Mapping[str, Value]:
        return {"proof": "key made again", "list": self.kind.list_name, **self.stream.fields}

    def steps(self, subject: PublicKey | Item) -> list[Step]:
        assert isinstance(subject, EcPublicKey)
        size = coordinate_bytes(subject.curve)
        digest = hashlib.sha256(subject.point[1 : 1 + size]).hexdigest()
        words = f", {self.kind.variant.words}" if self.kind.variant.words else ""
        return [
            Step(
                f"A vulnerable OpenSSL on platform {self.stream.arch}, state of ~/.rnd {self.stream.state}, as process "
                f"{self.stream.pid}{words}, draws this private key"
            ),
            Step("`keyassay lists find` names the same stream for the x coordinate", f"keyassay lists find {digest}"),
            *super().steps(subject),
        ]


@batch_check(
    id="ec-debian-openssl",
    title="Debian's predictable OpenSSL",
    applies_to=(EcPublicKey,),
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.FAST,
    version=2,
    references=(
        "CVE-2008-0166",
        "DSA-1571-1",
        "Yilek, Rescorla, Shacham, Enright, Savage 2009: When private keys are public",
    ),
    reason_code=REASON_PREFIX + "CVE-2008-0166",
    explained_by=("ec-invalid-point",),
)
def ec_debian_openssl(batch: EcBatch, context: Context) -> Iterator[tuple[int, Verdict]]:
    """One sorted look-up for all keys of a curve."""
    kind = curves().get(batch.curve)
    if kind is None:
        return
    missing = gap(kind)
    if missing:
        context.leave_out("ec-debian-openssl", f"{missing}; `keyassay lists build --key {kind}` makes the others")
    size = coordinate_bytes(batch.curve)
    lengths = (1 + size, 1 + 2 * size)
    rows = [row for row, key in enumerate(batch.keys) if len(key.point) in lengths]
    coordinates = [batch.keys[row].point[1 : 1 + size] for row in rows]
    order = curve_order(batch.curve)
    for hit in find_ec(batch.curve, coordinates, batch.sha256_prefixes[rows]):
        key = batch.keys[rows[hit.row]]
        evidence = next(
            (
                one
                for one in (DebianEcKey(d, kind=hit.kind, stream=hit.stream) for d in (hit.d, order - hit.d))
                if one.proves(key)
            ),
            None,
        )
        if evidence is not None:
            yield (
                rows[hit.row],
                Verdict(
                    f"made by Debian's OpenSSL with the predictable generator: {hit.stream} gives the private key",
                    evidence,
                ),
            )
