// product.c - the product of two matrices in register tiles, where nine tenths of the time goes: the triple loop of kernels.c,
// about ten times as fast. How one grows out of the other, step by step and measured, is chapter 14 of TUTORIAL.md.

#include "fast.h"

// A tile of C stays in registers while k runs: ROWS x COLUMNS sums, for each p one row of B's panel and ROWS numbers of A.
// The sums must fit the registers with room for a row of B and one number of A, and there must be enough of them to hide
// the latency of a multiply-add.
#if defined __AVX512F__
enum { ROWS = 8, COLUMNS = 32 };  // 16 of 32 registers of 16 floats
#elif defined __AVX__
enum { ROWS = 6, COLUMNS = 16 };  // 12 of 16 registers of 8 floats
#elif defined __aarch64__
enum { ROWS = 6, COLUMNS = 16 };  // 24 of 32 registers of 4 floats
#else
enum { ROWS = 6, COLUMNS = 8 };   // 12 of 16 registers of 4 floats
#endif

// Each compiler must be told how to unroll a tile. clang: not the loops over rows that begin and end it, and not that over terms,
// else its sums stay in memory, at a third to a half of the speed. gcc: several terms for one turn of their loop: without, dX = dY
// W^T takes 4 to 6 % longer.
#if defined __clang__
#define ROWS_LOOP _Pragma("nounroll")
#define TERMS_LOOP _Pragma("nounroll")
#elif defined __GNUC__
#define ROWS_LOOP
#define TERMS_LOOP _Pragma("GCC unroll 8")
#else
#define ROWS_LOOP
#define TERMS_LOOP
#endif

// What is called with a tile's height and width is compiled once for each shape, with constants. clang must be told so: with one
// copy for all shapes a step took 3 to 4 % longer.
#define EACH_SHAPE __attribute__((always_inline)) static inline

// c[rows,columns] = start + a[rows,k] panel[k,columns] with k > 0, the one place where products are summed. It comes in three
// forms, for many columns and for the few of an adapter: functions of their own, so that every tile of a product runs the
// same instructions. A comes by address: by value it went through the stack in pieces, and each tile waited for them.
EACH_SHAPE void sum_tile(int rows, int columns, int k, const Matrix *a, const real *restrict panel, const real *start,
                         int64_t start_row, real *c, int64_t c_row)
{
    real sum[ROWS * COLUMNS];
    ROWS_LOOP for (int i = 0; i < rows; i++)
        VECTOR_LOOP for (int j = 0; j < columns; j++) sum[i * columns + j] = start[i * start_row + j];
    int p = 0;
    TERMS_LOOP do // a for loop might have no turn, and for that case gcc keeps the sums in memory
        for (int i = 0; i < rows; i++)
            VECTOR_LOOP for (int j = 0; j < columns; j++)
                sum[i * columns + j] += a->at[i * a->down + p * a->right] * panel[p * columns + j];
    while (++p < k);
    ROWS_LOOP for (int i = 0; i < rows; i++)
        VECTOR_LOOP for (int j = 0; j < columns; j++) c[i * c_row + j] = sum[i * columns + j];
}

typedef void Tile(int k, const Matrix *a, const real *restrict panel, const real *start, int64_t start_row, real *c, int64_t c_row);

__attribute__((noinline)) static void wide_tile(int k, const Matrix *a, const real *restrict panel, const real *start,
                                                int64_t start_row, real *c, int64_t c_row)
{
    sum_tile(ROWS, COLUMNS, k, a, panel, start, start_row, c, c_row);
}

__attribute__((noinline)) static void half_tile(int k, const Matrix *a, const real *restrict panel, const real *start,
                                                int64_t start_row, real *c, int64_t c_row)
{
    sum_tile(2 * ROWS, COLUMNS / 2, k, a, panel, start, start_row, c, c_row);
}

__attribute__((noinline)) static void quarter_tile(int k, const Matrix *a, const real *restrict panel, const real *start,
                                                   int64_t start_row, real *c, int64_t c_row)
{
    sum_tile(2 * ROWS, COLUMNS / 4, k, a, panel, start, start_row, c, c_row);
}

// A tile at the edge of C: the same sum on copies of full size, of which only rows x columns are taken back.
static void edge_tile(Tile *tile, int width, int k, const Matrix *a, const real *panel, const real *start, int64_t start_row,
                      real *c, int64_t c_row, int rows, int columns)
{
    real whole_start[ROWS * COLUMNS] = { 0 }, whole_c[ROWS * COLUMNS];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) whole_start[i * width + j] = start[i * start_row + j];
    tile(k, a, panel, whole_start, width, whole_c, width);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) c[i * c_row + j] = whole_c[i * width + j];
}

static int between(int64_t low, int64_t x, int64_t high) { return (int)(x < low ? low : x > high ? high : x); }

