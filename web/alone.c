// alone.c - what fast/threads.c is elsewhere, with one thread: it runs every part, and has the scratch.

#include "fast/fast.h"

#include "memory.h"

static real *numbers;                          // the scratch, or NULL
static int64_t numbers_room, attention_room;

void scratch_release(void)
{
    memory_give(MEMORY_WORKSPACE, numbers, numbers_room);
    numbers = NULL;
    attention_room = 0;
}

int64_t scratch_size(int T, int D) { return larger(DEPTH * (WIDTH + STRIP), attention_scratch(T, D)); }

void scratch_reserve(int T, int D)
{
    int64_t room = attention_scratch(T, D);
    if (room <= attention_room) return;
    scratch_release();
    attention_room = room;
}

real *scratch(void)
{
    if (numbers == NULL) {
        numbers_room = larger(DEPTH * (WIDTH + STRIP), attention_room);
        numbers = memory_take(MEMORY_WORKSPACE, numbers_room);
    }
    return numbers;
}

void parallel_set_threads(int count) { (void)count; }
int  parallel_threads(void) { return 1; }

void parallel_run(void (*work)(void *context, Part part), void *context)
{
    scratch();
    work(context, WHOLE);
}
