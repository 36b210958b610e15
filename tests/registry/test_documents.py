"""Logging options: not configured, then merged, and when they log nothing."""

from __future__ import annotations

import pytest

from keyassay.registry import documents
from keyassay.registry.errors import InvalidError, NotConfiguredError
from keyassay.registry.registry import Registry
from two_accounts import A, B, Rows


def test_logging_options(registry: Registry, rows: Rows) -> None:
    with pytest.raises(NotConfiguredError):
        documents.logging_options(registry, A)
    with pytest.raises(InvalidError):
        documents.set_logging_options(registry, A)
    assert not documents.is_logging(None)
    documents.set_logging_options(registry, A, role_arn="r", default_level="INFO")
    for _ in range(2):
        documents.set_logging_options(registry, A, disable_all=True)
    options = documents.logging_options(registry, A)
    assert options == {"roleArn": "r", "defaultLogLevel": "INFO", "disableAllLogs": True}
    assert not documents.is_logging(options)
    assert documents.is_logging({**options, "disableAllLogs": False})
    assert not documents.is_logging({"defaultLogLevel": "DISABLED"})
    assert rows.operations() == ["SetV2LoggingOptions"] * 2
    with pytest.raises(NotConfiguredError):
        documents.logging_options(registry, B)
