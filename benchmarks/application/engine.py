"""The application's own module of this name."""

OWNER = "application"
