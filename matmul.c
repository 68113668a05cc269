// matmul.c - see matmul.h. The triple loop first: it is all that a reader needs, and the oracle of the tests.
// Then the same sum in register tiles, about ten times as fast; a reader may skip it.
//
// `make PLAIN=1` and the debugger's build compile the loop, everything else the tiles. How one grows out of the other, step by
// step and measured, is chapter 14 of TUTORIAL.md.
//
// Read next: autograd.h.

#include "matmul.h"

#ifdef PLAIN

long matmul_scratch(int n, int k) { return (void)n, (void)k, 0; }

static real element(Matrix m, long i, long j) { return m.at[i * m.row + j * m.column]; }

void matmul(Matmul p, Part part)
{
    Share rows = share(part, p.m, 1);
    for (long i = rows.begin; i < rows.end; i++)
        for (int j = 0; j < p.n; j++) {
            if (p.triangle == LOWER_C && j > i + p.diagonal) break;
            real sum = p.start ? p.start[i * p.start_row + j] : 0;
            for (int l = 0; l < p.k; l++) sum += p.scale * element(p.b, l, j) * element(p.a, i, l);
            p.c[i * p.c_row + j] = sum;
        }
}

#else

// A tile of C stays in registers while k runs: ROWS x COLUMNS sums, for each p one row of B's panel and ROWS numbers of A.
// The sums must fit the registers with room for a row of B and one number of A, and there must be enough of them to hide
// the latency of a multiply-add.
#if defined __AVX512F__
enum { ROWS = 8, COLUMNS = 32, WIDTH = 512 };  // 16 of 32 registers of 16 floats
#elif defined __AVX__
enum { ROWS = 6, COLUMNS = 16, WIDTH = 256 };  // 12 of 16 registers of 8 floats
#elif defined __aarch64__
enum { ROWS = 6, COLUMNS = 16, WIDTH = 256 };  // 24 of 32 registers of 4 floats
#else
enum { ROWS = 6, COLUMNS = 8, WIDTH = 256 };   // 12 of 16 registers of 4 floats
#endif

// What stays in the caches while the loops go round: DEPTH rows of a panel of B and of a strip of A in the first level, the
// panels of WIDTH columns in the second, of which most processors with AVX-512 have a megabyte or more.
enum { DEPTH = 256, LARGEST_WIDTH = 512 };

// Each compiler must be told how to unroll a tile, else its sums stay in memory, at a third to a half of the speed. clang: not
// the loops over rows that begin and end it, and not that over terms. gcc: the loops over rows altogether; and several terms
// for one turn of their loop: with less counting in between, a product is a tenth faster on a core whose other half is busy,
// and hardly on one that is not.
#if defined __clang__
#define ROWS_LOOP _Pragma("nounroll")
#define TERMS_LOOP _Pragma("nounroll")
#elif defined __GNUC__
#define ROWS_LOOP _Pragma("GCC unroll 16")
#define TERMS_LOOP _Pragma("GCC unroll 8")
#else
#define ROWS_LOOP
#define TERMS_LOOP
#endif

// c[rows,columns] = start + a[rows,k] panel[k,columns] with k > 0, the one place where products are summed. It comes in three
// forms, for many columns and for the few of an adapter: functions of their own, so that every tile of a product runs the
// same instructions. A comes by address: by value it went through the stack in pieces, and each tile waited for them.
__attribute__((always_inline)) static inline void sum_tile(int rows, int columns, int k, const Matrix *a,
                                                           const real *restrict panel, const real *start, long start_row,
                                                           real *c, long c_row)
{
    real sum[ROWS * COLUMNS];
    ROWS_LOOP for (int i = 0; i < rows; i++)
        VECTOR_LOOP for (int j = 0; j < columns; j++) sum[i * columns + j] = start[i * start_row + j];
    int p = 0;
    TERMS_LOOP do // a for loop might have no turn, and for that case gcc keeps the sums in memory
        for (int i = 0; i < rows; i++)
            VECTOR_LOOP for (int j = 0; j < columns; j++)
                sum[i * columns + j] += a->at[i * a->row + p * a->column] * panel[p * columns + j];
    while (++p < k);
    ROWS_LOOP for (int i = 0; i < rows; i++)
        VECTOR_LOOP for (int j = 0; j < columns; j++) c[i * c_row + j] = sum[i * columns + j];
}

