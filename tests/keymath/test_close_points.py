"""Points that differ by little: those that do are all found, up to the reach and not beyond."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from keyassay.keymath import close_points as close
from keyassay.keymath.curves import multiply, named_curves

CURVE = named_curves()["P-256"]
ORDER = int(CURVE.order)
REACH = (5, 4)
MOST = close.largest(REACH)


def point(d):
    found = multiply(CURVE, d % ORDER, CURVE.base)
    assert found is not None
    return found


def test_the_reach_has_no_holes_and_ends_where_it_says():
    """Every difference, of either sign and between negated points."""
    assert MOST == 49
    d = Random(1).randrange(ORDER)
    base = point(d)
    for v in range(1, MOST + 3):
        for other in (point(d + v), point(-d + v)):
            pairs = close.close_pairs(CURVE, [base, other], REACH, CURVE.base)
            assert bool(pairs) == (v <= MOST)
            if pairs:
                sign, size = close.relation(CURVE, base, other, pairs[0, 1], CURVE.base)
                assert abs(size) == v
                assert point(size + sign * (d + v if other == point(d + v) else -d + v)) == base


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32), shift=st.integers(0, 240))
def test_differences_of_any_base(seed, shift):
    random = Random(seed)
    base = point(1 << shift)
    d, v = random.randrange(ORDER), random.randrange(1, MOST + 1)
    points = [point(random.randrange(ORDER)) for _ in range(3)] + [point(d), point(d - (v << shift))]
    pairs = close.close_pairs(CURVE, points, REACH, base)
    assert list(pairs) == [(3, 4)]
    assert close.relation(CURVE, points[3], points[4], pairs[3, 4], base) == (1, v)


def test_far_points_have_no_relation():
    one, other = point(2**200), point(3**100)
    assert close.close_pairs(CURVE, [one, other], REACH, CURVE.base) == {}
    assert close.relation(CURVE, one, other, (1, 2, 3), CURVE.base) is None
    assert close.relation(CURVE, one, point(-(2**200)), (1,), CURVE.base) == (-1, 0)
