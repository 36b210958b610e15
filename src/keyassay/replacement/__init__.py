"""Replacement of weak certificates: planned, issued, delivered, proven in use, and only then the old one revoked."""