typedef void Tile(int k, const Matrix *a, const real *restrict panel, const real *start, long start_row, real *c, long c_row);

__attribute__((noinline)) static void wide_tile(int k, const Matrix *a, const real *restrict panel, const real *start,
                                                long start_row, real *c, long c_row)
{
    sum_tile(ROWS, COLUMNS, k, a, panel, start, start_row, c, c_row);
}

__attribute__((noinline)) static void half_tile(int k, const Matrix *a, const real *restrict panel, const real *start,
                                                long start_row, real *c, long c_row)
{
    sum_tile(2 * ROWS, COLUMNS / 2, k, a, panel, start, start_row, c, c_row);
}

__attribute__((noinline)) static void quarter_tile(int k, const Matrix *a, const real *restrict panel, const real *start,
                                                   long start_row, real *c, long c_row)
{
    sum_tile(2 * ROWS, COLUMNS / 4, k, a, panel, start, start_row, c, c_row);
}

// A tile at the edge of C: the same sum on copies of full size, of which only rows x columns are taken back.
static void edge_tile(Tile *tile, int width, int k, const Matrix *a, const real *panel, const real *start, long start_row,
                      real *c, long c_row, int rows, int columns)
{
    real whole_start[ROWS * COLUMNS] = { 0 }, whole_c[ROWS * COLUMNS];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) whole_start[i * width + j] = start[i * start_row + j];
    tile(k, a, panel, whole_start, width, whole_c, width);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) c[i * c_row + j] = whole_c[i * width + j];
}

static Matrix from(Matrix m, long i, long j) { return (Matrix){ m.at + i * m.row + j * m.column, m.row, m.column }; }

static int smaller(long a, long b) { return (int)(a < b ? a : b); }
static int between(long low, long x, long high) { return (int)(x < low ? low : x > high ? high : x); }

// The same on every machine: panels of whole tiles, up to 32 columns each, and a strip of up to 16 rows.
long matmul_scratch(int n, int k) { return smaller(k, DEPTH) * (smaller((n + 31) / 32 * 32, LARGEST_WIDTH) + 16l); }

// panels[j / width][p][j % width] = scale * B(p,j), in the order in which tile reads it; the last one is padded with zeros.
static inline void pack(int width, real *restrict panels, Matrix b, int k, int columns, real scale)
{
    for (int j0 = 0; j0 < columns; j0 += width, b.at += width * b.column, panels += (long)k * width) {
        int wide = smaller(width, columns - j0);
        if (wide < width) // one column after the other
            for (int j = 0; j < width; j++)
                for (int p = 0; p < k; p++) panels[p * width + j] = j < wide ? scale * b.at[p * b.row + j * b.column] : 0;
        else if (b.column == 1) // the same as the last, but known to be contiguous: whole vectors
            for (int p = 0; p < k; p++)
                for (int j = 0; j < width; j++) panels[p * width + j] = scale * b.at[p * b.row + j];
        else
            for (int p = 0; p < k; p++)
                for (int j = 0; j < width; j++) panels[p * width + j] = scale * b.at[p * b.row + j * b.column];
    }
}

// strip[p][i] = A(i,p) for i < rows. What else is in the strip makes rows of the tile that edge_tile throws away.
static inline void copy_strip(int height, real *restrict strip, Matrix a, int k, int rows)
{
    if (rows == height && a.row == 1)
        for (int p = 0; p < k; p++) memcpy(strip + p * height, a.at + p * a.column, (size_t)height * sizeof *strip);
    else
        for (int i = 0; i < rows; i++)
            for (int p = 0; p < k; p++) strip[p * height + i] = a.at[i * a.row + p * a.column];
}

