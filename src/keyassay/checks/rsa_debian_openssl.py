"""RSA keys from Debian's OpenSSL with the predictable random generator (CVE-2008-0166).

Weakness: from September 2006 to May 2008 Debian's OpenSSL (0.9.8c-1 to 0.9.8g-8, Ubuntu's too) had lost its seeding:
what a key came out as was decided by the process id, the platform and whether ~/.rnd was there and could be read, or
was not looked at. That leaves 393,216 keys of each size, which this project makes again.

Method: SHA-256 of the bare modulus is looked up in the list of its size: 512, 1024, 2048, 3072 or 4096 bits. The list
names the stream (platform, state, process id), the stream makes the whole key again, and only an equal modulus is a
finding. The public exponent plays no part, but where it decided about a prime (e = 65537) both moduli are in the list.

`keyassay scan --walk` decides keys of other sizes (256 to 16,320 bits), and of sizes whose list is not complete: the
candidates for primes of every stream are tried as divisors, without a test of primality, until a weak key would have
shown itself but for a probability of 4.5e-5 (depth 10: ten mean distances between primes; `--walk-depth`). A factor
that is found leads to the stream, and the stream makes the whole key again. Half of all sound keys are ruled out at
once, since N is 1 modulo 3 for all keys of this generator. Keys that a walk found are known to later scans.

Cost: 1.5 us a key; 3 ms for a hit. A walk serves all moduli whose primes have one size: see docs/performance.md. It is
kept in the user's cache folder, 400 MB while it runs, and goes on there when it is started again with the same keys.

Profiles: the same in all, `aws` included.

Mistakes: none: the key is made again from the stream, p and q with it.

Blind spots: other sizes without `--walk`; with it, one in 65,536 streams, whose first prime the exponent refused, and
variants. Keys of 1024 to 4096 bits made by a vulnerable original were compared in the states rnd, nornd and noreadrnd;
for 512 bits, and in the state direct, the lists rest on the description of the generator. Should a list lack a block,
`keyassay lists status` says so, and so does the summary of a scan that met a key of that size.

Not in the lists that come with the program, but in ones that `keyassay lists build` makes and this check then uses (see
docs/list-format.md): the second key of a process, keys made with one file of up to 2048 bytes or a device given by
`-rand`, keys of mips, mipsel and alpha. In no list: the third and later keys, keys after other random numbers (TLS
servers, ssh-keygen), several or larger files with `-rand`, two of f streams where the exponent has a prime factor f
above 17863 that is not 65537, a system without /dev/urandom, and platforms with yet another `struct stat` unless
~/.rnd played no part.

Remedy: a new key from a sound system. The other keys of that machine and time are as bad: replace all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from keyassay.certificates.batches import RsaBatch
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import PublicKey, RsaPublicKey
from keyassay.checks import REASON_PREFIX, Context, batch_check
from keyassay.findings import Classification, Confidence, Factor, Profile, Severity, Step, Value, Verdict
from keyassay.lists.debian import find_rsa, gap, sizes
from keyassay.lists.format import Kind, number_digest
from keyassay.lists.recipes.debian_openssl import RsaKey, Stream, rsa_key_from_hints
from keyassay.lists.walk import key_from_blocks, remembered


@dataclass(frozen=True, kw_only=True)
class DebianRsaKey(Factor):
    """The stream that made the key, and where in it the primes are."""

    kind: Kind
    stream: Stream
    blocks: tuple[int, int]

    def proves(self, subject: PublicKey | Item) -> bool:
        """The stream gives p and q, and their product is N."""
        if not super().proves(subject) or not isinstance(subject, RsaPublicKey):
            return False
        key = rsa_key_from_hints(self.stream, subject.bits, self.blocks, self.kind.variant)
        return key.modulus == subject.modulus and self.factor in (key.first, key.second)

    def describe(self) -> Mapping[str, Value]:
        return {"proof": "key made again", "list": self.kind.list_name, **self.stream.fields}

    def secrets(self) -> Mapping[str, Value]:
        return {**super().secrets(), "blocks": list(self.blocks)}

    def steps(self, subject: PublicKey | Item) -> list[Step]:
        assert isinstance(subject, RsaPublicKey)
        digest = number_digest(subject.modulus).hex()
        stream = self.stream
        first, second = self.blocks
        words = f", {self.kind.variant.words}" if self.kind.variant.words else ""
        return [
            Step(
                f"{_maker(stream)}{words}, makes this key: its generator's blocks {first} and {second} became p and q"
            ),
            Step("`keyassay lists find` names the same stream for the modulus", f"keyassay lists find {digest}"),
            *super().steps(subject),
        ]


@dataclass(frozen=True, kw_only=True)
class WalkedRsaKey(Factor):
    """The stream that made a key of a size without a list, and where in it the primes are."""

    stream: Stream
    blocks: tuple[int, int]

    def proves(self, subject: PublicKey | Item) -> bool:
        """The stream gives p and q, and their product is N."""
        if not super().proves(subject) or not isinstance(subject, RsaPublicKey):
            return False
        key = key_from_blocks(self.stream, subject.bits, self.blocks)
        return key.modulus == subject.modulus and self.factor in (key.first, key.second)

    def describe(self) -> Mapping[str, Value]:
        return {"proof": "key made again", **self.stream.fields}

    def secrets(self) -> Mapping[str, Value]:
        return {**super().secrets(), "blocks": list(self.blocks)}

    def steps(self, subject: PublicKey | Item) -> list[Step]:
        first, second = self.blocks
        made = f"{_maker(self.stream)}, makes this key: its generator's blocks {first} and {second} became p and q"
        return [Step(made), *super().steps(subject)]


def _maker(stream: Stream) -> str:
    """Who made a key, for proofs."""
    start = {
        "rnd": "a readable ~/.rnd",
        "nornd": "no ~/.rnd",
        "noreadrnd": "a ~/.rnd that it could not read",
        "direct": "no look at ~/.rnd",
    }[stream.state]
    return f"A vulnerable OpenSSL on platform {stream.arch}, as process {stream.pid}, with {start}"


def walked(stream: Stream, prime: int, key: RsaKey | None) -> Verdict:
    """What `--walk` found: a stream's prime divides a modulus, and the stream makes the whole key, or something else.

    Something else: a key with an exponent that refused a prime of the stream, or one that somebody made up.
    """
    if key is None:
        return Verdict(
            f"shares a prime with Debian's predictable generator: {stream}",
            Factor(prime, notes=dict(stream.fields)),
        )
    return Verdict(_verdict(stream), WalkedRsaKey(key.first, stream=stream, blocks=key.blocks))


def _verdict(stream: Stream) -> str:
    return f"made by Debian's OpenSSL with the predictable generator: {stream} gives the whole key"


@batch_check(
    id="rsa-debian-openssl",
    title="Debian's predictable OpenSSL",
    applies_to=(RsaPublicKey,),
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
)
def rsa_debian_openssl(batch: RsaBatch, context: Context) -> Iterator[tuple[int, Verdict]]:
    """One sorted look-up for all keys of a size."""
    kind = sizes().get(batch.bits)
    if kind is None or gap(kind):
        for row, stream, key in remembered(batch.moduli, batch.sha256_prefixes):
            yield row, walked(stream, key.first, key)
    if kind is None:
        if not context.walk_follows:
            listed = ", ".join(str(bits) for bits in sorted(sizes()))
            reason = (
                f"keys of sizes other than {listed} bits were not looked up: no list; `keyassay scan --walk` decides"
            )
            context.leave_out("rsa-debian-openssl", f"{reason} them in hours")
        return
    missing = gap(kind)
    if missing and not context.walk_follows:
        context.leave_out("rsa-debian-openssl", f"{missing}; `keyassay lists build --key {kind}` makes the others")
    for hit in find_rsa(batch.bits, batch.moduli, batch.sha256_prefixes):
        yield (
            hit.row,
            Verdict(
                _verdict(hit.stream),
                DebianRsaKey(hit.p, kind=hit.kind, stream=hit.stream, blocks=hit.blocks),
            ),
        )
