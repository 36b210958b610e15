"""The registry's database: tables, transactions, paging, sealed secrets; SQLite or PostgreSQL.

Nothing here knows certificates or AWS. Start at ``database.py``; ``schema.py`` shows the data as one picture.
"""
