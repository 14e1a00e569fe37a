/* A text that grows: what a command will print, built first and written in one go. Out of memory sticks and
 * is told when it is shown. */
#ifndef M2SED_TEXT_H
#define M2SED_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct m2sed_text { /* zero at first */
  char *data;       /* NUL-terminated, NULL while empty */
  size_t size, capacity;
  bool failed;
};

void m2sed_text_add(struct m2sed_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void m2sed_text_add_bytes(struct m2sed_text *text, const char *bytes, size_t size);
/* A text of strangers (ids, titles, errors): control characters, which a terminal would obey, become '?', and
 * so do bytes that are no UTF-8. */
void m2sed_text_add_foreign(struct m2sed_text *text, const char *bytes, size_t size);
void m2sed_text_clear(struct m2sed_text *text); /* keeps the memory */
void m2sed_text_free(struct m2sed_text *text);

/* ---- forms for people ---- */
void m2sed_text_add_count(struct m2sed_text *text, uint64_t count);      /* 1,234,567 */
void m2sed_text_add_bytes_size(struct m2sed_text *text, uint64_t bytes); /* 1.5 MiB */
void m2sed_text_add_seconds(struct m2sed_text *text, double seconds);    /* 2h 03m, 4m 05s, 6.7s */
void m2sed_text_add_time(struct m2sed_text *text, int64_t time_ms);      /* 1998-04-23T09:00:00Z; UTC */
/* One bar of eight heights a value, from 0 to the largest of all; nothing for none. */
void m2sed_text_add_bars(struct m2sed_text *text, const double *values, uint32_t count);

#endif
