"""The parts of the command `caption`: who is asked, the tasks that ask, and the books of it."""
