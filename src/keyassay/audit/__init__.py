"""Audits of an account: checks, tasks and their worker, findings, schedules.

Joins the registry (what there is) and the engine (what is wrong with it); neither knows the other.
"""
