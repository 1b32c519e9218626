"""What is known of a (request, item) pair: behavioural state, text relevance, the feature builder."""
