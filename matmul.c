// matmul.c - see matmul.h. The triple loop first: it is all that a reader needs, and the oracle of the tests.
// Then the same sum in register tiles, about ten times as fast; a reader may skip it.

#include "matmul.h"

#ifdef PLAIN

void matmul(Matmul p, Part part)
{
    Share rows = share(part, p.m, 1);
    for (long i = rows.begin; i < rows.end; i++)
        for (int j = 0; j < p.n; j++) {
            real sum = p.start ? p.start[i * p.start_row + j] : 0;
            for (int l = 0; l < p.k; l++) sum += p.scale * p.b[l * p.b_row + j * p.b_column] * p.a[i * p.a_row + l * p.a_column];
            p.c[i * p.c_row + j] = sum;
        }
}

#else

// A tile of C stays in registers while k runs: ROWS x COLUMNS sums, for each p one row of B's panel and ROWS numbers of A.
// The sums must fit the registers with room for a row of B and one number of A, and there must be enough of them to hide
// the latency of a multiply-add.
#if defined __AVX512F__
enum { ROWS = 8, COLUMNS = 32 };  // 16 of 32 registers of 16 floats
#elif defined __AVX__
enum { ROWS = 6, COLUMNS = 16 };  // 12 of 16 registers of 8 floats
#else
enum { ROWS = 6, COLUMNS = 16 };  // 24 of 32 registers of 4 floats on aarch64; on plain x86-64 it spills, and still wins
#endif

// What stays in the caches while the loops go round: a panel of B, DEPTH x COLUMNS, in the first level; the panels of WIDTH
// columns and BLOCK rows of A in the second.
enum { DEPTH = 256, WIDTH = 8 * COLUMNS > 256 ? 8 * COLUMNS : 256, BLOCK = 24 * ROWS };

// gcc unrolls a short inner loop before it looks for vectors, and then finds none; clang needs no word.
#if defined __GNUC__ && !defined __clang__
#define KEEP_LOOP _Pragma("GCC unroll 1")
#else
#define KEEP_LOOP
#endif

// c[ROWS,COLUMNS] = start + a[ROWS,k] panel[k,COLUMNS]. The one place where products are summed; it must not be inlined, so
// that every tile runs the same instructions.
__attribute__((noinline)) static void tile(int k, const real *restrict a, long a_row, long a_column, const real *restrict panel,
                                           const real *start, long start_row, real *c, long c_row)
{
    real sum[ROWS][COLUMNS];
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLUMNS; j++) sum[i][j] = start[i * start_row + j];
    for (int p = 0; p < k; p++)
        for (int i = 0; i < ROWS; i++)
            KEEP_LOOP for (int j = 0; j < COLUMNS; j++) sum[i][j] += a[i * a_row + p * a_column] * panel[p * COLUMNS + j];
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLUMNS; j++) c[i * c_row + j] = sum[i][j];
}

// A tile at the edge of C: the same sum on padded copies, of which only rows x columns are taken back.
static void edge_tile(int k, const real *a, long a_row, long a_column, const real *panel, const real *start, long start_row,
                      real *c, long c_row, int rows, int columns)
{
    real padded_start[ROWS * COLUMNS] = { 0 }, padded_c[ROWS * COLUMNS];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) padded_start[i * COLUMNS + j] = start[i * start_row + j];
    tile(k, a, a_row, a_column, panel, padded_start, COLUMNS, padded_c, COLUMNS);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) c[i * c_row + j] = padded_c[i * COLUMNS + j];
}

// panel[k,COLUMNS] = scale * B[k,columns], padded with zeros.
static void pack_panel(real *restrict panel, const real *restrict b, long b_row, long b_column, int k, int columns, real scale)
{
    if (columns == COLUMNS && b_column == 1) {
        for (int p = 0; p < k; p++)
            for (int j = 0; j < COLUMNS; j++) panel[p * COLUMNS + j] = scale * b[p * b_row + j];
        return;
    }
    for (int j = 0; j < COLUMNS; j++)
        for (int p = 0; p < k; p++) panel[p * COLUMNS + j] = j < columns ? scale * b[p * b_row + j * b_column] : 0;
}

