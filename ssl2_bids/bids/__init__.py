"""The only code that knows file names."""
