"""DuckDB answers: load, store, scan, files to files."""
