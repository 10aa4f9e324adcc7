"""Time to a proven accuracy, beside what one would use instead: ``make bench``."""
