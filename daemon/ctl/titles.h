/* Names of items for people, out of a file of JSON lines such as the one that was produced to the items
 * topic. */
#ifndef M2SED_CTL_TITLES_H
#define M2SED_CTL_TITLES_H

#include <stddef.h>
#include <stdint.h>

#include "model/error.h"

struct m2sed_title {
  const char *id; /* the caller's; need not be NUL-terminated */
  size_t id_size;
  char *title; /* NULL: the file has none; freed by m2sed_titles_free */
};

/* Looks the ids up; where an item comes twice, the later one counts. M2SE_EIO, or M2SE_EFORMAT and
 * "FILE:LINE: ...". */
int m2sed_titles_read(const char *path, struct m2sed_title *titles, uint32_t count, struct m2se_error *error);
void m2sed_titles_free(struct m2sed_title *titles, uint32_t count);

#endif
