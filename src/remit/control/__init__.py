"""The control plane: ``/v1``."""
