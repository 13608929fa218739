"""What a replay memory can do beyond uniform sampling."""
