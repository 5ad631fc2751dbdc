/* Kernels of the family "loss": X(result, name, (arguments)), see table.h. */
#define NNX_TABLE_loss(X, REAL)
