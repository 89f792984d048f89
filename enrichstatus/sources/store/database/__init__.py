"""The DuckDB file of a store: opened, made and upgraded."""