// panels[j / width][p][j % width] = scale * B(p,j), in the order in which tile reads it; the last one is padded with zeros.
EACH_SHAPE void pack(int width, real *restrict panels, Matrix b, int k, int columns, real scale)
{
    for (int j0 = 0; j0 < columns; j0 += width, b.at += width * b.right, panels += (int64_t)k * width) {
        int wide = (int)smaller(width, columns - j0);
        if (wide < width) // one column after the other
            for (int j = 0; j < width; j++)
                for (int p = 0; p < k; p++) panels[p * width + j] = j < wide ? scale * b.at[p * b.down + j * b.right] : 0;
        else if (b.right == 1) // the same as the last, but known to be contiguous: whole vectors
            for (int p = 0; p < k; p++)
                for (int j = 0; j < width; j++) panels[p * width + j] = scale * b.at[p * b.down + j];
        else
            for (int p = 0; p < k; p++)
                for (int j = 0; j < width; j++) panels[p * width + j] = scale * b.at[p * b.down + j * b.right];
    }
}

// The same of a weight in codes, whose part from (p0,j0) on becomes numbers here: no more than DEPTH x WIDTH at once.
static void pack_codes(int width, real *restrict panels, Matrix b, int64_t p0, int64_t j0, int k, int columns, real scale)
{
    for (int j = 0; j < columns; j += width, panels += (int64_t)k * width) {
        int wide = (int)smaller(width, columns - j);
        if (wide < width) memset(panels, 0, (size_t)k * (size_t)width * sizeof *panels);
        if (b.right == 1) // its rows are the codes' rows, or its columns are
            for (int p = 0; p < k; p++) unpack(b.codes, (p0 + p) * b.down + j0 + j, wide, panels + (int64_t)p * width, 1);
        else
            for (int i = 0; i < wide; i++) unpack(b.codes, (j0 + j + i) * b.right + p0, k, panels + i, width);
        for (int64_t i = 0; scale != 1 && i < (int64_t)k * width; i++) panels[i] *= scale;
    }
}

// strip[p][i] = A(i,p) for i < rows. What else is in the strip makes rows of the tile that edge_tile throws away.
EACH_SHAPE void copy_strip(int height, real *restrict strip, Matrix a, int k, int rows)
{
    if (rows == height && a.down == 1)
        for (int p = 0; p < k; p++) memcpy(strip + p * height, a.at + p * a.right, (size_t)height * sizeof *strip);
    else
        for (int i = 0; i < rows; i++)
            for (int p = 0; p < k; p++) strip[p * height + i] = a.at[i * a.down + p * a.right];
}

// Tiles for many columns, and for the few of an adapter, where padding would be most of a wide one.
typedef struct Shape { int height, width; } Shape;

static Shape shape_of(Matrix C)
{
    return C.columns > COLUMNS / 2 ? (Shape){ ROWS, COLUMNS } : C.columns > COLUMNS / 4 ? (Shape){ 2 * ROWS, COLUMNS / 2 }
                                                                            : (Shape){ 2 * ROWS, COLUMNS / 4 };
}

// A part's share of C, from C's shape alone: the tile grid is cut where the larger piece comes out smaller. If equal, across the
// longer side: then a part reads the least of A and B together, and the rows of an activation stay in the caches of one core
// from one op to the next.
typedef struct Area { Share rows, columns; } Area;

static Area area_of(Matrix C, Part part)
{
    Shape tile = shape_of(C);
    int64_t tile_rows = (C.rows + tile.height - 1) / tile.height, tile_columns = (C.columns + tile.width - 1) / tile.width;
    int64_t by_rows = (tile_rows + part.count - 1) / part.count * tile_columns;
    int64_t by_columns = (tile_columns + part.count - 1) / part.count * tile_rows;
    if (C.rows > 1 && (by_rows < by_columns || (by_rows == by_columns && C.rows >= C.columns))) // single_row knows columns alone
        return (Area){ share(part, C.rows, tile.height), { 0, C.columns } };
    return (Area){ { 0, C.rows }, share(part, C.columns, tile.width) };
}

void copy(Matrix C, Matrix A, Part part)
{
    if (C.at == A.at) return;
    Area area = area_of(C, part);
    for (int64_t i = area.rows.begin; i < area.rows.end; i++)
        memcpy(C.at + i * C.down + area.columns.begin, A.at + i * A.down + area.columns.begin,
               (size_t)(area.columns.end - area.columns.begin) * sizeof(real));
}

static const real zeros[COLUMNS]; // one row serves for all, with row stride 0

// One tile of c: a[high,terms] times a panel, added to what c holds or is taken for.
EACH_SHAPE void add_tile(int height, int width, Tile *tile, int terms, const Matrix *a, const real *panel, Matrix c)
{
    const real *start = !c.empty ? c.at : c.start ? c.start : zeros;
    int64_t start_row = c.empty ? 0 : c.down;
    if (c.rows == height && c.columns == width) tile(terms, a, panel, start, start_row, c.at, c.down);
    else edge_tile(tile, width, terms, a, panel, start, start_row, c.at, c.down, c.rows, c.columns);
}

