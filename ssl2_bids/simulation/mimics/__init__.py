"""What resembles lesions in healthy brains."""
