"""Records into a store."""
