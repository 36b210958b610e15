"""Runs over many items: read, decode, screen, examine, prove, compare, report, in bounded memory.

``scan`` is the engine, ``fleet`` what it remembers of a whole run, ``store`` what it keeps between runs,
``results`` what comes out.
"""
