/* C kernels of the family "pool", written once for both types: see kernels.c for REAL and NAME. */
