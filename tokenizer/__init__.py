"""Ground floor: special tokens, document reading, files and errors; vocabulary training and the one tokenizer of the pipeline."""
