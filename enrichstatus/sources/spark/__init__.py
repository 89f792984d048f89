"""A Spark cluster answers."""
