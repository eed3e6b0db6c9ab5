"""Values that are kept near, and who may still believe them."""
