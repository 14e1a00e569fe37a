#include "daemon/garbage.h"

#include <assert.h>
#include <stdlib.h>

#include "model/error.h"

int m2sed_garbage_init(struct m2sed_garbage *garbage, uint32_t window, double share) {
  assert(window >= 1);
  *garbage = (struct m2sed_garbage){.window = window, .share = share, .bad = calloc(window, 1)};
  return garbage->bad ? 0 : M2SE_ENOMEM;
}

void m2sed_garbage_deinit(struct m2sed_garbage *garbage) {
  free(garbage->bad);
  *garbage = (struct m2sed_garbage){0};
}

bool m2sed_garbage_count(struct m2sed_garbage *garbage, bool bad) {
  bool full = garbage->seen == garbage->window;
  garbage->bad_count += bad - (full ? garbage->bad[garbage->next] : 0U);
  garbage->bad[garbage->next] = bad;
  garbage->next = (garbage->next + 1) % garbage->window;
  garbage->seen += !full;
  bool opens = !garbage->open && garbage->seen == garbage->window &&
               garbage->bad_count > garbage->share * garbage->window;
  garbage->open |= opens;
  return opens;
}

void m2sed_garbage_close(struct m2sed_garbage *garbage) {
  garbage->open = false;
  garbage->seen = garbage->next = garbage->bad_count = 0;
}
