"""Features of a (request, item) pair: behavioural state, text relevance and the feature builder."""
