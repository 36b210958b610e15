"""Curves with easy logarithms: what comes out is the logarithm, against curves whose points are counted one by one."""

from __future__ import annotations

from functools import cache

import gmpy2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.keymath.curves import Curve, multiply, named_curves, on_curve, root
from keyassay.keymath.weak_curves import (
    anomalous_logarithm,
    cusp_logarithm,
    embedding_degree,
    small_order_logarithm,
)


def curve_of(p: int, a: int, b: int, order: int) -> Curve:
    return Curve("test", False, gmpy2.mpz(p), gmpy2.mpz(a), gmpy2.mpz(b), 0, 0, gmpy2.mpz(order), 1)


def count(p: int, a: int, b: int) -> int:
    return p + 1 + sum(gmpy2.jacobi((x * x * x + a * x + b) % p, p) for x in range(p))


@cache
def of_order(p: int, *, anomalous: bool) -> tuple[Curve, tuple[int, int]]:
    """A curve over GF(p) of prime order (p itself if anomalous), and a point of it."""
    for a in range(1, p):
        for b in range(1, 40):
            if (4 * a**3 + 27 * b * b) % p == 0:
                continue
            order = count(p, a, b)
            if gmpy2.is_prime(order) and (order == p) == anomalous:
                curve = curve_of(p, a, b, order)
                base = next(found for x in range(p) if (found := root(curve, x, 0)) and found[1])
                return curve, base
    raise AssertionError


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([101, 211, 307, 1009]), st.integers(1, 10**6))
def test_anomalous_logarithms(p: int, d: int) -> None:
    curve, base = of_order(p, anomalous=True)
    target = multiply(curve, d % p, base)
    if target is not None:
        assert anomalous_logarithm(curve, base, target) == d % p


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([11, 101, 307, 1009]), st.integers(1, 10**6))
def test_small_order_logarithms(p: int, d: int) -> None:
    curve, base = of_order(p, anomalous=False)
    target = multiply(curve, d % int(curve.order), base)
    if target is not None:
        assert small_order_logarithm(curve, base, target) == d % curve.order


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([101, 2**61 - 1, 2**127 - 1]), st.integers(1, 10**40), st.integers(2, 10**6))
def test_cusp_logarithms(p: int, d: int, t: int) -> None:
    """(t^2, t^3) lies on y^2 = x^3; d times it by the formulas of ordinary curves."""
    curve = curve_of(p, 0, 0, p)
    base = (t * t % p, t**3 % p)
    if t % p == 0 or d % p == 0:
        return
    assert on_curve(curve, base)
    target = multiply(curve, d % p, base)
    assert target is not None
    assert cusp_logarithm(curve, base, target) == d % p


@pytest.mark.parametrize("name", ["P-256", "secp256k1", "brainpoolP256r1"])
def test_sound_curves_have_a_large_embedding_degree(name: str) -> None:
    curve = named_curves()[name]
    assert embedding_degree(curve.p, curve.order) is None


def test_supersingular_curves_have_degree_two() -> None:
    """P = 2 modulo 3 and a = 0: p + 1 points."""
    p = 1000667
    assert p % 3 == 2
    assert gmpy2.is_prime(p)
    factor = max(n for n in range(2, 2000) if (p + 1) % n == 0 and gmpy2.is_prime(n))
    assert embedding_degree(p, factor) == 2
    assert embedding_degree(factor + 1, factor) == 1
