"""Experiments: games × variants × seeds. Their plan, their runs and what is shown while they run. Knows no Ray."""
