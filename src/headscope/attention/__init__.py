"""q, k, v -> values. Knows nothing of the other packages."""
