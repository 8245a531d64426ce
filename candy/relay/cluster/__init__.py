"""Several relays that serve the same networks: what they decide together, and what they tell each other."""
