"""What turns a chunk of logits into values and gradients: torch anywhere, Triton on CUDA."""
