"""AgentDojo without a model: an agent that obeys whatever it reads, under grants and without."""
