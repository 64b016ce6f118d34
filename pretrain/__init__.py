"""ALBERT in plain PyTorch, trained with LAMB under DeepSpeed, evaluated and exported to Hugging Face format."""
