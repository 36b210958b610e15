"""Debian's predictable generator for thousands of process ids at a time, as array operations.

The position in the ring and the counters depend on the number of draws alone, so all processes of one platform and
state advance together: rows of bytes are their rings, SHA-1 is some 1,400 operations on arrays of 32-bit words. The
blocks are those of ``debian_openssl.Draws``, bit for bit, at a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha1
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keyassay.lists.recipes.debian_openssl import _PLATFORMS, _RING, _start

Words = NDArray[np.uint32]

#: streams that are hashed at once: fewer pay more for each operation's start, and more gain nothing
_LANES = 8_192
_MASK = 0xFFFFFFFF
_INITIAL = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0)
_ROUND_CONSTANTS = (0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xCA62C1D6)

#: the largest request that ``Lockstep`` serves: less than one round of the ring
MOST_BYTES = 1_020


class Program:
    """SHA-1's compression of many messages that share some of their words.

    Shared words are arrays without dimension, so that what follows from them alone is computed once and not for each
    stream. Fill ``words`` (all 16) and, where it goes on from another block, ``state``; then ``run``.
    """

    def __init__(self, lanes: int, shared: Sequence[int], *, chained: bool = False) -> None:
        """Lay the operations out.

        Args:
            lanes: number of messages.
            shared: which of the 16 words are the same in all of them.
            chained: take the five words of the state from ``state`` instead of SHA-1's initial ones.
        """
        self.words = [np.zeros(() if at in shared else lanes, np.uint32) for at in range(16)]
        self.state = [np.zeros(lanes if chained else (), np.uint32) for _ in range(5)]
        if not chained:
            for word, value in zip(self.state, _INITIAL, strict=True):
                word[...] = value
        self.digest = np.empty((5, lanes), np.uint32)
        self._lanes = lanes
        self._steps: list[tuple[Callable[..., Any], Words, Words, Words]] = []
        self._lay_out()

    def run(self) -> Words:
        """The digests, five rows of words; overwritten by the next run."""
        for operation, left, right, out in self._steps:
            operation(left, right, out)
        return self.digest

    def _lay_out(self) -> None:
        lanes = self._lanes
        do = self._steps.append
        shifts = [np.array(count, np.uint32) for count in range(32)]
        scratch = {shape: [np.empty(shape, np.uint32) for _ in range(3)] for shape in ((), (lanes,))}
        registers = [np.empty(lanes, np.uint32) for _ in range(5)]
        zero = np.zeros((), np.uint32)
        for register, word in zip(registers, self.state, strict=True):
            do((np.bitwise_xor, word, zero, register))
        constants = [np.array(value, np.uint32) for value in _ROUND_CONSTANTS]

        def rotate(word: Words, count: int, out: Words) -> None:
            first, second, _ = scratch[out.shape]
            do((np.left_shift, word, shifts[count], first))
            do((np.right_shift, word, shifts[32 - count], second))
            do((np.bitwise_or, first, second, out))

        schedule = list(self.words)
        a, b, c, d, e = registers
        for turn in range(80):
            if turn >= 16:
                # shared ones first, so that they meet before they are spread over the lanes
                parts = sorted((schedule[turn - back] for back in (3, 8, 14, 16)), key=lambda one: one.ndim)
                total = parts[0]
                for part in parts[1:]:
                    out = scratch[np.broadcast_shapes(total.shape, part.shape)][2]
                    do((np.bitwise_xor, total, part, out))
                    total = out
                # the word 16 turns ago is read for the last time here; its place is used again where it is ours
                old = schedule[turn - 16] if turn >= 32 and schedule[turn - 16].shape == total.shape else None
                schedule.append(np.empty(total.shape, np.uint32) if old is None else old)
                rotate(total, 1, schedule[turn])
            word = schedule[turn]
            constant = constants[turn // 20]
            first, second, _ = scratch[(lanes,)]
            if turn < 20:
                do((np.bitwise_xor, c, d, first))
                do((np.bitwise_and, first, b, first))
                do((np.bitwise_xor, first, d, first))
            elif 40 <= turn < 60:
                do((np.bitwise_or, b, c, first))
                do((np.bitwise_and, first, d, first))
                do((np.bitwise_and, b, c, second))
                do((np.bitwise_or, first, second, first))
            else:
                do((np.bitwise_xor, b, c, first))
                do((np.bitwise_xor, first, d, first))
            do((np.add, e, first, e))
            if word.ndim:
                do((np.add, e, word, e))
                do((np.add, e, constant, e))
            else:
                do((np.add, word, constant, scratch[()][0]))
                do((np.add, e, scratch[()][0], e))
            rotate(a, 5, first)
            do((np.add, e, first, e))
            rotate(b, 30, b)
            a, b, c, d, e = e, a, b, c, d
        for row, (register, word) in enumerate(zip((a, b, c, d, e), self.state, strict=True)):
            do((np.add, register, word, self.digest[row]))


def _place(data: bytes, words: Sequence[Words], at: int) -> None:
    """Put shared bytes, a multiple of four, into words from ``at`` on."""
    for offset in range(0, len(data), 4):
        words[at + offset // 4][...] = int.from_bytes(data[offset : offset + 4], "big")


class Lockstep:
    """The blocks of one length that the streams of one platform and state hand out, one block of each at a time.

    Attributes:
        drawn: number of blocks drawn.
    """

    def __init__(self, arch: str, state: str, pids: range, size: int) -> None:
        """Start the streams.

        Args:
            arch: the platform.
            state: the state of the random file.
            pids: process ids.
            size: bytes a block, at most ``MOST_BYTES``.

        Raises:
            ValueError: blocks of that size are more than a round of the ring.
        """
        if not 8 <= size <= MOST_BYTES:
            raise ValueError(f"blocks have 8 to {MOST_BYTES} bytes")
        self.size = size
        self._blocks = (size + 9) // 10
        self._pids = pids
        self._long, self._order, _ = _PLATFORMS[arch]
        self.drawn = 0
        pool = _start(arch, state)
        count = len(pids)
        self._idx, self._c0, self._c1 = pool.idx, pool.c0, pool.c1
        self._ring = np.tile(np.frombuffer(bytes(pool.pool), np.uint8), (count, 1))
        self._md = np.repeat(np.frombuffer(pool.md, ">u4").astype(np.uint32)[:, None], count, axis=1)
        self._out = np.empty((count, self._blocks, 5), ">u4")
        order = "<u4" if self._order == "little" else ">u4"
        self._pid_words = np.arange(pids.start, pids.stop, dtype=order).view(">u4").astype(np.uint32)
        self._programs = {lanes: _Programs(lanes, self._long) for lanes in {min(_LANES, count), count % _LANES} - {0}}

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """What ``restore`` needs to go on: arrays of about a kilobyte a stream."""
        return {
            "ring": self._ring,
            "md": self._md,
            "counters": np.array([self._idx, self._c0, self._c1, self.drawn], dtype=np.int64),
        }

    def restore(self, saved: dict[str, NDArray[Any]]) -> None:
        """Go on where a snapshot of the same streams was taken.

        Raises:
            ValueError: it is of other streams.
        """
        if saved["ring"].shape != self._ring.shape or saved["md"].shape != self._md.shape:
            raise ValueError("a snapshot of other streams")
        self._ring = saved["ring"].astype(np.uint8)
        self._md = saved["md"].astype(np.uint32)
        self._idx, self._c0, self._c1, self.drawn = saved["counters"].tolist()

    def draw(self) -> NDArray[np.uint8]:
        """The next block of each stream: a matrix of bytes, overwritten by the next draw."""
        counted = self._c0
        end, c1 = self._idx, self._c1
        for first in range(0, len(self._pids), _LANES):
            lanes = slice(first, min(first + _LANES, len(self._pids)))
            programs = self._programs[lanes.stop - lanes.start]
            at, c1 = self._idx, self._c1
            if self.drawn:  # the first addition is in the state that the streams start from
                at, c1 = self._add(lanes, programs, at, c1)
            end = self._take(lanes, programs, at, counted, c1)
        self._idx, self._c1, self._c0 = end, c1, counted + 1
        self.drawn += 1
        view = self._out.view(np.uint8).reshape(len(self._pids), self._blocks, 20)
        return view[:, :, 10:].reshape(len(self._pids), -1)[:, : self.size]

    def _counters(self, c0: int, c1: int) -> bytes:
        order: Any = self._order
        return c0.to_bytes(self._long, order) + c1.to_bytes(self._long, order)

    def _read(self, lanes: slice, at: int, count: int) -> NDArray[np.uint8]:
        """``count`` bytes of the rings from ``at`` on; from position 1023 on it is those from 0."""
        at = 0 if at == _RING else at
        ring = self._ring[lanes]
        if at + count <= _RING:
            return ring[:, at : at + count]
        return np.concatenate([ring[:, at:_RING], ring[:, : at + count - _RING]], axis=1)

    def _mix(self, lanes: slice, at: int, data: NDArray[np.uint8]) -> None:
        """XOR rows into the rings; position 1023 hits the dead byte first, out of step with reading."""
        ring = self._ring[lanes]
        count = data.shape[1]
        split = min(max(_RING - at, 1), count)
        ring[:, at : at + split] ^= data[:, :split]
        if split < count:
            ring[:, : count - split] ^= data[:, split:]

    def _add(self, lanes: slice, programs: _Programs, at: int, c1: int) -> tuple[int, int]:
        """Add one long: the time of day, of which only the length counts."""
        long, program = self._long, programs.addition
        words = self._md[:, lanes]
        for row in range(5):
            program.words[row][...] = words[row]
        old = np.ascontiguousarray(self._read(lanes, at, long)).view(">u4")
        for column in range(long // 4):
            program.words[5 + column][...] = old[:, column]
        _place(self._counters(self._c0, c1), program.words, 5 + long // 4)
        digest = program.run()
        mixed = np.empty((digest.shape[1], 2), ">u4")
        mixed.T[...] = digest[:2]
        self._mix(lanes, at, mixed.view(np.uint8)[:, :long])
        words ^= digest
        at += long
        return at % _RING if at >= _RING else at, c1 + 1

    def _take(self, lanes: slice, programs: _Programs, at: int, c0: int, c1: int) -> int:
        """Fill a block's digests of these streams; the position after it."""
        blocks, out, md = self._blocks, self._out[lanes], self._md[:, lanes]
        count = out.shape[0]
        padded = np.zeros((count, blocks, 12), np.uint8)
        padded[:, :, :10] = self._read(lanes, at, 10 * blocks).reshape(count, blocks, 10)
        padded[:, :, 10] = 0x80
        old = np.empty((blocks, 3, count), np.uint32)
        old.transpose(2, 0, 1)[...] = padded.view(">u4")
        counters = self._counters(c0, c1)
        digest: Words = md
        for block in range(blocks):
            program = programs.later if block else programs.first
            lead = 0 if block else 1
            if lead:
                program.words[0][...] = self._pid_words[lanes]
            for row in range(5):
                program.words[lead + row][...] = digest[row]
            if block < 2:
                _place(counters, program.words, lead + 5)
            after = lead + 5 + len(counters) // 4
            for row in range(3):
                program.words[after + row][...] = old[block, row]
            if lead and self._pids[lanes.start] == 0:
                alone = md[:, 0].astype(">u4").tobytes() + counters + padded[0, 0, :10].tobytes()
                digest = program.run()
                digest[:, 0] = np.frombuffer(
                    sha1(alone, usedforsecurity=False).digest(), ">u4"
                )  # process 0 has no bytes of its own
            else:
                digest = program.run()
            out[:, block] = digest.T
        halves = out.view(np.uint8).reshape(count, blocks, 20)[:, :, :10]
        self._mix(lanes, at, halves.reshape(count, -1))
        self._finish(programs, counters, digest, md)
        at += 10 * blocks
        return at % _RING if at > _RING else at

    @staticmethod
    def _finish(programs: _Programs, counters: bytes, digest: Words, md: Words) -> None:
        """The hash of counters, last digest and running digest becomes the running digest."""
        program = programs.final
        _place(counters, program.words, 0)
        after = len(counters) // 4
        for row in range(5):
            program.words[after + row][...] = digest[row]
            program.words[after + 5 + row][...] = md[row]
        result = program.run()
        if programs.padding is not None:
            for row in range(5):
                programs.padding.state[row][...] = result[row]
            result = programs.padding.run()
        md[...] = result


