"""Steps on a GPU, fused in Triton: the models' equations by slot of an arena on the device. Needs torch and Triton."""
