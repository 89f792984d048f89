"""A poll to look at."""
