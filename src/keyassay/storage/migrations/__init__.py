"""Numbered migrations, alembic's; ``upgrading`` runs them."""