// The product in tiles of height x width, which are constants where this is called.
static inline void product(int height, int width, Tile *tile, Matmul q, Part part)
{
    // This part's share of C: the tile grid is cut where the larger piece comes out smaller. If equal, across the longer side:
    // then a part reads the least of A and B together, and the rows of an activation stay in the caches of one core from one op
    // to the next.
    long tile_rows = (q.m + height - 1) / height, tile_columns = (q.n + width - 1) / width;
    long by_rows = (tile_rows + part.count - 1) / part.count * tile_columns;
    long by_columns = (tile_columns + part.count - 1) / part.count * tile_rows;
    Share rows = { 0, q.m }, columns = { 0, q.n };
    if (by_rows < by_columns || (by_rows == by_columns && q.m >= q.n)) rows = share(part, q.m, height);
    else columns = share(part, q.n, width);

    static const real zeros[COLUMNS];         // one row serves for all, with row stride 0
    real *strip = q.work;                     // [k][height]
    real *panels = q.work + 16l * smaller(q.k, DEPTH); // [columns / width][k][width]

    for (long j0 = columns.begin; j0 < columns.end; j0 += WIDTH)
        for (int p0 = 0; p0 < q.k; p0 += DEPTH) {
            int k = smaller(DEPTH, q.k - p0);
            long j1 = smaller(j0 + WIDTH, columns.end);
            pack(width, panels, from(q.b, p0, j0), k, (int)(j1 - j0), q.scale);
            for (long i = rows.begin; i < rows.end; i += height) {
                int high = smaller(height, rows.end - i);
                // Of a triangle, what its rows i .. i + height - 1 need; at least one term, which is zero if it was not needed
                int first = q.triangle == UPPER_A ? between(0, i - q.diagonal - p0, k - 1) : 0;
                int terms = q.triangle == LOWER_A ? between(1, i + height + q.diagonal - p0, k) : k - first;
                long j_end = q.triangle == LOWER_C ? smaller(i + height + q.diagonal, j1) : j1;
                Matrix a = from(q.a, i, p0 + first);
                if (high < height || a.column != 1) { // else its rows are contiguous, and read in place
                    copy_strip(height, strip, a, terms, high);
                    a = transposed(strip, height);
                }
                for (long j = j0; j < j_end; j += width) {
                    int wide = smaller(width, j1 - j);
                    const real *panel = panels + (j - j0) * k + (long)first * width;
                    real *c = q.c + i * q.c_row + j;
                    const real *start = p0 > 0 ? c : q.start ? q.start + i * q.start_row + j : zeros;
                    long start_row = p0 > 0 ? q.c_row : q.start ? q.start_row : 0;
                    if (high == height && wide == width) tile(terms, &a, panel, start, start_row, c, q.c_row);
                    else edge_tile(tile, width, terms, &a, panel, start, start_row, c, q.c_row, high, wide);
                }
            }
        }
}

// A single row of C, which a new token asks for: no number of B is used twice, so none is copied.
static void single_row(Matmul q, Part part)
{
    enum { SUMS = ROWS * COLUMNS };
    Share columns = share(part, q.n, COLUMNS);
    for (long j0 = columns.begin; j0 < columns.end; j0 += SUMS) {
        int count = smaller(SUMS, columns.end - j0);
        real sum[SUMS] = { 0 };
        if (q.start) memcpy(sum, q.start + j0, (size_t)count * sizeof *sum);
        for (int p = 0; p < q.k; p++) {
            real a = q.a.at[p * q.a.column];
            const real *b = q.b.at + p * q.b.row + j0;
            if (count == SUMS) VECTOR_LOOP for (int j = 0; j < SUMS; j++) sum[j] += a * (q.scale * b[j]);
            else for (int j = 0; j < count; j++) sum[j] += a * (q.scale * b[j]);
        }
        memcpy(q.c + j0, sum, (size_t)count * sizeof *sum);
    }
}

void matmul(Matmul q, Part part)
{
    if (q.m == 1 && q.b.column == 1 && q.triangle == WHOLE) single_row(q, part);
    else if (q.n > COLUMNS / 2) product(ROWS, COLUMNS, wide_tile, q, part);
    else if (q.n > COLUMNS / 4) product(2 * ROWS, COLUMNS / 2, half_tile, q, part); // else padding would be most of a tile
    else product(2 * ROWS, COLUMNS / 4, quarter_tile, q, part);
}

#endif
