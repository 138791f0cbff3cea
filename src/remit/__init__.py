"""remit: credentials for the task at hand."""
