"""What several rules say or weigh in the same way."""
