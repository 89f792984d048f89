"""Three answers to one question: an embedded store, the remote API, a Spark cluster."""
