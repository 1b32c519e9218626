"""Item models: content and collaborative views, cold start and user histories."""
