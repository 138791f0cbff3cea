"""The composition root: builds adapters from the configuration and starts processes; nothing else does."""
