"""The command line: one module a command, each a thin layer over ``bulk`` and ``output``.

``main`` holds the entry point and the table of exit codes; a command's module is imported when it is called.
"""
