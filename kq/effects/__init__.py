"""What a job has while it runs: its context, side effects that happen once, who looks on, what it emits."""
