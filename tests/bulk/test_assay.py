"""The front door: what the package's manual shows, one and many, and wrong use."""

from __future__ import annotations

import doctest
import pickle

import pytest

import issuing
import keyassay
from keyassay import Classification, KeyassayError, Kind, Profile, assay, assay_many
from keyassay.certificates.decoding import item_of_key
from vectors_of_checks import cases_of


def weak_spki() -> bytes:
    case = next(case for case in cases_of("rsa-close-primes") if case.name == "next prime")
    spki = item_of_key(case.items[0].key).spki
    assert spki is not None
    return spki


WEAK = issuing.pem(issuing.certificate(weak_spki(), "printer"))
SOUND = issuing.pem(issuing.certificate(issuing.spki_of(issuing.sound_key()), "sensor"))


def test_the_manual_is_true(tmp_path, monkeypatch):
    folder = tmp_path / "fleet"
    folder.mkdir()
    (folder / "a.pem").write_bytes(WEAK)
    (folder / "b.pem").write_bytes(SOUND)
    monkeypatch.chdir(tmp_path)
    tests = doctest.DocTestFinder(recurse=False).find(keyassay, "keyassay", globs={"pem": WEAK, "other_pem": SOUND})
    assert len(tests) == 1
    assert len(tests[0].examples) > 5
    runner = doctest.DocTestRunner()
    assert runner.run(tests[0]).failed == 0


def test_every_public_name_is_there():
    for name in keyassay.__all__:
        assert getattr(keyassay, name) is not None
        assert name in dir(keyassay)
    with pytest.raises(AttributeError):
        _ = keyassay.nothing_of_this_name


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda data: data.decode()])
def test_forms_of_bytes_are_equal(make):
    assert assay(make(WEAK)).worst is Classification.BROKEN


def test_der_and_pem_give_the_same():
    der = issuing.certificate(weak_spki(), "printer")
    assert assay(der).findings == assay(WEAK).findings
    assert assay(der).item.sha256 == assay(WEAK).item.sha256


@pytest.mark.parametrize("data", [b"", b"\0", b"nonsense", b"\x30\x82\xff\xff", b"-----BEGIN CERTIFICATE-----\n"])
def test_bad_input_is_a_value(data):
    result = assay(data)
    assert result.item.kind is Kind.UNREADABLE
    assert result.item.error
    assert not result.item.assessed


def test_several_items_are_refused_as_one_and_taken_as_many():
    assert "2 items" in str(assay(WEAK + SOUND).item.error)
    results = list(assay_many([WEAK + SOUND, SOUND], fleet=False))
    assert [(one.item.source, one.item.index) for one in results] == [("0", 0), ("0", 1), ("1", 0)]
    assert [one.worst for one in results] == [Classification.BROKEN, None, None]


def test_many_are_compared():
    other = issuing.pem(issuing.certificate(issuing.spki_of(issuing.sound_key()), "another sensor"))
    together = list(assay_many([SOUND, other]))
    assert [[finding.check for finding in one.findings] for one in together] == [["fleet-repeated-key"]] * 2
    assert not any(one.findings for one in assay_many([SOUND, other], fleet=False))


def test_results_pickle_and_are_frozen():
    result = assay(WEAK)
    assert pickle.loads(pickle.dumps(result)) == result
    with pytest.raises(AttributeError):
        result.findings = ()


def test_profiles():
    assert assay(WEAK, profile="aws").findings == ()
    assert assay(WEAK, profile=Profile.FAST).worst is Classification.BROKEN
    with pytest.raises(KeyassayError, match="no profile"):
        assay(WEAK, profile="thorough")


def test_wrong_use_is_told():
    with pytest.raises(KeyassayError, match="bytes or text"):
        assay(17)
    with pytest.raises(KeyassayError, match="bytes or text"):
        list(assay_many([SOUND, None]))


def test_a_generator_is_read_as_results_are_asked_for():
    asked = []

    def endless():
        while True:
            asked.append(1)
            yield SOUND

    results = assay_many(endless(), fleet=False, profile="fast")
    assert next(results).item.assessed
    assert len(asked) < 100_000


def test_a_budget_is_for_profile_deep():
    result = assay(SOUND, profile="deep", budget=0.05)
    assert sum(one.seconds for one in result.steps) < 1
    with pytest.raises(KeyassayError, match="for profile deep"):
        assay(SOUND, budget=5)
    with pytest.raises(KeyassayError, match="no number of seconds"):
        assay(SOUND, profile="deep", budget=0)
    (first, second) = assay_many([SOUND, SOUND], profile=Profile.DEEP, budget=1.0, fleet=False)
    assert (first.item.source, second.item.source) == ("0", "1")
