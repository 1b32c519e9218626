"""The error of the journal."""


class JournalError(RuntimeError):
    """Raised if the journal can't be opened, read or written."""