// tiles[i / ROWS][p][i % ROWS] = A(i,p); the last tile is padded with zeros.
static void pack_rows(real *restrict tiles, const real *restrict a, long a_row, long a_column, int k, int rows)
{
    for (int t = 0; t < rows; t += ROWS, tiles += (long)k * ROWS) {
        if (rows - t >= ROWS && a_row == 1) {
            for (int p = 0; p < k; p++)
                for (int i = 0; i < ROWS; i++) tiles[p * ROWS + i] = a[t + i + p * a_column];
            continue;
        }
        for (int i = 0; i < ROWS; i++)
            for (int p = 0; p < k; p++) tiles[p * ROWS + i] = t + i < rows ? a[(t + i) * a_row + p * a_column] : 0;
    }
}

static int smaller(long a, long b) { return (int)(a < b ? a : b); }

void matmul(Matmul q, Part part)
{
    // This part's share of C: the tile grid is cut where the larger piece comes out smaller. If equal, so that each part copies
    // only what it alone needs: between columns, or between rows if those are copied too.
    long tile_rows = (q.m + ROWS - 1) / ROWS, tile_columns = (q.n + COLUMNS - 1) / COLUMNS;
    long by_rows = (tile_rows + part.count - 1) / part.count * tile_columns;
    long by_columns = (tile_columns + part.count - 1) / part.count * tile_rows;
    Share rows = { 0, q.m }, columns = { 0, q.n };
    bool in_place = q.a_column == 1; // A^T read in place would fall on the same few cache lines: its tiles are copied
    if (by_columns < by_rows || (by_columns == by_rows && in_place)) columns = share(part, q.n, COLUMNS);
    else rows = share(part, q.m, ROWS);

    static const real zeros[COLUMNS];                               // one row serves for all, with row stride 0
    real panels[WIDTH * DEPTH] __attribute__((aligned(64)));        // [columns / COLUMNS][k][COLUMNS]
    real tiles[BLOCK * DEPTH] __attribute__((aligned(64)));         // [rows / ROWS][k][ROWS]

    for (long j0 = columns.begin; j0 < columns.end; j0 += WIDTH)
        for (int p0 = 0; p0 < q.k; p0 += DEPTH) {
            int k = smaller(DEPTH, q.k - p0);
            long j1 = smaller(j0 + WIDTH, columns.end);
            for (long j = j0; j < j1; j += COLUMNS)
                pack_panel(panels + (j - j0) * k, q.b + p0 * q.b_row + j * q.b_column, q.b_row, q.b_column, k, smaller(COLUMNS, j1 - j), q.scale);
            for (long i0 = rows.begin; i0 < rows.end; i0 += BLOCK) {
                long i1 = smaller(i0 + BLOCK, rows.end), full = in_place ? i0 + (i1 - i0) / ROWS * ROWS : i0; // rows read in place
                pack_rows(tiles, q.a + full * q.a_row + p0 * q.a_column, q.a_row, q.a_column, k, (int)(i1 - full));
                for (long j = j0; j < j1; j += COLUMNS)
                    for (long i = i0; i < i1; i += ROWS) {
                        const real *panel = panels + (j - j0) * k;
                        const real *a = i < full ? q.a + i * q.a_row + p0 : tiles + (i - full) * k;
                        long a_row = i < full ? q.a_row : 1, a_column = i < full ? 1 : ROWS;
                        real *c = q.c + i * q.c_row + j;
                        const real *start = p0 > 0 ? c : q.start ? q.start + i * q.start_row + j : zeros;
                        long start_row = p0 > 0 ? q.c_row : q.start ? q.start_row : 0;
                        if (i1 - i >= ROWS && j1 - j >= COLUMNS)
                            tile(k, a, a_row, a_column, panel, start, start_row, c, q.c_row);
                        else
                            edge_tile(k, a, a_row, a_column, panel, start, start_row, c, q.c_row, smaller(ROWS, i1 - i), smaller(COLUMNS, j1 - j));
                    }
            }
        }
}

#endif
