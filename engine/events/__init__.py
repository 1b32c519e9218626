"""Events, the checks at the door, ids, the catalogue and the event table."""
