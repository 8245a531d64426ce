"""The two commands. Whatever the user writes is read here; whatever it means is the settings'."""
