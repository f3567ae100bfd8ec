"""C++ and CUDA sources of multi-scale deformable attention."""
