"""Extensions of the replay memory: prioritized sampling and λ-returns."""
