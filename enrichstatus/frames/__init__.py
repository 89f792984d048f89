"""Any frame in, the same kind out."""
