"""What a finished export is for: fine-tuning on labelled text. Knows exported folders alone, and nothing of how they were made."""