// What is asked of a product: a triangle leaves out some of it.
typedef struct Ask { Triangle triangle; int diagonal; } Ask;

// Rows i .. i + high - 1 of C: C(i,j0..j1-1) += A(i,p0..p0+k-1) times the packed panels.
EACH_SHAPE void row_of_tiles(int height, int width, Tile *tile, Matrix C, Matrix A, const real *panels, int64_t i, int high,
                             int64_t j0, int64_t j1, int p0, int k, Ask ask, real *strip)
{
    // Of a triangle, what these rows need; at least one term, which is zero if it was not needed
    int first = ask.triangle == UPPER_A ? between(0, i - ask.diagonal - p0, k - 1) : 0;
    int terms = ask.triangle == LOWER_A ? between(1, i + height + ask.diagonal - p0, k) : k - first;
    int64_t j_end = ask.triangle == LOWER_C ? smaller(i + height + ask.diagonal, j1) : j1;
    Matrix a = block_of(A, i, p0 + first, high, terms);
    if (high < height || a.right != 1) { // else its rows are contiguous, and read in place
        copy_strip(height, strip, a, terms, high);
        a.at = strip;
        a.down = 1;
        a.right = height;
    }
    C.empty = C.empty && p0 == 0;
    for (int64_t j = j0; j < j_end; j += width)
        add_tile(height, width, tile, terms, &a, panels + (j - j0) * k + (int64_t)first * width,
                 block_of(C, i, j, high, (int)smaller(width, j1 - j)));
}

// The product in tiles of height x width, which are constants where this is called. DEPTH rows of a panel of B and of a strip
// of A stay in the first-level cache, the panels of WIDTH columns in the second.
EACH_SHAPE void tiled(int height, int width, Tile *tile, Matrix C, Matrix A, Matrix B, Area area, Ask ask)
{
    real *strip = scratch();                                     // [k][height]
    real *panels = strip + STRIP * smaller(A.columns, DEPTH);    // [columns / width][k][width]
    for (int64_t j0 = area.columns.begin; j0 < area.columns.end; j0 += WIDTH)
        for (int p0 = 0; p0 < A.columns; p0 += DEPTH) {
            int k = (int)smaller(DEPTH, A.columns - p0);
            int64_t j1 = smaller(j0 + WIDTH, area.columns.end);
            if (B.codes) pack_codes(width, panels, B, p0, j0, k, (int)(j1 - j0), A.factor * B.factor);
            else pack(width, panels, block_of(B, p0, j0, k, WIDTH), k, (int)(j1 - j0), A.factor * B.factor);
            for (int64_t i = area.rows.begin; i < area.rows.end; i += height)
                row_of_tiles(height, width, tile, C, A, panels, i, (int)smaller(height, area.rows.end - i), j0, j1, p0, k, ask, strip);
        }
}

// A single row of C, which a new token asks for: no number of B is used twice, so none is copied.
static void single_row(Matrix C, Matrix A, Matrix B, Share columns)
{
    enum { SUMS = ROWS * COLUMNS };
    real factor = A.factor * B.factor;
    for (int64_t j0 = columns.begin; j0 < columns.end; j0 += SUMS) {
        int count = (int)smaller(SUMS, columns.end - j0);
        real sum[SUMS] = { 0 }, row[SUMS];
        if (!C.empty) memcpy(sum, C.at + j0, (size_t)count * sizeof *sum);
        else if (C.start != NULL) memcpy(sum, C.start + j0, (size_t)count * sizeof *sum);
        for (int p = 0; p < A.columns; p++) {
            real a = A.at[p * A.right];
            const real *b = B.codes ? row : B.at + p * B.down + j0;
            if (B.codes) unpack(B.codes, p * B.down + j0, count, row, 1);
            if (count == SUMS) VECTOR_LOOP for (int j = 0; j < SUMS; j++) sum[j] += a * (factor * b[j]);
            else for (int j = 0; j < count; j++) sum[j] += a * (factor * b[j]);
        }
        memcpy(C.at + j0, sum, (size_t)count * sizeof *sum);
    }
}

void triangle_product(Matrix C, Matrix A, Matrix B, Part part, Triangle triangle, int diagonal)
{
    Area area = area_of(C, part);
    Ask ask = { triangle, diagonal };
    if (C.rows == 1 && B.right == 1 && triangle == NOTHING) single_row(C, A, B, area.columns);
    else if (C.columns > COLUMNS / 2) tiled(ROWS, COLUMNS, wide_tile, C, A, B, area, ask);
    else if (C.columns > COLUMNS / 4) tiled(2 * ROWS, COLUMNS / 2, half_tile, C, A, B, area, ask);
    else tiled(2 * ROWS, COLUMNS / 4, quarter_tile, C, A, B, area, ask);
}

void product(Matrix C, Matrix A, Matrix B, Part part) { triangle_product(C, A, B, part, NOTHING, 0); }
