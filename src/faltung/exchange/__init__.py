"""What crosses the border of the process: files written whole, model files."""
