// one_file.h - what test_meltwater asks of meltwater.c. The numbers are those of its first enum.

#include <stddef.h>

enum { ONE_V = 128, ONE_T = 32, ONE_C = 32, ONE_H = 2, ONE_LAYERS = 2, ONE_B = 4, ONE_R = 4, ONE_SCALE = 2, ONE_SEED = 1337, ONE_TEXT = 4000 };

// The losses of a training of everything, and then of one of adapters on what it left. Both return the text.
const char *one_file_full(double *losses, int steps, double rate);
const char *one_file_lora(double *losses, int steps, double rate);

typedef struct OneFileCounts { int through, computed, skipped; size_t gradient_bytes, moment_bytes; } OneFileCounts;
OneFileCounts one_file_counts(void); // of the last step
