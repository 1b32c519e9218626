"""Feature families: each is a function that computes the columns of some features, with their records."""
