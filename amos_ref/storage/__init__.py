"""State on disk: checkpoints, the file format they use, and atomic writing."""
