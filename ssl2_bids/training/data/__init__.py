"""What a step of training is given: participants, patches, batches."""
