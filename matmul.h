// matmul.h - the product of two matrices, where nine tenths of the time goes.
//
// One function serves forward (X W), the gradient of the input (dY W^T) and the gradient of the weights (X^T dY): strides for
// rows and columns say which of a matrix's two indices comes first in memory, so a transposed operand costs no copy.
//
// Read next: autograd.h, whose gradients are products too.

#ifndef MATMUL_H
#define MATMUL_H

#include "parallel.h"
#include "tensor.h"

typedef struct Matrix { const real *at; long row, column; } Matrix; // element (i,j) is at[i * row + j * column]

// The matrix whose rows lie at `at`, `row` numbers apart; and its transpose.
static inline Matrix matrix(const real *at, long row) { return (Matrix){ at, row, 1 }; }
static inline Matrix transposed(const real *at, long row) { return (Matrix){ at, 1, row }; }

// What a product may leave out: the triangles of causal attention, where query i sees the keys up to i + diagonal.
typedef enum Triangle {
    WHOLE,                                  // nothing
    LOWER_C,                                // c(i,j) for j > i + diagonal: not asked for, may come out as anything
    LOWER_A,                                // terms with p > i + diagonal, where a(i,p) = 0
    UPPER_A,                                // terms with p < i - diagonal, where a(i,p) = 0
} Triangle;

// C[m,n] = start[m,n] + scale * A[m,k] B[k,n]
typedef struct Matmul {
    int m, n, k;
    Matrix a, b;
    real scale;
    const real *start; long start_row;      // start(i,j) = start[i * start_row + j]: C itself to add to it, a bias with
                                            // start_row 0 for every row, NULL for zeros
    real *c; long c_row;                    // C(i,j) = c[i * c_row + j]; overlaps neither A nor B
    Triangle triangle; int diagonal;        // what to leave out; WHOLE unless set
    real *work;                             // scratch of this part's own, matmul_scratch(n, k) numbers
} Matmul;

// Room for what is copied of B and A, in numbers; 0 in the plain build.
long matmul_scratch(int n, int k);

// Computes the share of C that `part` owns. Each element is summed over p = 0 .. k-1 in the same order and with the same
// rounding whatever the part, the element's place, m and n, so its bits depend on its own row of A and column of B alone.
void matmul(Matmul p, Part part);

#endif
