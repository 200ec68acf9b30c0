"""The stages that make a model before any site has it."""
