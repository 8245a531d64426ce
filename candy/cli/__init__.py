"""The two commands. What the user writes is read here; what it means, the settings decide."""
