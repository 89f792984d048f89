"""A store's records laid out to be found fast: a snapshot, for ``preload=True`` and the endpoint."""
