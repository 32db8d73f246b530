"""One frozen dataclass per verb, and the presets. Nothing here imports torch."""
