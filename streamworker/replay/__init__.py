"""Dead letters once they are written, for operators: reading, judging, repairing and replaying them."""
