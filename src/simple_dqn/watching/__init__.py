"""What is watched: the window, the terminal, films."""
