"""The lookup in vectors: keys that compare, and the rules once more, for what DuckDB takes longer to plan than to answer."""
