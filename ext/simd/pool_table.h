/* Kernels of the family "pool": X(result, name, (arguments)), see table.h. */
#define NNX_TABLE_pool(X, REAL)