class _Programs:
    """The hashes of one draw, for a number of lanes and a size of a long."""

    def __init__(self, lanes: int, long: int) -> None:
        counters = long // 2  # words of the two counters
        self.addition = self._program(lanes, 20 + long + 2 * long, set(range(5 + long // 4)))
        own = set(range(6)) | set(range(6 + counters, 9 + counters))
        self.first = self._program(lanes, 34 + 2 * long, own)
        self.later = self._program(lanes, 30 + 2 * long, {word - 1 for word in own if word})
        self.final = self._program(lanes, 40 + 2 * long, set(range(counters, counters + 10)))
        self.padding: Program | None = None
        if 40 + 2 * long > 55:  # the length of the message has no room left
            self.padding = Program(lanes, range(16), chained=True)
            self.padding.words[15][...] = 8 * (40 + 2 * long)

    @staticmethod
    def _program(lanes: int, size: int, own: set[int]) -> Program:
        """A program for messages of ``size`` bytes whose words ``own`` differ from stream to stream."""
        program = Program(lanes, [word for word in range(16) if word not in own])
        if size // 4 not in own:  # else the bytes of the ring come with their padding
            program.words[size // 4][...] = 0x80000000 if size % 4 == 0 else 0
        if size <= 55:
            program.words[15][...] = 8 * size
        return program
