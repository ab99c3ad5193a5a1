"""What others offer for the same model: as their users write it, or tuned by their documents."""
