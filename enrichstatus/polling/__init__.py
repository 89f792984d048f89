"""Request again until all have ended."""
