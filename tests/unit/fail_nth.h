/* Makes the n-th allocation fail, for a test that is linked with WRAP malloc calloc realloc free (and, if it
 * defines FAIL_NTH_ALIGNED_ALLOC first, aligned_alloc), and counts what is allocated and not freed. Only
 * calls from the objects of the test's executable are seen, not those inside libc.
 *
 *     for (n = 1;; n++) { fail_nth_start(n); ...; if (!fail_nth_stop()) break; }
 *     // until none was left to fail
 */
#ifndef M2SED_TESTS_FAIL_NTH_H
#define M2SED_TESTS_FAIL_NTH_H

#include <stdbool.h>
#include <stddef.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void __real_free(void *old);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void __wrap_free(void *old);

static long fail_nth_left;        /* allocations until the one that fails; 0 or less: none fails */
static bool fail_nth_failed;      /* since fail_nth_start */
static long fail_nth_outstanding; /* blocks allocated and not freed */

static void fail_nth_start(long n) {
  fail_nth_left = n;
  fail_nth_failed = false;
}

/* Whether one failed. */
static bool fail_nth_stop(void) {
  fail_nth_left = 0;
  return fail_nth_failed;
}

static bool fail_nth_now(void) {
  bool now = fail_nth_left > 0 && --fail_nth_left == 0;
  fail_nth_failed |= now;
  return now;
}

void *__wrap_malloc(size_t size) {
  void *block = fail_nth_now() ? NULL : __real_malloc(size);
  fail_nth_outstanding += block != NULL;
  return block;
}

void *__wrap_calloc(size_t count, size_t size) {
  void *block = fail_nth_now() ? NULL : __real_calloc(count, size);
  fail_nth_outstanding += block != NULL;
  return block;
}

void *__wrap_realloc(void *old, size_t size) {
  void *block = fail_nth_now() ? NULL : __real_realloc(old, size);
  fail_nth_outstanding += block != NULL && old == NULL;
  return block;
}

#ifdef FAIL_NTH_ALIGNED_ALLOC
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

void *__wrap_aligned_alloc(size_t alignment, size_t size) {
  void *block = fail_nth_now() ? NULL : __real_aligned_alloc(alignment, size);
  fail_nth_outstanding += block != NULL;
  return block;
}
#endif

void __wrap_free(void *old) {
  fail_nth_outstanding -= old != NULL;
  __real_free(old);
}

#endif
