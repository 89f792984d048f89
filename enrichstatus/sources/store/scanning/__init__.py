"""Records read where they lie: Parquet files, Delta and Iceberg tables."""
