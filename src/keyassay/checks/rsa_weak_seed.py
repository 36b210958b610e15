"""Primes from a weak generator with a seed that can be guessed.

Weakness: a program seeds an ordinary random generator (C's rand(), MT19937, java.util.Random, Python's random) with a
small number, a process id, or the time, and searches primes from what it puts out. Whoever tries the seeds has the key.
A certificate even says when its key was made.

Method: from its seed each generator is remade and gives the two numbers that the primes were searched from. The search
changes none of their leading bits, so their product begins as the modulus does, and no primality test is needed: a
multiplication in floating point and a look-up among all moduli of the run decide a seed. What agrees is made again by
the generator's plain definition, and the factor has to lie within 2^15 above one of the two numbers.
`keyassay seeds models` lists the ways from seed to numbers that are tried. A scan tries the seeds 0 to 65,535; for
generators that are seeded by the clock every second of the day before and after the beginning of each certificate,
and for Java every millisecond of the hour before and after (of half a minute for probable primes). Where the days of a
large fleet are too many for the budget, less is taken, down to a minute, and the summary says so. `keyassay seeds
search` tries any range, in worker processes; what it finds is remembered.

Cost: 21 us a seed with all models, for each size of modulus, whatever the number of keys (36 us with 10^6). So the
small seeds take 1.4 s, the days around one certificate 1.5 s, Java's milliseconds 1.4 s. It ends when as much CPU time
is spent as the first twelve keys have together (`--budget`), or a tenth of `--total-budget`, and says what is left.
What was remembered costs a microsecond a key.

Profiles: standard recognises keys that `keyassay seeds search` found on this computer; deep searches.

Mistakes: none. A key and a seed of one model agree by chance once in 2^46, and only a factor of N just above the
number that the seed leads to makes a finding.

Blind spots: with --against STORE the search is made anew for the keys of the run, around their own certificates alone.
Other seeds, such as a time mixed with a process id; `keyassay seeds search` takes ranges, but no
mixtures. Programs that draw a new number for every candidate, or that draw for other purposes before or between the
primes (Java's own tests are covered, up to 255 numbers): only the first number with the second or third is tried.
Numbers made of outputs in other ways, or with other bits forced than the highest one or two and the lowest. Primes of
unequal size, searches downward, three primes. Sizes of primes outside 256 to 4096 bits, or not a multiple of 8 (32 for
words). Seeds of more than 64 bits, generators that are not listed. Certificates that begin long after their key was
made. A scan with `--no-fleet` does not look at all.

Remedy: replace the key with one from the operating system's random source. Every key that the same program made is as
weak, whether its seed was found or not: replace them all.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keyassay.certificates.fleet import Fleet
from keyassay.certificates.item import Item
from keyassay.certificates.public_key import PublicKey, RsaPublicKey
from keyassay.checks import Context, fleet_check
from keyassay.findings import Classification, Confidence, Factor, Profile, Severity, Step, Value, Verdict
from keyassay.lists.seeds import BLOCK, MODELS, Model, Origin, Targets, prime_bits, remembered, search

ID = "rsa-weak-seed"

#: Seeds that every model is tried with.
SMALL = range(1 << 16)

#: Seconds before and after the beginning of a certificate; what fits the budget is taken.
AROUND = (86_400, 21_600, 3_600, 600, 60)

#: The same for clocks that count milliseconds, for cheap models and for dear ones.
MILLISECONDS_AROUND = (3_600_000, 600_000, 60_000, 10_000, 1_000)
DEAR_MILLISECONDS_AROUND = (30_000, 5_000, 1_000)

#: Keys that have a share in the budget of the search.
SHARES = 12

#: CPU seconds that a seed takes with all models of a clock, for one size: to choose from ``AROUND``.
_SECOND_COST, _MILLISECOND_COST, _DEAR_COST = 10e-6, 0.2e-6, 10e-6

#: Models with more pairs of numbers than this are dear.
_DEAR = 16


@dataclass(frozen=True)
class WeakSeed(Factor):
    """A factor, and the seed that it was made from (secret: whoever knows it makes the key)."""

    origin: Origin | None = None

    def proves(self, subject: PublicKey | Item) -> bool:
        """The factor divides N, and is what the generator's definition leads to."""
        return (
            super().proves(subject)
            and isinstance(subject, RsaPublicKey)
            and self.origin is not None
            and self.origin.factor(subject.modulus) == self.factor
        )

    def secrets(self) -> Mapping[str, Value]:
        assert self.origin is not None
        numbers: list[Value] = [draw + 1 for draw in self.origin.draws]
        return {**super().secrets(), "seed": self.origin.seed, "top_bits": self.origin.top, "numbers": numbers}

    def steps(self, subject: PublicKey | Item) -> list[Step]:
        assert isinstance(subject, RsaPublicKey)
        assert self.origin is not None
        model = MODELS[self.origin.model]
        size = prime_bits(subject.modulus)
        one, two = self.origin.starts(size)
        first, second = (draw + 1 for draw in self.origin.draws)
        bits = "highest bit" if self.origin.top == 1 else "two highest bits"
        return [
            *super().steps(subject),
            Step(f"The model {model.name}: {model.assumes}. Its seed is {self.origin.seed}"),
            Step(
                f"Numbers {first} and {second} of {size} bits, with the {bits} set, are those that the primes were "
                f"searched from (prints 0x{one:x} 0x{two:x})",
                _program(model, self.origin, size),
            ),
            Step(
                f"p is the first one plus {self.factor - one}, q the second plus {subject.modulus // self.factor - two}"
            ),
        ]


