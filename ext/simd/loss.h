/* C kernels of the family "loss", written once for both types: see kernels.c for REAL and NAME. */
