"""What is saved and resumed: files, snapshots, checkpoints."""
