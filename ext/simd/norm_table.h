/* Kernels of the family "norm": X(result, name, (arguments)), see table.h. */
#define NNX_TABLE_norm(X, REAL)
