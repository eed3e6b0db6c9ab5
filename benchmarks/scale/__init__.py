"""What a record costs the loop, against partitions, topics, keys and lanes."""
