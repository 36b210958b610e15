"""keyassay finds certificates whose private keys an attacker can compute, and proves it.

Assess one certificate, request or key, in DER or PEM:

>>> from keyassay import assay
>>> result = assay(pem)
>>> result.item.kind.value, result.item.assessed
('certificate', True)
>>> for finding in result.findings:
...     print(finding.check, finding.classification.value, finding.confidence.value)
rsa-close-primes broken proven

A finding exists only if its evidence verified itself against the key. ``finding.evidence.describe()`` is what anyone
may see; ``finding.evidence.secrets()`` holds the factor, the seed, the private number: treat it as the key it is.

Assess many, and find what only shows when they are compared (shared primes, repeated keys and nonces):

>>> from keyassay import assay_many
>>> [result.worst.value if result.worst else "nothing found" for result in assay_many([pem, other_pem])]
['broken', 'nothing found']

Profile ``deep`` also runs what costs seconds a key, within a budget of CPU time. Each step says how far it came:

>>> from keyassay import Outcome
>>> result = assay(other_pem, profile="deep", budget=0.1)
>>> tried = [(one.check, one.step, one.detail) for one in result.steps if one.outcome is Outcome.DONE]

"Nothing found" is not "good": it says that the checks of the profile, in their present version, found nothing.
Bad input never raises: what cannot be read is an item of kind ``unreadable`` with its ``error``. ``KeyassayError``
means wrong use. All results are plain values that pickle. For files and folders, progress and the summary of a run
there is ``Scan``, which ``keyassay scan`` is made of:

>>> from keyassay import Profile, Scan, Settings
>>> scan = Scan(["fleet/"], Settings(profile=Profile.FAST))
>>> broken = [result.item.source for result in scan if result.worst == "broken"]
>>> scan.summary.read, scan.summary.unreadable
(2, 0)

What is named here stays; everything else may change between releases.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keyassay.bulk.assay import assay as assay
    from keyassay.bulk.assay import assay_many as assay_many
    from keyassay.bulk.results import Outcome as Outcome
    from keyassay.bulk.results import Result as Result
    from keyassay.bulk.results import Settings as Settings
    from keyassay.bulk.results import StepReport as StepReport
    from keyassay.bulk.results import Summary as Summary
    from keyassay.bulk.scan import Scan as Scan
    from keyassay.certificates.item import Item as Item
    from keyassay.certificates.item import Kind as Kind
    from keyassay.errors import KeyassayError as KeyassayError
    from keyassay.findings import Classification as Classification
    from keyassay.findings import Confidence as Confidence
    from keyassay.findings import Evidence as Evidence
    from keyassay.findings import Finding as Finding
    from keyassay.findings import Profile as Profile
    from keyassay.findings import Severity as Severity

_HOMES = {
    "assay": "bulk.assay",
    "assay_many": "bulk.assay",
    "Outcome": "bulk.results",
    "Result": "bulk.results",
    "Settings": "bulk.results",
    "StepReport": "bulk.results",
    "Summary": "bulk.results",
    "Scan": "bulk.scan",
    "Item": "certificates.item",
    "Kind": "certificates.item",
    "KeyassayError": "errors",
    "Classification": "findings",
    "Confidence": "findings",
    "Evidence": "findings",
    "Finding": "findings",
    "Profile": "findings",
    "Severity": "findings",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import what is asked for at the first asking, so that `keyassay --help` need not load numpy."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
