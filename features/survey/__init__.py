"""A survey of the fields that a journal has, and the declared features that it suggests."""
