"""Doing something about findings: actions, what they would do, tasks that do it, messages that tell of it.

``plan`` says what a task will do, ``steps`` does one step, ``worker`` all of them; ``publishing`` delivers messages.
"""