def _program(model: Model, origin: Origin, size: int) -> str:
    """A shell command that prints both numbers: Python's standard library and nothing of ours."""
    count = size // model.unit
    order = "little" if model.swapped else "big"
    turn = "" if model.high_first else "[::-1]"
    part = f"(next(o) >> {model.shift}) % 2**{model.unit}"
    text = (
        f"{model.generator.program}"
        f"o = g({origin.seed})\n"
        f'd = [b"".join([({part}).to_bytes({model.unit // 8}, "{order}") for _ in range({count})]{turn}) '
        f"for _ in range({max(origin.draws) + 1})]\n"
        f"for i in {origin.draws}:\n"
        f' print(hex(int.from_bytes(d[i], "big") | {(1 << origin.top) - 1} << {size - origin.top}), end=" ")\n'
    )
    return f"python3 -c '\n{text}'"


@dataclass(frozen=True, slots=True)
class _Seeds:
    """Ranges of seeds that do not meet, rising: where each starts, and how long it is."""

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.lengths.sum())

    def blocks(self) -> Iterator[NDArray[np.uint64]]:
        """All seeds in order, as many at once as are searched best, whatever the lengths of the ranges."""
        ends = np.cumsum(self.lengths)
        for first in range(0, len(self), BLOCK):
            numbers = np.arange(first, min(first + BLOCK, len(self)))
            which = np.searchsorted(ends, numbers, side="right")
            yield (self.starts[which] + numbers - (ends - self.lengths)[which]).astype(np.uint64)


@dataclass(frozen=True, slots=True)
class _Stage:
    """Seeds to try, for some models."""

    called: str
    models: tuple[Model, ...]
    seeds: _Seeds


@fleet_check(
    id=ID,
    title="seed that can be guessed",
    classification=Classification.BROKEN,
    severity=Severity.CRITICAL,
    confidence=Confidence.PROVEN,
    profile=Profile.STANDARD,
    since="0.2.0",
    references=(
        "CWE-337: Predictable Seed in Pseudo-Random Number Generator",
        "CWE-338: Use of Cryptographically Weak Pseudo-Random Number Generator",
        "M. Matsumoto, T. Nishimura, Mersenne Twister, ACM TOMACS 8, 1998",
        "Java SE API, java.util.Random and java.math.BigInteger",
    ),
    explained_by=("rsa-invalid-modulus", "rsa-unseeded-prng"),
)
def rsa_weak_seed(fleet: Fleet, context: Context) -> Iterator[tuple[int, Verdict]]:
    """What earlier searches found; in profile deep small seeds, and the time that certificates tell."""
    moduli = fleet.rsa_moduli
    found: dict[int, Verdict] = {}
    for place, origin in remembered(moduli):
        _take(found, place, origin, moduli[place])
    if context.profile >= Profile.DEEP:
        targets = Targets.of(moduli)
        if len(targets):
            seconds = min(context.budget * min(len(targets), SHARES), context.total_budget / 10)
            for place, origin in _searched(fleet, targets, seconds):
                _take(found, place, origin, moduli[place])
    for place, verdict in found.items():
        for ordinal in fleet.rsa_ordinals[place]:
            yield ordinal, verdict


