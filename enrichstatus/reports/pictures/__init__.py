"""Pictures of the reports: drawn with matplotlib, or as interactive charts."""
