"""The append-only event journal in SQLite or PostgreSQL."""
