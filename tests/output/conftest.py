"""The sample run of four checks, so that these tests do not depend on the real catalogue."""

import io

import pytest

import keyassay.checks
import keyassay.output.pages
from keyassay.output import Options, renderer
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
    """Render results in a format; the summary is made of them."""

    def make(name, found=None, **options):
        found = results() if found is None else found
        options.setdefault("gate", Gate(today=TODAY))
        options.setdefault("arguments", ("fleet/",))
        chosen = Options(**options)
        stream = io.StringIO()
        renderer(name)(chosen.gate.watch(found), summary_of(found), stream, chosen)
        return stream.getvalue()

    return make