def _take(found: dict[int, Verdict], place: int, origin: Origin, modulus: int) -> None:
    """Keep a verdict for a modulus if the origin proves to be its own and there is none yet."""
    factor = None if place in found else origin.factor(modulus)
    if factor is not None:
        found[place] = Verdict(_message(origin), WeakSeed(factor, {"model": origin.model}, origin))


def _message(origin: Origin) -> str:
    return f"both primes come from a weak random generator ({origin.model}) with a seed that can be guessed"


def _searched(fleet: Fleet, targets: Targets, seconds: float) -> Iterator[tuple[int, Origin]]:
    """Candidates of all stages, until the CPU time is spent."""
    deadline = time.process_time() + seconds
    portions = list(targets.portions())
    tell = fleet.progress(ID)
    stages = _stages(fleet, len(targets.groups), seconds)
    total = sum(len(stage.seeds) * len(stage.models) for stage in stages)
    done = 0
    for stage in stages:
        for generator in dict.fromkeys(model.generator for model in stage.models):
            models = [model for model in stage.models if model.generator is generator]
            for block in stage.seeds.blocks():
                for portion in portions:
                    for candidate in search(portion, models, block):
                        yield candidate
                        if time.process_time() > deadline:
                            break
                    if time.process_time() > deadline:
                        fleet.not_run(ID, _unfinished(stages, stage, generator.name))
                        return
                done += len(block) * len(models)
                tell(done / total)


def _unfinished(stages: list[_Stage], stage: _Stage, generator: str) -> str:
    left = [one.called for one in stages[stages.index(stage) + 1 :]]
    also = f", and not at all {' and '.join(left)}" if left else ""
    return (
        f"the budget was spent on {stage.called} at the generator {generator}: later ones were not tried{also}; raise "
        "--budget, or see `keyassay seeds search`"
    )


def _stages(fleet: Fleet, sizes: int, seconds: float) -> list[_Stage]:
    """What is tried, likeliest first."""
    everything = tuple(MODELS.values())
    stages = [_Stage(f"seeds below {SMALL.stop:,}", everything, _Seeds(np.array([0]), np.array([len(SMALL)])))]
    times = _beginnings(fleet)
    if not len(times):
        return stages
    clocks = (
        ("the seconds", 1, "s", False, AROUND, _SECOND_COST),
        ("the milliseconds", 1_000, "ms", False, MILLISECONDS_AROUND, _MILLISECOND_COST),
        ("the milliseconds for probable primes", 1_000, "ms", True, DEAR_MILLISECONDS_AROUND, _DEAR_COST),
    )
    for called, a_second, clock, dear, widths, cost in clocks:
        models = tuple(one for one in everything if one.clock == clock and (len(one.pairs) > _DEAR) == dear)
        affordable = seconds / (2 * cost * sizes)
        fitting = (one for one in widths if len(_around(times * a_second, one, a_second)) <= affordable)
        width = next(fitting, widths[-1])
        if width != widths[0]:
            fleet.not_run(
                ID, f"{called} around {len(times):,} beginnings: only {_span(width // a_second)} before and after"
            )
        seeds = _around(times * a_second, width, a_second)
        stages.append(_Stage(f"{called} around the beginnings of certificates", models, seeds))
    return stages


def _span(seconds: int) -> str:
    for size, unit in ((3_600, "hour"), (60, "minute")):
        if seconds >= size:
            return f"{seconds // size} {unit}{'s' if seconds >= 2 * size else ''}"
    return f"{seconds} second{'s' if seconds > 1 else ''}"


def _beginnings(fleet: Fleet) -> NDArray[np.int64]:
    """When certificates of RSA keys begin to be valid: seconds since 1970, distinct, rising."""
    ordinals = sorted(ordinal for members in fleet.rsa_ordinals for ordinal in members)
    times: set[int] = set()
    for item in fleet.items(ordinals):
        signed = item.signed
        if signed is not None and signed.not_before is not None and 0 <= signed.not_before < 1 << 32:
            times.add(signed.not_before)
    return np.array(sorted(times), dtype=np.int64)


def _around(times: NDArray[np.int64], width: int, a_second: int) -> _Seeds:
    """The union of what lies at most ``width`` before and after, within 32 bits of seconds."""
    starts = np.maximum(times - width, 0)
    stops = np.minimum(times + width + a_second, (1 << 32) * a_second)
    first = np.flatnonzero(np.append(True, starts[1:] > stops[:-1]))
    last = np.append(first[1:], len(times)) - 1
    return _Seeds(starts[first], stops[last] - starts[first])
