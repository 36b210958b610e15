"""One file a change of the tables, numbered; a released one never changes."""
