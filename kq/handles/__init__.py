"""What is held of a job after its submit, and what is said of it: no application is needed for that."""
