import pytest

from keyassay.findings import Profile
from keyassay.output import Options
from keyassay.output.description import (
    Excerpt,
    called,
    evidence_text,
    left_out,
    names_of,
    next_steps,
    sentence,
    value_text,
)
from keyassay.output.gate import Gate
from sample_run import TODAY, Measured, certificate, finding, item_of, results, summary_of, weak_result


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("a new key with e = 65537", "A new key with e = 65537."),
        ("p and q are close", "p and q are close."),
        ("e = 1: no secret is needed", "e = 1: no secret is needed."),
        ("p/q is near 2/1", "p/q is near 2/1."),
        ("its key is known!", "Its key is known!"),
        ("N is even", "N is even."),
        ("\x1b[2Jhidden", "\\x1b[2Jhidden."),
    ],
)
def test_messages_become_sentences(message, shown):
    assert sentence(message) == shown


def test_evidence_leaves_out_what_the_message_says():
    key = item_of(certificate("x"), "x").key
    said = finding("rsa-short", Measured(1024), "The modulus has 1,024 bits.", key)
    assert "bits" not in evidence_text(said, reveal=False).split(",")[0]
    other = finding("rsa-short", Measured(1024), "The modulus has 10240 bits.", key)
    assert evidence_text(other, reveal=False).startswith("bits 1,024, large 1000000000000000, octets 00ff, nested")


def test_values_for_people():
    assert value_text({"arch": "le64", "pid": 1234, "none": None}) == "(arch le64, pid 1,234)"
    assert value_text([True, 0.5, "x"]) == "[yes, 0.5, x]"
    assert value_text([{"source": "a.pem", "index": 1_000, "sha256": "00"}]) == "[a.pem #1000]"


def test_names_of_items():
    result = results()[0]
    assert called(result.item) == "certificate, RSA-1024, CN=device-17"
    assert (names_of(result.item).issuer, names_of(result.item).serial) == ("CN=Sample CA", "0a1b")
    assert names_of(results()[5].item).subject is None


def excerpt_of(found, gate=None):
    return Excerpt(gate or Gate(today=TODAY)).take(found)


def test_nothing_found_means_nothing_to_do():
    assert next_steps(excerpt_of(results()[1:2]), Options()) is None


def test_milder_findings_of_the_same_check_do_not_count_as_worst():
    steps = next_steps(excerpt_of(results()), Options())
    assert [name for name, _, _ in steps.remedies] == ["rsa-near-primes"]
    assert steps.others == ()
    milder = next_steps(excerpt_of(results()[3:]), Options())
    assert [name for name, _, _ in milder.remedies] == ["rsa-short"]
    assert milder.prove == ""


def test_an_archive_is_proved_as_a_whole_and_standard_input_is_not():
    def prove(source):
        return next_steps(excerpt_of([weak_result("x", source)]), Options()).prove

    assert prove("a b.zip!c.pem") == "keyassay prove 'a b.zip'"
    assert prove("-") == ""


@pytest.mark.parametrize("profile", Profile)
def test_the_next_larger_profile_is_offered(profile):
    summary = summary_of(results())
    summary.profile = profile
    more = left_out(summary, Options(arguments=("x",)))
    if profile is Profile.DEEP:
        assert more is None
    else:
        larger = "deep" if profile is Profile.STANDARD else "standard"
        assert more.command == f"keyassay scan --profile {larger} x"


def test_an_excerpt_is_bounded():
    many = [weak_result("x", f"{number}.pem") for number in range(30)]
    excerpt = Excerpt(Gate(today=TODAY), detailed=10, listed=3).take([*many, *results()])
    assert len(excerpt.worst()) == 10
    assert excerpt.with_findings == 33
    assert excerpt.remaining(summary_of([*many, *results()])).total() == 35 - 10
