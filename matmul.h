// matmul.h - the product of two matrices, where nine tenths of the time goes.
//
// One function serves forward (X W), the gradient of the input (dY W^T) and the gradient of the weights (X^T dY): strides for
// rows and columns say which of a matrix's two indices comes first in memory, so a transposed operand costs no copy.

#ifndef MATMUL_H
#define MATMUL_H

#include "parallel.h"
#include "tensor.h"

// C[m,n] = start[m,n] + scale * A[m,k] B[k,n]
typedef struct Matmul {
    int m, n, k;
    const real *a; long a_row, a_column;    // A(i,p) = a[i * a_row + p * a_column]; for A^T exchange the two
    const real *b; long b_row, b_column;    // B(p,j) = b[p * b_row + j * b_column]
    real scale;
    const real *start; long start_row;      // start(i,j) = start[i * start_row + j]: C itself to add to it, a bias with
                                            // start_row 0 for every row, NULL for zeros
    real *c; long c_row;                    // C(i,j) = c[i * c_row + j]; overlaps neither A nor B
} Matmul;

// Computes the share of C that `part` owns. Each element is summed over p = 0 .. k-1 in the same order and with the same
// rounding whatever the part, the element's place, m and n, so its bits depend on its own row of A and column of B alone.
void matmul(Matmul p, Part part);

#endif
