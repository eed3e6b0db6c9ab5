"""Where records come from: the group member, who owns which partition, and what is paused and why."""
