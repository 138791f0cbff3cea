"""Launch a command in namespaces of its own, with its listeners handed to the broker: the run is the channel."""
