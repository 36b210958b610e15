"""The server: where settings, storage, domain and API meet. ``running.py`` is the composition root.

``opening.py`` opens a registry for servers and commands alike; ``observing.py`` has logs and counters.
"""
