"""kq beside other job frameworks, on the same Redis, each set up as its own documentation says."""
