"""The computer: what it is, its memory, its threads, and machine code on it."""
