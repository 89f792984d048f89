"""What a list and a history say."""
