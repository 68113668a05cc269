// wrap.h - for tests that want to know of every call of malloc and its like, of pthread_create and fsync, or to let one fail: functions of
// the test, named wrap_, stand in for them. The test includes it, and the Makefile does ahead of each file of the engine that calls
// them; so the engine has no hook, and no linker needs to help. `(malloc)(size)` is libc's own.

#ifndef WRAP_H
#define WRAP_H

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *wrap_malloc(size_t size);
void *wrap_calloc(size_t count, size_t size);
void *wrap_realloc(void *old, size_t size);
void *wrap_aligned_alloc(size_t alignment, size_t size);
char *wrap_strdup(const char *text);
void  wrap_free(void *block);
int   wrap_fsync(int file);
int   wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument);

#define malloc(size)                                      wrap_malloc(size)
#define calloc(count, size)                               wrap_calloc(count, size)
#define realloc(old, size)                                wrap_realloc(old, size)
#define aligned_alloc(alignment, size)                    wrap_aligned_alloc(alignment, size)
#define strdup(text)                                      wrap_strdup(text)
#define free(block)                                       wrap_free(block)
#define fsync(file)                                       wrap_fsync(file)
#define pthread_create(thread, attributes, start, context) wrap_pthread_create(thread, attributes, start, context)

#endif
