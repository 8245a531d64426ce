"""From a library's connection to the engine's."""
