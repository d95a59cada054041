"""Where canonical batches go."""
