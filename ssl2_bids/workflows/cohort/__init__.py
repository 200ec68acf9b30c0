"""The group level: tables, map and page of a cohort."""
