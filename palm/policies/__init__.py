"""One LoRA policy per weight."""
