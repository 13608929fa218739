"""What learns: layers, the network, optimizers, CUDA, guided back-propagation, Neon."""
