"""The registry: accounts, certificates, authorities, things, policies, and what may happen to them.

Functions take a ``Registry`` (where things are) and an ``Actor`` (who asks), check everything that no input model can,
and raise the errors of ``errors.py``. Nothing here knows HTTP; ``registry.py`` is the place to start.
"""
