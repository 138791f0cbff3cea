"""The composition root: builds adapters from the configuration and starts edges; nothing else does."""
