"""leads.enrichment: a pandas frame that looks up its own list."""
