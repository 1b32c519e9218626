"""Exit codes of commands that train, for timers and scripts; 1 is any error, 2 a wrong command line."""

EXIT_REFUSED = 3
"""The candidate was trained, but should not serve; the current bundle stays."""
EXIT_TOO_LITTLE = 4
"""There is too little new data to judge a candidate; nothing was trained."""
EXIT_BUSY = 5
"""Another training of this home is running."""
EXIT_INCOMPLETE = 6
"""A config was imported without the parts that have no counterpart."""
