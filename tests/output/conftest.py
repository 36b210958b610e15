"""The sample run of four checks, so that these tests do not depend on the real catalogue."""

import io
from datetime import date

import pytest

import keyassay.checks
import keyassay.output.pages
from keyassay.output import Options, renderer
from keyassay.output.baseline import Acceptance, Baseline, fingerprint
from keyassay.output.gate import Gate
from sample_run import CHECKS, TODAY, results, summary_of


@pytest.fixture(autouse=True)
def sample_catalogue(monkeypatch):
    monkeypatch.setattr(keyassay.checks, "catalogue", lambda: CHECKS)
    monkeypatch.setattr(keyassay.output.pages, "catalogue", lambda: CHECKS)


@pytest.fixture
def sample():
    return results()


@pytest.fixture
def rendered():
    """Render results in a format; the summary is made of them, changed by ``changes``."""

    def make(name, found=None, changes=None, **options):
        found = results() if found is None else found
        options.setdefault("gate", Gate(today=TODAY))
        options.setdefault("arguments", ("fleet/",))
        options.setdefault("paths", ("fleet/",))
        chosen = Options(**options)
        summary = summary_of(found)
        for field, value in (changes or {}).items():
            setattr(summary, field, value)
        stream = io.StringIO(newline="")
        renderer(name)(chosen.gate.watch(found), summary, stream, chosen)
        return stream.getvalue()

    return make


@pytest.fixture
def accepting():
    """A baseline that accepts the findings of a check on all items of the sample run."""

    def make(check, expires=date(2026, 12, 31)):
        return Baseline(Acceptance(fingerprint(one.item), check, "a test device", expires) for one in results())

    return make
