/* C kernels of the family "norm", written once for both types: see kernels.c for REAL and NAME. */
