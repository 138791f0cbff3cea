"""Public: contracts that implementations of the ports must pass, and simulated targets."""
