"""Programs: recorded launches, ordered, joined, laid out in memory, and done without Python between them."""
