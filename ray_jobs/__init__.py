"""One file = one stage = one command; thin wiring of the library onto Ray."""
