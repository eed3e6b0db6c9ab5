"""The test kit for handlers and workers."""
