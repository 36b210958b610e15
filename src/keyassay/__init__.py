"""keyassay."""
