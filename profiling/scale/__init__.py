"""`scale`: how throughput grows with lanes, and cost with everything that can grow."""
