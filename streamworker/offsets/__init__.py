"""What is done, and what of it is committed."""
