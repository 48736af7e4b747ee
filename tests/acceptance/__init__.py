"""What a user of the engine may rely on, told through public names only and run in both colours."""
