"""What learns: arrays and settings in, models and curves out; never looks for a dataset."""
