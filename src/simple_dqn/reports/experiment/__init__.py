"""The report of an experiment: its files, statistics over seeds and games, figures, page."""
