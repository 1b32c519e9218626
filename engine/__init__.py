"""The vocabulary and the machinery: types, protocols, catalogue, recall, pipeline, journal."""
