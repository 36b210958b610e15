"""AWS IoT's API: requests as AWS clients send them in, domain calls out, and back.

``protocol`` reads and writes requests by botocore's service model (``shapes`` checks the values), ``signature``
verifies who sent them, ``operations`` holds what we answer, ``application`` is the ASGI application that joins
them. Modules named ``iot_*`` and ``own_*`` hold the operations themselves; they are found by their names.
``docs/api-layer.md`` shows how one is written. Nothing here stores or decides anything about certificates.
"""
