"""The application's own package of this name."""

OWNER = "application"
