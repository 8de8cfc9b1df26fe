"""What kq costs, on each transport, beside a minimal loop written by hand on the same broker in the same run."""
