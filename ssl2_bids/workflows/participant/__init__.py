"""The participant level: from scans to masks; nipype lives here."""
