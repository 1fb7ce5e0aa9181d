"""Real servers for tests: each module starts one kind on free loopback ports and stops what it started."""
