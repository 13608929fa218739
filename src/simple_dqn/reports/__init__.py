"""What is reported: scores, progress, tables, curves."""
